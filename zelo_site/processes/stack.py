"""Starts the whole installation: services, database tables, child processes.

`serve` is for `manage.py up`, `working` for commands that judge, `database` for commands that only
read. If another instance uses the home, or the environment names external servers, commands use those
servers. Other hosts start single workers with `manage.py worker`.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.db import DatabaseError, OperationalError, connection

from trainer.serving.registry import servable
from workers.broker.routing import QUEUES
from workers.judging.streaming import STOP_S
from workers.monitoring.gpus import has_gpu
from workers.monitoring.heartbeats import alive
from zelo_site.processes.addresses import note_address, public_address
from zelo_site.processes.restarting import RestartFailed, RestartOrders
from zelo_site.processes.services import AlreadyRunning, ServiceSupervisor
from zelo_site.processes.supervisor import GRACE_S, Child, ProcessSupervisor, exits_on_sigterm

MANAGE = Path(__file__).resolve().parents[2] / "manage.py"
# The queues of a run. `up` and the training commands start the training worker.
NEEDED_QUEUES = frozenset({"rating", "judging-cpu", "judging-gpu", "judging-http"})
# On few cores, starting processes slow each other down, so processes needed later start later.
LATER_S = 6.0
# Per web process; with the files it opens, below the usual limit of 1024 descriptors.
# Longer than clients keep an idle connection (httpx 5 s, aiohttp 15 s): a request on one that the server closes at that moment fails.
KEEP_ALIVE_S = 20
WEB_CONNECTIONS = 400
# Longer than a pump waits for its open calls.
CALLS_GRACE_S = STOP_S + 10.0


class NoDatabase(RuntimeError):
    """The database is unreachable and cannot be started."""


class PortTaken(RuntimeError):
    """The server's address is invalid or in use."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A running server: the address for browsers, the one on which it listens, its logs, and a method that waits for its end."""

    address: str
    listening: str
    logs: Path
    wait: Callable[[], int]
    tick: Callable[[], None]


def worker_processes(*, judging: int = 0, queues: Collection[str] = QUEUES) -> list[Child]:
    """Return the workers of these queues, and the reconciler.

    Without a GPU, the CPU judging worker also serves the GPU judges' queue.
    """
    on_gpu = "judging-gpu" in queues and has_gpu()
    local = ["judging-cpu"] if on_gpu else ["judging-cpu", "judging-gpu"]
    children = []
    if "rating" in queues:
        children.append(_child("rating", "worker", "rating"))
    if any(name in queues for name in local):
        children.append(_child("judging-cpu", "worker", *local, "--concurrency", str(judging or os.cpu_count() or 1)))
    children.append(_child("reconciler", "reconcile"))
    if on_gpu:
        children.append(_child("judging-gpu", "worker", "judging-gpu"))
    if "judging-http" in queues:
        children.append(_child("judging-http", "worker", "judging-http", delay_s=LATER_S, grace_s=CALLS_GRACE_S))
    if "training" in queues:
        children.append(_child("training", "worker", "training", delay_s=LATER_S))
    return children


def web_process(host: str, port: int) -> Child:
    """Return the web server; it uses threads, because it mostly waits for the database or the ranking server."""
    return Child(
        name="web",
        essential=True,
        reload_signal=signal.SIGHUP,  # gunicorn starts new processes before it ends the old ones
        command=[
            sys.executable, "-m", "gunicorn", "zelo_site.wsgi", "--bind", f"{host}:{port}", "--workers", "2",
            "--threads", "12", "--worker-class", "zelo_site.processes.patient_worker.PatientWorker",
            "--worker-connections", str(WEB_CONNECTIONS), "--no-sendfile", "--keep-alive", str(KEEP_ALIVE_S), "--timeout", "120", "--graceful-timeout", "5",
            "--worker-tmp-dir", str(settings.ZELO_HOME), "--log-level", "warning",
            "--config", "python:zelo_site.processes.gunicorn",
        ],
    )  # fmt: skip


def _child(name: str, *arguments: str, delay_s: float = 0.0, grace_s: float = GRACE_S) -> Child:
    return Child(name=name, command=[sys.executable, str(MANAGE), *arguments], delay_s=delay_s, grace_s=grace_s)


class RankingOnDemand:
    """Starts the ranking server once there is a reranker to serve, to save memory until then."""

    LOOK_EVERY_S = 3.0

    def __init__(self) -> None:
        self.processes: ProcessSupervisor | None = None
        self._next_look = 0.0

    def look(self) -> list[str]:
        """Call on each tick; reports nothing. Does nothing once the process has started."""
        if self.processes is None or settings.ZELO_RERANK_URL or time.monotonic() < self._next_look:
            return []
        self._next_look = time.monotonic() + self.LOOK_EVERY_S
        with contextlib.suppress(DatabaseError):  # the database is restarting
            if servable().exists():
                self.processes.start(_child("serve_rerank", "serve_rerank"))
                self._next_look = math.inf
        return []


@contextlib.contextmanager
def serve(host: str, port: int, *, judging: int = 0) -> Iterator[Serving]:
    """Run services, tables, web server and workers until the block ends. Raises AlreadyRunning, PortTaken."""
    _check_port(host, port)
    with exits_on_sigterm(), ServiceSupervisor(settings.ZELO_HOME) as services:
        _migrate()
        settings.STATIC_ROOT.mkdir(parents=True, exist_ok=True)
        settings.FILE_UPLOAD_TEMP_DIR.mkdir(mode=0o700, exist_ok=True)
        for left in settings.FILE_UPLOAD_TEMP_DIR.iterdir():  # what a killed web process left
            with contextlib.suppress(OSError):
                left.unlink()
        with contextlib.suppress(OSError):
            settings.FILE_UPLOAD_TEMP_DIR.chmod(0o700)
        children = [web_process(host, port), *worker_processes(judging=judging)]
        ranking = RankingOnDemand()
        orders = RestartOrders(settings.ZELO_HOME, migrate=migrate_with_new_program)

        def watch() -> list[str]:
            return [*services.revive(), *ranking.look(), *orders.look()]

        with ProcessSupervisor(children, home=settings.ZELO_HOME, watch=watch) as processes:
            ranking.processes = orders.processes = processes
            shown = f"[{host}]" if ":" in host else host
            listening = f"http://{shown}:{port}"
            address = public_address(listening)
            note_address(settings.ZELO_HOME, address)
            try:
                yield Serving(address, listening, settings.ZELO_HOME / "logs", processes.wait, processes.tick)
            finally:
                connection.close()


@contextlib.contextmanager
def working(queues: Collection[str] = NEEDED_QUEUES) -> Iterator[Callable[[], None]]:
    """Provide a migrated database and workers of these queues: running ones, or our own until the block
    ends. Yields a function to call regularly while waiting.
    """
    with database() as services:
        # The holder of the home starts all workers, because a killed predecessor's heartbeats look alive for a while.
        needed = queues if services is not None else workers_needed(queues)
        if not needed:
            yield lambda: None
            return
        watch = services.revive if services is not None else list
        children = worker_processes(queues=needed)
        with ProcessSupervisor(children, home=settings.ZELO_HOME, watch=watch) as processes:
            yield processes.tick


def workers_needed(queues: Collection[str] = NEEDED_QUEUES) -> frozenset[str]:
    """Return the queues without a live worker."""
    return frozenset(queues) - {queue for worker in alive() for queue in worker.queues.split(",")}


@contextlib.contextmanager
def database() -> Iterator[ServiceSupervisor | None]:
    """Provide a migrated database until the block ends: a running instance's (yields None), our own, or that of
    DATABASE_URL. Raises NoDatabase if it does not answer.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(exits_on_sigterm())
        try:
            supervisor = stack.enter_context(ServiceSupervisor(settings.ZELO_HOME))
        except AlreadyRunning:
            yield None
            return
        stack.callback(connection.close)
        _migrate()
        yield supervisor


def _migrate() -> None:
    try:
        call_command("migrate", verbosity=0)
    except OperationalError as error:
        raise NoDatabase(
            f"the database does not answer ({error}); check DATABASE_URL and that the database is running"
        ) from error


def migrate_with_new_program() -> None:
    """Run the migrations of the installed program, which may be newer than this process. Raises RestartFailed."""
    done = subprocess.run(
        [sys.executable, str(MANAGE), "migrate", "--verbosity", "0"],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RestartFailed(f"the migrations failed: {lines[-1]}")


def _check_port(host: str, port: int) -> None:
    if not 1 <= port <= 65535:
        raise PortTaken(f"--port is {port}; pass a number from 1 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another port with --port"
            ) from error
