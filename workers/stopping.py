"""The flag that a worker is stopping, and the end of a process. Loops over many items check the flag between items.

The flag is one byte of memory that a worker shares with the processes of its pool, since only its main process gets the
signal.
"""

from __future__ import annotations

import logging
import mmap
import os
import shutil
import signal
import socket
import sys
from multiprocessing import process
from typing import Any, NoReturn

from celery.signals import worker_init, worker_ready, worker_shutting_down

_flag = mmap.mmap(-1, 1)


def is_stopping() -> bool:
    """Whether the worker got a SIGTERM: it releases tasks that it has not begun, and finishes the others."""
    return _flag[0] != 0


def note_stopping(stopping: bool = True) -> None:
    """Set the flag for this process and its children."""
    _flag[0] = int(stopping)


def leave(code: int) -> NoReturn:
    """End this process at once, after its work is done. Python's own teardown takes most of a second of a core in each of
    a dozen processes that stop together; the operating system frees their memory anyway.
    """
    _remove_temporary_folder()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _remove_temporary_folder() -> None:
    """Remove the folder that a pool's shared memory was made in; multiprocessing would remove it at exit."""
    folder = process.current_process()._config.get("tempdir")  # type: ignore[attr-defined]
    if folder and process.parent_process() is None:  # a child has its parent's folder
        shutil.rmtree(folder, ignore_errors=True)


@worker_init.connect
def _begin(**kwargs: Any) -> None:
    note_stopping(False)


@worker_shutting_down.connect
def _end(**kwargs: Any) -> None:
    note_stopping()


@worker_ready.connect
def _wake_on_signals(sender: Any, **kwargs: Any) -> None:
    """Let a signal interrupt the worker's wait for hints, which lasts up to a second."""
    if sender.hub is None:
        return
    reading, writing = socket.socketpair()
    for end in (reading, writing):
        end.setblocking(False)
    signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
    sender.hub.add_reader(reading, lambda: reading.recv(4096))
