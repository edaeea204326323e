"""Everything that runs, put together: services, database tables, first user, child processes.

`manage.py up`, `demo` and `run` start it; with real servers named in the environment the embedded
ones stay out. Other hosts start single workers with `manage.py worker` instead.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.db import OperationalError, connection

from zelo_site.services import AlreadyRunning, ServiceSupervisor
from zelo_site.supervisor import Child, ProcessSupervisor

MANAGE = Path(__file__).resolve().parent.parent / "manage.py"


class NoDatabase(RuntimeError):
    """A command needs the database and none can be reached or started."""


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
        command=[
            sys.executable, "-m", "gunicorn", "zelo_site.wsgi", "--bind", f"{host}:{port}", "--workers", "2",
            "--threads", "8", "--worker-class", "gthread", "--timeout", "120", "--graceful-timeout", "5",
            "--access-logfile", "/dev/null", "--worker-tmp-dir", str(settings.ZELO_HOME),
        ],
    )  # fmt: skip


def _child(name: str, *arguments: str) -> Child:
    return Child(name=name, command=[sys.executable, str(MANAGE), *arguments])


@contextlib.contextmanager
def services() -> Iterator[bool]:
    """The database and the broker, started here unless they run already or are real servers.

    Yields whether this process owns the home: where another instance does, True would start its
    workers a second time.
    """
    try:
        supervisor = ServiceSupervisor(settings.ZELO_HOME)
        supervisor.__enter__()
    except AlreadyRunning:
        yield False
        return
    try:
        call_command("migrate", verbosity=0)
        yield True
    finally:
        connection.close()
        supervisor.__exit__(None, None, None)


def wait_for_tables() -> None:
    """Raise NoDatabase unless the database answers and its tables are there."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM labeling_project LIMIT 1")
    except OperationalError as error:
        raise NoDatabase(f"the database does not answer ({error}); start the server with `make up`") from error


def processes() -> ProcessSupervisor:
    """A supervisor of child processes whose logs go to ZELO_HOME."""
    return ProcessSupervisor(home=settings.ZELO_HOME)
