"""An installation of its own, for tests of the program as it is run: its home, its commands, their output."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg

ROOT = Path(__file__).resolve().parents[2]


def own_environment(home: Path) -> dict[str, str]:
    """The environment of an installation in `home` that shares nothing with the tests' own servers."""
    home.chmod(0o711)  # PostgreSQL of root's runs as another user, which must pass
    if home.is_relative_to("/tmp"):
        for folder in [each for each in home.parents if each.is_relative_to("/tmp")][:-1]:
            folder.chmod(folder.stat().st_mode | 0o011)
    kept = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "BROKER_URL"}}
    return {**kept, "ZELO_HOME": str(home), "ZELO_LOG_LEVEL": "WARNING", "OMP_NUM_THREADS": "1"}


def manage(environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "manage.py"), *arguments],
        env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def last_line(process: subprocess.Popen[str], timeout_s: float) -> str:
    """Wait for the end and return all output; fails the test with it where the process did."""
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its children too, if it leads a group
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(f"not done within {timeout_s:.0f} s: {output}") from None
    assert process.returncode == 0, output
    return output


def connect(environment: dict[str, str]) -> psycopg.Connection[Any]:
    """A connection of our own to an installation's embedded database."""
    from zelo_site.processes.services import service_urls

    return psycopg.connect(service_urls(Path(environment["ZELO_HOME"]), environ={}).database_url, autocommit=True)


def rows(connection: psycopg.Connection[Any], sql: str) -> list[tuple[Any, ...]]:
    return connection.execute(sql).fetchall()  # type: ignore[call-overload, no-any-return]


def wait_for(environment: dict[str, str], sql: str, count: int, *, patience_s: float = 90.0) -> int:
    """Until that query counts so many or more; returns how many."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            with connect(environment) as connection:
                ((found,),) = rows(connection, sql)
                if found >= count:
                    return int(found)
        except psycopg.Error:
            pass
        time.sleep(0.05)
    raise AssertionError(f"fewer than {count} within {patience_s:.0f} s: {sql}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
