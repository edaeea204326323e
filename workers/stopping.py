"""Whether this worker was told to stop: whoever works through a list asks between its entries.

The flag is one byte of memory that a worker shares with the processes of its pool, since only the first of them
hears of the signal.
"""

from __future__ import annotations

import mmap
from typing import Any

from celery.signals import worker_init, worker_shutting_down

_flag = mmap.mmap(-1, 1)


def is_stopping() -> bool:
    """True from the first SIGTERM on: what has not been begun is handed back, what has been is brought to its end."""
    return _flag[0] != 0


def note_stopping(stopping: bool = True) -> None:
    """Set the flag, for this process and those that it forked."""
    _flag[0] = int(stopping)


@worker_init.connect
def _begin(**kwargs: Any) -> None:
    note_stopping(False)


@worker_shutting_down.connect
def _end(**kwargs: Any) -> None:
    note_stopping()
