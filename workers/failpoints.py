"""Named places at which a process kills itself, for tests of what a crash there costs.

`ZELO_FAILPOINT=NAME` or `NAME:N` kills the process with SIGKILL when it reaches that place (for the N-th time).
Without the variable a failpoint costs one comparison. Imports no Django.
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
    "plan.after_commit": "some queries' questions are committed, the round continues",
    "plan.before_end": "all questions of the round are committed, the round is not ended",
    "claim.before_commit": "leases and attempts are written, not committed",
    "claim.after_commit": "leases are committed, nothing is asked yet",
    "call.before": "texts are read, the first call is about to go out",
    "call.answered": "an answer has arrived, it is in memory only",
    "spool.written": "an answer is written to the file, others are in flight",
    "spool.synced": "all answers of a batch are on disk, the database has none",
    "finish.before_commit": "judgments are written, not committed",
    "finish.after_commit": "judgments are committed, the spool still holds them",
    "fail.before_commit": "failures are written, not committed",
    "fail.after_commit": "failures are committed, the spool still holds them",
    "release.before_commit": "leases are released, not committed",
    "release.after_commit": "leases are released",
    "reap.before_commit": "expired leases are taken back, not committed",
    "reap.after_commit": "expired leases are taken back",
    "cancel.before_commit": "a run is cancelled and its questions dropped, not committed",
    "cancel.after_commit": "a run is cancelled",
    "recover.read": "the file of a crashed process is read, nothing of it is stored",
    "recover.stored": "the answers of a crashed process are stored, its leases are not ended",
    "recover.before_removal": "its leases are ended, its file still exists",
}

# The same for questions that go out in batches.
BATCH_POINTS: Mapping[str, str] = {
    "batch.before_formed": "a batch, its leases and its reservations are written, not committed",
    "batch.formed": "a batch is committed, nothing of it is at the provider",
    "batch.before_upload": "the upload is intended, not made",
    "batch.uploaded": "the file is at the provider, its id in memory only",
    "batch.upload_noted": "the id of the file is committed",
    "batch.before_create": "the creation is intended, not made",
    "batch.created": "the batch is at the provider, its id in memory only",
    "batch.create_noted": "the id of the batch is committed",
    "batch.cancel_sent": "the provider was asked to cancel, that is in memory only",
    "batch.end_noted": "the provider's end of the batch is committed, no answer is stored",
    "batch.before_stored": "some answers are written, not committed",
    "batch.stored": "some answers are committed, others are not stored yet",
    "batch.before_ended": "all answers are stored; the end of the batch is written, not committed",
    "batch.ended": "the end of the batch is committed",
}


class UnknownFailpoint(ValueError):
    """ZELO_FAILPOINT names no such place, or counts below 1."""


_lock = threading.Lock()
_name = ""
_left = 0


def arm(text: str) -> None:
    """Set the failpoint: `NAME`, or `NAME:N` for its N-th time; the empty text clears it. Raises UnknownFailpoint."""
    global _name, _left
    name, _, count = text.partition(":")
    if name and name not in POINTS and name not in BATCH_POINTS:
        known = ", ".join([*POINTS, *BATCH_POINTS])
        raise UnknownFailpoint(f"{VARIABLE} is {text!r}; expected one of {known}, or unset it")
    if count and not (count.isdecimal() and int(count) > 0):
        raise UnknownFailpoint(f"{VARIABLE} is {text!r}; expected a count of 1 or more after the colon")
    _name, _left = name, int(count or 1)


def reach(name: str) -> None:
    """Kill this process if `name` is the failpoint that was set; otherwise do nothing."""
    global _left
    if name != _name:
        return
    with _lock:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get(VARIABLE, ""))
