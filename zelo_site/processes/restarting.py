"""Orders to restart a running server, left as a file in its home. No Django.

`manage.py restart` and `manage.py upgrade` call `order_restart`; the process of `manage.py up` looks for orders at each tick.
Rejected: a signal, which carries no answer and may reach another process that got the id of one that died.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from zelo_site.processes.supervisor import ProcessSupervisor

ORDER, ANSWER = "restart.order", "restart.answer"
# A server looks for an order each second, and answers when its processes have ended their work.
TAKEN_WITHIN_S, DONE_WITHIN_S = 15.0, 1800.0
POLL_S = 0.1


class RestartFailed(RuntimeError):
    """The server was not restarted; the message says why and what to do."""


class RestartOrders:
    """Carries out the orders of one home. `migrate` runs while no process does; it may raise RestartFailed."""

    def __init__(self, home: Path, *, migrate: Callable[[], None]) -> None:
        self.processes: ProcessSupervisor | None = None
        self._home, self._migrate = home, migrate
        (home / ORDER).unlink(missing_ok=True)  # of a server that has ended

    def look(self) -> list[str]:
        """Call on each tick; returns lines to report."""
        if self.processes is None or not (self._home / ORDER).exists():
            return []
        order = json.loads((self._home / ORDER).read_text())
        (self._home / ORDER).unlink()
        error = ""
        try:
            self.processes.restart(self._migrate if order["migrate"] else None)
        except RestartFailed as failure:
            error = str(failure)
        _write(self._home / ANSWER, {"id": order["id"], "error": error})
        return [f"not restarted: {error}" if error else "restarted all processes as requested"]


def order_restart(home: Path, *, migrate: bool, patience_s: float = TAKEN_WITHIN_S) -> None:
    """Order the server of `home` to restart its processes, and wait until it has. Raises RestartFailed."""
    number = uuid.uuid4().hex
    _write(home / ORDER, {"id": number, "migrate": migrate})
    deadline = time.monotonic() + patience_s
    while (home / ORDER).exists():
        if time.monotonic() > deadline:
            (home / ORDER).unlink(missing_ok=True)
            raise RestartFailed("the running server does not support restarts by command; stop it, then start it again")
        time.sleep(POLL_S)
    deadline = time.monotonic() + DONE_WITHIN_S
    while (answer := _answer(home)).get("id") != number:
        if time.monotonic() > deadline:
            raise RestartFailed(f"the server did not restart within {DONE_WITHIN_S:.0f} s; see its logs")
        time.sleep(POLL_S)
    (home / ANSWER).unlink(missing_ok=True)
    if answer["error"]:
        raise RestartFailed(answer["error"])


def _answer(home: Path) -> dict[str, str]:
    with contextlib.suppress(FileNotFoundError):
        return dict(json.loads((home / ANSWER).read_text()))
    return {}


def _write(path: Path, content: dict[str, object]) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(content))
    draft.replace(path)
