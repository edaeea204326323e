"""Claim: the demo's page answers within 5 s of the server being up, and scores move within 15 s of opening it.

Starts `manage.py demo` in a home of its own, signs in over HTTP with the printed link, and watches the scores
through the REST interface. `install_s` is what `make` takes to install the pinned requirements into a new environment;
`--quick` leaves that out (null) and uses the environment that runs this.
"""

from __future__ import annotations

import argparse
import http.cookiejar
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DEADLINE_S = 300.0
STOP_S = 60.0
LINK = re.compile(r"(http://\S+/enter/[\w-]+/)\?next=/p/([\w-]+)/")


class DemoFailed(RuntimeError):
    """The demo ended or stayed silent before it could be measured."""


@dataclass
class Demo:
    """A running demo: what it has printed, by the second in which it did."""

    process: subprocess.Popen[str]
    began: float
    lines: list[tuple[float, str]] = field(default_factory=list)

    def read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append((time.monotonic() - self.began, line))

    def link(self) -> tuple[float, str, str]:
        """(seconds until it was printed, the sign-in link, the project's slug)."""
        while time.monotonic() - self.began < DEADLINE_S and self.process.poll() is None:
            for at, line in list(self.lines):
                if found := LINK.search(line):
                    return at, found[1], found[2]
            time.sleep(0.02)
        raise DemoFailed("no sign-in link was printed; it said:\n" + "".join(line for _, line in self.lines))


@contextmanager
def running_demo(home: Path, port: int, *arguments: str) -> Iterator[Demo]:
    command = [sys.executable, "-u", str(ROOT / "manage.py"), "demo", "--port", str(port), *arguments]
    environ = {**os.environ, "ZELO_HOME": str(home)}
    process = subprocess.Popen(
        command, env=environ, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    demo = Demo(process, time.monotonic())
    reader = threading.Thread(target=demo.read, daemon=True)
    reader.start()
    try:
        yield demo
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(STOP_S)
        reader.join(5)


def browser() -> urllib.request.OpenerDirector:
    """Something that keeps cookies and follows redirects."""
    return urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))


def open_page(visitor: urllib.request.OpenerDirector, link: str, page: str) -> str:
    """Sign in with the link as the page's own form does, and open the page; retries until the server answers."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            form = visitor.open(f"{link}?next={urllib.parse.quote(page)}", timeout=30).read().decode()
            break
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form)
    if token is None:
        raise DemoFailed("the sign-in page has no form; is the link used up?")
    data = urllib.parse.urlencode({"csrfmiddlewaretoken": token[1], "next": page}).encode()
    return str(visitor.open(f"{link}?next={urllib.parse.quote(page)}", data=data, timeout=30).read().decode())


def wait_until_moving(visitor: urllib.request.OpenerDirector, address: str, slug: str) -> None:
    """Return once the Elo scores of the project's first question are others than at the first look."""
    began = time.monotonic()

    def ask(path: str) -> Any:
        return json.loads(visitor.open(f"{address}/api/v1{path}", timeout=30).read())

    question = ask(f"/projects/{slug}/queries?limit=1")[0]["id"]
    before = None
    while time.monotonic() - began < DEADLINE_S:
        elo = [row["elo"] for row in ask(f"/queries/{question}/scores")["scores"]]
        if before is not None and elo != before and any(value is not None for value in elo):
            return
        before = elo
        time.sleep(0.1)
    raise DemoFailed(f"no score moved within {DEADLINE_S:.0f} s; see the logs of the judging and rating workers")


def measure(home: Path, port: int) -> dict[str, float]:
    """Start a demo, open its project page, wait for a score to move, stop it."""
    with running_demo(home, port) as demo:
        up_s, link, slug = demo.link()
        opened = time.monotonic()
        visitor = browser()
        page = open_page(visitor, link, f"/p/{slug}/")
        page_s = time.monotonic() - opened
        if slug not in page:
            raise DemoFailed("the address of the project shows another page")
        wait_until_moving(visitor, link.split("/enter/")[0], slug)
        stopped = time.monotonic()
        moving_s = stopped - opened
    return {
        "page_s": round(page_s, 2),
        "moving_s": round(moving_s, 2),
        "up_s": round(up_s, 2),
        "stop_s": round(time.monotonic() - stopped, 2),
    }


def install_seconds(folder: Path) -> float:
    """A new environment with the pinned requirements, by the Makefile's own rule."""
    began = time.monotonic()
    subprocess.run(["make", "-s", "-C", str(ROOT), "setup", f"VENV={folder / 'venv'}"], check=True)
    return round(time.monotonic() - began, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="no installation; use the environment that runs this")
    parser.add_argument("--port", type=int, default=8179)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zelo-") as folder:
        install_s = None if options.quick else install_seconds(Path(folder))
        figures: dict[str, float | None] = {**measure(Path(folder) / "home", options.port), "install_s": install_s}
    shown = "not measured (--quick)" if install_s is None else f"{install_s}"
    print(f"{'':28}{'measured':>12}{'target':>12}")
    print(f"{'page answers after, s':28}{figures['page_s']:>12}{'5':>12}")
    print(f"{'scores move after, s':28}{figures['moving_s']:>12}{'15':>12}")
    print(f"{'link printed after, s':28}{figures['up_s']:>12}")
    print(f"{'Ctrl-C to the end, s':28}{figures['stop_s']:>12}")
    print(f"{'installation, s':28}{shown:>12}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
