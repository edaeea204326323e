"""Whether this worker was told to stop, and how a process ends: whoever works through a list asks between its entries.

The flag is one byte of memory that a worker shares with the processes of its pool, since only the first of them
hears of the signal.
"""

from __future__ import annotations

import logging
import mmap
import os
import signal
import socket
import sys
from typing import Any, NoReturn

from celery.signals import worker_init, worker_ready, worker_shutting_down

_flag = mmap.mmap(-1, 1)


def is_stopping() -> bool:
    """True from the first SIGTERM on: what has not been begun is handed back, what has been is brought to its end."""
    return _flag[0] != 0


def note_stopping(stopping: bool = True) -> None:
    """Set the flag, for this process and those that it forked."""
    _flag[0] = int(stopping)


def leave(code: int) -> NoReturn:
    """End this process, everything being done. Python's own teardown takes most of a second of a core, in each of a
    dozen processes that stop together, while somebody waits; the system takes back all the same.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@worker_init.connect
def _begin(**kwargs: Any) -> None:
    note_stopping(False)


@worker_shutting_down.connect
def _end(**kwargs: Any) -> None:
    note_stopping()


@worker_ready.connect
def _wake_on_signals(sender: Any, **kwargs: Any) -> None:
    """Let a signal end the worker's wait for hints, which lasts up to a second."""
    if sender.hub is None:
        return
    reading, writing = socket.socketpair()
    for end in (reading, writing):
        end.setblocking(False)
    signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
    sender.hub.add_reader(reading, lambda: reading.recv(4096))
