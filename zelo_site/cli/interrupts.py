"""Ctrl-C in commands: their exit code, and sections that must not be interrupted."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

# The exit code of a command that Ctrl-C stopped.
INTERRUPTED = 130


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Run the block to its end even if Ctrl-C is pressed; KeyboardInterrupt is raised after it. Main thread only."""
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
