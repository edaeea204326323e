"""Hosts for tests: network namespaces of this machine, each behind a link of its own, or only processes with own homes.

A host reaches PostgreSQL, Valkey and the fake judge through a forwarder at its own address, which can delay what
passes or stop it; where there are namespaces, the link itself can be cut. Traffic never leaves the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.db import connection

from tests.processes.installation import ROOT

Target = str | tuple[str, int]

_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long ahead(void) { const char *s = getenv("AHEAD_S"); return s ? atol(s) : 0; }
int clock_gettime(clockid_t id, struct timespec *t) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int r = real(id, t);
    if (!r && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += ahead();
    return r;
}
int gettimeofday(struct timeval *restrict t, void *restrict z) {
    struct timespec s; clock_gettime(CLOCK_REALTIME, &s);
    t->tv_sec = s.tv_sec; t->tv_usec = s.tv_nsec / 1000; return 0;
}
time_t time(time_t *t) {
    struct timespec s; clock_gettime(CLOCK_REALTIME, &s); if (t) *t = s.tv_sec; return s.tv_sec;
}
"""


def can_have_namespaces() -> bool:
    """Whether this process may make network namespaces and join them by links."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"zelo-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    linked = made and _ip(
        "link", "add", f"zt{os.getpid() % 10_000}", "type", "veth", "peer", "name", "x0", "netns", name
    )
    if made:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return linked


def _ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0


def clock_library(folder: Path) -> Path | None:
    """A library that sets the clock of whoever loads it AHEAD_S seconds ahead; None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(_CLOCK)
    made = subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], capture_output=True, check=False
    )
    return library if made.returncode == 0 else None


@dataclass
class Host:
    """A host with a worker on it. `passing` and `delay_s` are the forwarder's."""

    name: str
    home: Path
    outside: str
    namespace: str = ""
    link: str = ""
    delay_s: float = 0.0
    passing: bool = True
    worker: subprocess.Popen[bytes] | None = None
    ports: dict[str, int] = field(default_factory=dict)

    def cut(self) -> None:
        """Off the network: the link is down where there is one, otherwise nothing passes."""
        self.passing = False
        if self.link:
            assert _ip("link", "set", self.link, "down")

    def join(self) -> None:
        if self.link:
            assert _ip("link", "set", self.link, "up")
        self.passing = True

    def start(self, *arguments: str, environ: Mapping[str, str]) -> None:
        """`manage.py worker` with the three URLs, as on any host."""
        inside = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        name = connection.settings_dict["NAME"]
        user = connection.settings_dict["USER"]
        own = {
            "ZELO_HOME": str(self.home),
            "DATABASE_URL": f"postgres://{user}@{self.outside}:{self.ports['database']}/{name}",
            "ZELO_PLAIN_BROKER": "1",
            "BROKER_URL": f"redis://{self.outside}:{self.ports['broker']}/{broker_number()}",
            "STORAGE_URL": f"file://{self.home}/storage",
            "ZELO_LOG_LEVEL": "WARNING",
            "ZELO_IDLE_TRANSACTION_S": "2",  # a cut may come in the middle of one
        }
        with (self.home / "worker.log").open("ab") as log:
            self.worker = subprocess.Popen(
                [*inside, sys.executable, str(ROOT / "manage.py"), "worker", *arguments, "--name", self.name],
                env={**os.environ, **own, **environ}, cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def end(self) -> float:
        """SIGTERM, as a supervisor sends it; the seconds until the end."""
        assert self.worker is not None
        began = time.monotonic()
        self.worker.send_signal(signal.SIGTERM)
        try:
            self.worker.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.worker.pid, signal.SIGKILL)
        return time.monotonic() - began


@contextlib.contextmanager
def hosts(names: list[str], folder: Path, *, judge: tuple[str, int], namespaces: bool) -> Iterator[dict[str, Host]]:
    """Hosts with forwarders to the tests' database and broker and to the fake judge; all of it goes with the block."""
    made: dict[str, Host] = {}
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="forwarders", daemon=True)
    thread.start()
    try:
        for number, name in enumerate(names):
            home = folder / name
            home.mkdir()
            host = Host(name, home, outside="127.0.0.1")
            made[name] = host
            if namespaces:
                _connect(host, number)
            for service, target in (("database", _database()), ("broker", _broker()), ("judge", judge)):
                ready = asyncio.run_coroutine_threadsafe(_forward(host, target), loop)
                host.ports[service] = ready.result(10)
        yield made
    finally:
        for host in made.values():
            if host.worker is not None and host.worker.poll() is None:
                os.killpg(host.worker.pid, signal.SIGKILL)
                host.worker.wait()
            if host.namespace:
                _ip("netns", "del", host.namespace)
        asyncio.run_coroutine_threadsafe(_end_all(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


async def _end_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _connect(host: Host, number: int) -> None:
    """A namespace, and a link to it with two addresses of its own."""
    net = f"10.{200 + os.getpid() % 50}.{number}"
    host.namespace, host.link, host.outside = (
        f"zelo-{os.getpid()}-{number}",
        f"zh{os.getpid() % 10_000}n{number}",
        f"{net}.1",
    )
    inside = ["-n", host.namespace]
    steps = [
        ["netns", "add", host.namespace],
        ["link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", host.namespace],
        ["addr", "add", f"{net}.1/24", "dev", host.link],
        ["link", "set", host.link, "up"],
        [*inside, "addr", "add", f"{net}.2/24", "dev", "eth0"],
        [*inside, "link", "set", "eth0", "up"],
        [*inside, "link", "set", "lo", "up"],
    ]
    for step in steps:
        assert _ip(*step), f"ip {' '.join(step)} failed"


def _database() -> Target:
    place = connection.settings_dict
    port = place["PORT"] or 5432
    return f"{place['HOST']}/.s.PGSQL.{port}" if str(place["HOST"]).startswith("/") else (place["HOST"], int(port))


def broker_number() -> str:
    """Which of the broker's numbered databases the tests of this process use."""
    address = urlsplit(settings.CELERY_BROKER_URL)
    named = address.query.partition("virtual_host=")[2] if "socket" in address.scheme else address.path[1:]
    return named or "0"


def _broker() -> Target:
    url = settings.ZELO_REDIS_URL
    if url.startswith("unix://"):
        return str(url.removeprefix("unix://").split("?")[0])
    host, _, port = url.split("//")[1].split("/")[0].rpartition(":")
    return host.rpartition("@")[2], int(port)


async def _forward(host: Host, target: Target) -> int:
    """Listen at the host's outer address and pass everything on; returns the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened = asyncio.open_unix_connection(target) if isinstance(target, str) else asyncio.open_connection(*target)
        try:
            far_reader, far_writer = await opened
        except OSError:
            writer.close()
            return
        ways = [asyncio.create_task(_pass_on(host, *way)) for way in ((reader, far_writer), (far_reader, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for each in (writer, far_writer):
                each.close()

    server = await asyncio.start_server(serve, host.outside, 0)
    return int(server.sockets[0].getsockname()[1])


async def _pass_on(host: Host, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while data := await reader.read(65_536):
            if host.delay_s:
                await asyncio.sleep(host.delay_s)
            while not host.passing:
                await asyncio.sleep(0.05)
            writer.write(data)
            await writer.drain()


def endpoint(host: Host, **changes: object) -> str:
    """ZELO_ENDPOINTS that leads to the fake judge through the host's own forwarder."""
    base = {"name": "fake", "base_url": f"http://{host.outside}:{host.ports['judge']}/v1", "api_key_env": "FAKE_KEY"}
    return json.dumps([{**base, **changes}])
