"""Waits for a model server that a test has started in a process of its own."""

from __future__ import annotations

import contextlib
import subprocess
import time
import urllib.request
from pathlib import Path


def wait_until_healthy(address: str, process: subprocess.Popen[bytes], log: Path, *, timeout_s: float) -> None:
    """Return when `address` answers; raises AssertionError with the end of the log if the process ends or time runs out."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.5)
    raise AssertionError(log.read_text(errors="replace")[-2000:])
