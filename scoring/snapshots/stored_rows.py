"""Opens the stored files of a snapshot after a check of their SHA-256, so that damaged rows are an error and never a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scoring.models import Snapshot
from scoring.snapshots.pairs import PAIRS_FILE
from scoring.storage.files import ChecksumMismatch, storage

ROWS_FILE = "rows.parquet"


def opened_rows(snapshot: Snapshot, file: str = ROWS_FILE) -> Any:
    """Open the rows, or the pairs, of a snapshot; a context manager. Raises ChecksumMismatch, StoredFileMissing.

    A process reads a file for its checksum once, and again after it was changed.
    """
    path = f"{snapshot.location}/{file}"
    try:
        storage().check(path, _checksum(snapshot, file))
    except ChecksumMismatch as error:
        raise ChecksumMismatch(_damaged(snapshot, file)) from error
    return storage().opened(path)


def download_rows(snapshot: Snapshot, target: Path, file: str = ROWS_FILE) -> None:
    """Copy the rows, or the pairs, of a snapshot to a local file. Raises ChecksumMismatch, StoredFileMissing."""
    try:
        storage().download(f"{snapshot.location}/{file}", target, checksum=_checksum(snapshot, file))
    except ChecksumMismatch as error:
        raise ChecksumMismatch(_damaged(snapshot, file)) from error


def _checksum(snapshot: Snapshot, file: str) -> str:
    return str(snapshot.manifest["pairs"]["checksum"]) if file == PAIRS_FILE else snapshot.checksum


def _damaged(snapshot: Snapshot, file: str) -> str:
    again = "mix its snapshots again" if "mixed_from" in snapshot.manifest else "freeze a new snapshot"
    return (
        f"the file {snapshot.location}/{file} of snapshot {snapshot.name!r} was changed or damaged in the storage; restore it from "
        f"a backup, or {again} and use that one"
    )
