"""Checks a backup by restoring it into a second home, which is deleted afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from zelo_site.operations.backup import BackupFailed
from zelo_site.processes.stack import MANAGE

# The second installation uses its own servers and storage.
_OWN = ("DATABASE_URL", "BROKER_URL", "STORAGE_URL", "ZELO_SECRET_KEY", "ZELO_CACHE")


def check_in_second_home(archive: Path, *, say: Callable[[str], None]) -> None:
    """Restore `archive` into a second home; every table is counted and hashed there. Raises BackupFailed."""
    say("restoring the backup into a second home")
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix="second-home.") as home:
        environ = {name: value for name, value in os.environ.items() if name not in _OWN}
        Path(home).chmod(0o711)  # under root, PostgreSQL runs as another user
        done = subprocess.run(
            [sys.executable, str(MANAGE), "restore", str(archive)],
            env={**environ, "ZELO_HOME": home}, capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise BackupFailed(f"the backup cannot be restored, so it was not kept: {lines[-1]}")
    say("the second home holds every row and every file")
