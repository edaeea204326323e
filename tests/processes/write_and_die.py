"""A process that dies while it writes a folder of the storage."""

from __future__ import annotations

import os

from scoring.storage.files import storage
from scoring.storage.write_guards import in_the_making


def write_and_die(folder: str) -> None:
    """A process that is killed in the middle."""
    child = os.fork()
    if child == 0:
        with in_the_making(folder):
            storage().write_bytes(f"{folder}/rows.parquet", b"half")
            os._exit(0)
    os.waitpid(child, 0)
