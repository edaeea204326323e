"""Starts the fake judge as a process of its own and talks to its control endpoints; for tests.

The process ends with the `with` block, and also when the test process dies.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fake_judge.ledger import read_ledger

ROOT = Path(__file__).resolve().parents[2]


class FakeJudgeDidNotStart(RuntimeError):
    """The process ended before it printed its address."""


@dataclass(frozen=True, slots=True)
class FakeJudge:
    """A running fake judge. `base_url` ends in /v1, as OpenAI clients want it."""

    base_url: str
    ledger_file: Path
    pid: int

    def control(self, name: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call /_fake/<name>: GET without a body, POST with one."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.base_url.removesuffix('/v1')}/_fake/{name}", data=data)
        with urllib.request.urlopen(request, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
        return answer

    def set_faults(self, **rates: float) -> None:
        """Replace the fault rates; without any, faults end."""
        self.control("faults", {"rates": rates})

    def order_faults(self, *names: str) -> None:
        """Let the next calls meet these faults, in order; "" lets a call through."""
        self.control("faults", {"next": list(names)})

    def order_batch_faults(self, *batches: str, **steps: list[str]) -> None:
        """Let the next batches meet these faults, and the next requests of each step: upload, create, list and so on."""
        self.control("batches", {"batches": list(batches), "steps": steps})

    def set_batches(self, **settings: float) -> None:
        """`batch_s`: seconds that a batch takes; `most_lines`: the largest batch that is not refused."""
        self.control("batches", settings)

    def batches(self) -> dict[str, Any]:
        """`uploads` by file name, batches `created` by file name, and all `batches`."""
        return self.control("batches")

    def set_judge(self, model: str, **settings: Any) -> None:
        """Give the judge of this model name settings of its own."""
        self.control("judges", {model: settings})

    def reply_with(self, body: str, *, status: int = 200) -> None:
        """Give the next call this reply as it is, whatever its key."""
        self.control("raw", {"replies": [{"status": status, "body": body}]})

    def summary(self) -> dict[str, Any]:
        """Counts of calls: `calls`, `paid`, `by_fault`, `by_model`, `in_flight`, `most_in_flight`."""
        return self.control("ledger")

    def ledger(self) -> list[dict[str, Any]]:
        """All calls so far, in order."""
        return read_ledger(self.ledger_file)


@contextlib.contextmanager
def running_fake_judge(ledger: Path, *arguments: str) -> Iterator[FakeJudge]:
    """Run `python -m tests.fake_judge` with these further arguments until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fake_judge", "--until-stdin-closes", "--ledger", str(ledger), *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if not address:
            raise FakeJudgeDidNotStart(f"the fake judge ended with {process.wait()}; see its standard error above")
        yield FakeJudge(base_url=address, ledger_file=ledger, pid=process.pid)
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
