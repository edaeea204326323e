"""Starts child processes that cannot outlive their supervisor, and keeps their logs. No Django.

`zelo_site.services` starts PostgreSQL and Valkey with it, `zelo_site.supervisor` everything else; `zelo_site.guard`
runs inside the new process. Call from the main thread: the kernel ends a child with the thread that started it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GUARD = Path(__file__).with_name("guard.py")
ORPHAN_GRACE_S = 5.0
KEPT_LOGS = 2


@dataclass(frozen=True)
class RunAs:
    """The unprivileged user that a child of root switches to; `search` lets it traverse closed folders."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    search: bool = False


def start_as(
    command: Sequence[str],
    *,
    log: Path,
    environ: Mapping[str, str],
    folder: Path,
    death_signal: signal.Signals,
    user: RunAs | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` in `folder` as `user`, in its own session; it gets `death_signal` when this process dies.

    The process id is the command's, so callers can signal it directly.
    """
    dropped = user and {
        "uid": user.uid,
        "gid": user.gid,
        "groups": list(user.groups),
        "search": user.search,
        "folder": str(folder),
    }
    order = {"mode": "become", "death_signal": int(death_signal), "user": dropped}
    return _start(order, command, log=log, environ=environ, folder=None if dropped else folder)


def start_guarded(
    command: Sequence[str], *, log: Path, environ: Mapping[str, str], folder: Path | None = None, grace_s: float = 15.0
) -> subprocess.Popen[bytes]:
    """Start `command` under a guard, in its own session.

    SIGTERM stops the command and its descendants within `grace_s` seconds; a second SIGTERM kills them at once.
    If this process dies, the guard stops them within ORPHAN_GRACE_S.
    """
    order = {"mode": "guard", "grace_s": grace_s, "orphan_grace_s": min(grace_s, ORPHAN_GRACE_S)}
    return _start(order, command, log=log, environ=environ, folder=folder)


def _start(
    order: Mapping[str, Any], command: Sequence[str], *, log: Path, environ: Mapping[str, str], folder: Path | None
) -> subprocess.Popen[bytes]:
    line = json.dumps({**order, "parent": os.getpid()})
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(GUARD), line, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environ),
            cwd=folder,
            start_new_session=True,
        )


def fresh_log(home: Path, name: str) -> Path:
    """Return the log path `home/logs/NAME.log`; the previous log becomes NAME.log.1."""
    log = home / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if log.exists() and log.stat().st_size:
        for age in range(KEPT_LOGS, 0, -1):
            older = log.with_name(f"{log.name}.{age}")
            younger = log.with_name(f"{log.name}.{age - 1}") if age > 1 else log
            if younger.exists():
                younger.replace(older)
    return log


def log_tail(log: Path, lines: int = 15) -> str:
    """Return the last lines of a log, for an error message."""
    try:
        text = log.read_bytes()[-16_384:].decode(errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"
