"""Named places at which a process can be told to die, for tests of what a kill there costs.

`ZELO_FAILPOINT=NAME` or `NAME:N` kills the process with SIGKILL when it reaches that place (for the N-th time).
Without the variable a place costs one look at a global. Imports no Django.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping

VARIABLE = "ZELO_FAILPOINT"

# In the order in which a judgment comes by; what they mean is in docs/queue.md.
POINTS: Mapping[str, str] = {
    "advance.locked": "a run is to be moved on, nothing is done yet",
    "plan.before_commit": "some queries' questions are written, not committed",
    "plan.after_commit": "some queries' questions are committed, the round goes on",
    "plan.before_end": "all questions of the round are committed, the round is not ended",
    "claim.before_commit": "leases and attempts are written, not committed",
    "claim.after_commit": "leases are committed, nothing is asked yet",
    "call.before": "texts are read, the first call is about to go out",
    "call.answered": "an answer has come, it is nowhere but in memory",
    "spool.written": "an answer is handed to the disk, others are on their way",
    "spool.synced": "all answers of a batch are on disk, the database knows of none",
    "finish.before_commit": "judgments are written, not committed",
    "finish.after_commit": "judgments are committed, the spool still holds them",
    "fail.before_commit": "failures are written, not committed",
    "fail.after_commit": "failures are committed, the spool still holds them",
    "release.before_commit": "leases are handed back, not committed",
    "release.after_commit": "leases are handed back",
    "reap.before_commit": "expired leases are taken back, not committed",
    "reap.after_commit": "expired leases are taken back",
    "cancel.before_commit": "a run is cancelled and its questions dropped, not committed",
    "cancel.after_commit": "a run is cancelled",
    "recover.read": "a dead process's spool is read, nothing of it is stored",
    "recover.stored": "what a dead process left is stored, its leases are not ended",
    "recover.before_removal": "its leases are ended, its spool still stands",
}


class UnknownFailpoint(ValueError):
    """ZELO_FAILPOINT names no such place, or counts below 1."""


_lock = threading.Lock()
_name = ""
_left = 0


def arm(text: str) -> None:
    """Die at `NAME` or, the N-th time, at `NAME:N`; the empty text disarms. Raises UnknownFailpoint."""
    global _name, _left
    name, _, count = text.partition(":")
    if name and name not in POINTS:
        raise UnknownFailpoint(f"{VARIABLE} is {text!r}; expected one of {', '.join(POINTS)}, or unset it")
    if count and not (count.isdecimal() and int(count) > 0):
        raise UnknownFailpoint(f"{VARIABLE} is {text!r}; expected a count of 1 or more after the colon")
    _name, _left = name, int(count or 1)


def reach(name: str) -> None:
    """The process is at this place; where it was told to die here, nothing after this line happens."""
    global _left
    if name != _name:
        return
    with _lock:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get(VARIABLE, ""))
