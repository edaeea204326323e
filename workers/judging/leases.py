"""Extends the leases of the tasks that this process works on, however long a judge takes.

A batch may last longer than a lease: a model on a CPU, an endpoint that takes minutes. Longer leases would hold back the
tasks of a crashed worker just as long. So leases are short, and one thread in each process extends them. They end with the
process, or when the database is unreachable for the length of a lease.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence

from django.db import Error, connection

from workers.judging import queue
from workers.judging.queue import ClaimedTask

log = logging.getLogger(__name__)

EXTEND_EVERY_S = queue.LEASE_S / 3
# The leases of a judge that hangs are extended no longer than this. It is above any time limit of a batch of calls.
LONGEST_HOLD_S = 2 * 3600.0

_lock = threading.Lock()
_held: dict[int, tuple[float, Sequence[ClaimedTask]]] = {}
_numbers = iter(range(2**63))
_thread: threading.Thread | None = None


@contextlib.contextmanager
def held(tasks: Sequence[ClaimedTask]) -> Iterator[None]:
    """Extend the leases of these tasks while the block runs."""
    with _lock:
        _start()
        number = next(_numbers)
        _held[number] = (time.monotonic(), tasks)
    try:
        yield
    finally:
        with _lock:
            _held.pop(number, None)


def extend_held() -> int:
    """Extend the leases that are held now; returns how many there were."""
    oldest = time.monotonic() - LONGEST_HOLD_S
    with _lock:
        tasks = [task for since, batch in _held.values() if since > oldest for task in batch]
    return queue.extend(tasks) if tasks else 0


def _start() -> None:
    global _thread
    if _thread is None or not _thread.is_alive():
        _thread = threading.Thread(target=_extend_for_ever, name="leases", daemon=True)
        _thread.start()


def _extend_for_ever() -> None:
    while True:
        time.sleep(EXTEND_EVERY_S)
        try:
            extend_held()
        except Error as error:  # another worker may then ask the same question; our late answer still counts
            log.warning("leases not extended: %s", error)
        finally:
            connection.close()


def _forget() -> None:
    """Reset the state in a child of a fork: it has no thread and no lease of its parent."""
    global _lock, _thread
    _lock, _thread = threading.Lock(), None
    _held.clear()


os.register_at_fork(after_in_child=_forget)
