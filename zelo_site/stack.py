"""Everything that runs, put together: services, database tables, child processes.

`serve` is `manage.py up`, `working` what a command needs that judges, `database` what one needs that
reads. Where another instance has the home, or real servers are named in the environment, theirs are
used. Other hosts start single workers with `manage.py worker` instead.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.db import OperationalError, connection

from workers.heartbeats import alive
from zelo_site.services import AlreadyRunning, ServiceSupervisor
from zelo_site.supervisor import Child, ProcessSupervisor, exits_on_sigterm

MANAGE = Path(__file__).resolve().parent.parent / "manage.py"
NEEDED_QUEUES = frozenset({"judging", "rating"})


class NoDatabase(RuntimeError):
    """A command needs the database and none can be reached or started."""


class PortTaken(RuntimeError):
    """The address that the server was to use is none, or something else listens there."""


@dataclass(frozen=True, slots=True)
class Serving:
    """A running server: where it answers, where its logs are, and how to wait for its end."""

    address: str
    logs: Path
    wait: Callable[[], int]
    tick: Callable[[], None]


def worker_processes(*, judging: int = 0) -> list[Child]:
    """The processes that do the work: one worker a queue, and the reconciler."""
    return [
        _child("rating", "worker", "rating"),
        _child("judging", "worker", "judging", "--concurrency", str(judging or os.cpu_count() or 1)),
        _child("reconciler", "reconcile"),
    ]


def web_process(host: str, port: int) -> Child:
    """The web server; threads, since most of its time is waiting for the database."""
    return Child(
        name="web",
        essential=True,
        command=[
            sys.executable, "-m", "gunicorn", "zelo_site.wsgi", "--bind", f"{host}:{port}", "--workers", "2",
            "--threads", "8", "--worker-class", "gthread", "--timeout", "120", "--graceful-timeout", "5",
            "--worker-tmp-dir", str(settings.ZELO_HOME), "--log-level", "warning",
        ],
    )  # fmt: skip


def _child(name: str, *arguments: str) -> Child:
    return Child(name=name, command=[sys.executable, str(MANAGE), *arguments])


@contextlib.contextmanager
def serve(host: str, port: int, *, judging: int = 0) -> Iterator[Serving]:
    """Services, tables, web and workers, until the block ends. Raises AlreadyRunning, PortTaken."""
    _check_port(host, port)
    with exits_on_sigterm(), ServiceSupervisor(settings.ZELO_HOME) as services:
        _migrate()
        settings.STATIC_ROOT.mkdir(parents=True, exist_ok=True)
        children = [web_process(host, port), *worker_processes(judging=judging)]
        with ProcessSupervisor(children, home=settings.ZELO_HOME, watch=services.revive) as processes:
            shown = f"[{host}]" if ":" in host else host
            try:
                yield Serving(f"http://{shown}:{port}", settings.ZELO_HOME / "logs", processes.wait, processes.tick)
            finally:
                connection.close()


@contextlib.contextmanager
def working() -> Iterator[Callable[[], None]]:
    """A database with its tables and workers that judge and rate: those that run, or our own for as
    long as the block lasts. Yields what to call now and then while waiting.
    """
    with database() as services:
        if services is None and not workers_needed():
            yield lambda: None
            return
        watch = services.revive if services is not None else list
        with ProcessSupervisor(worker_processes(), home=settings.ZELO_HOME, watch=watch) as processes:
            yield processes.tick


def workers_needed() -> frozenset[str]:
    """The queues that no living worker serves."""
    return NEEDED_QUEUES - {queue for worker in alive() for queue in worker.queues.split(",")}


@contextlib.contextmanager
def database() -> Iterator[ServiceSupervisor | None]:
    """The database with its tables: that of the instance that runs (yields None), or our own or the one
    that DATABASE_URL names for as long as the block lasts. Raises NoDatabase where that does not answer.
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
        raise NoDatabase(f"the database does not answer ({error}); check DATABASE_URL and that it runs") from error


def _check_port(host: str, port: int) -> None:
    if not 1 <= port <= 65535:
        raise PortTaken(f"--port is {port}; expected a number from 1 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(f"cannot listen on {host}:{port} ({error.strerror}); choose another with --port") from error
