"""Guards storage folders during writing, so that the folder of a crashed writer is deleted.

Each folder has a marker file in `unfinished/` of ZELO_HOME, which its writer locks as long as it runs. A marker that
can be locked belongs to a dead process. `scoring.snapshots.freeze` and `workers.jobs.training` use the guards;
`workers.reconciler` cleans up.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from django.conf import settings

from scoring.storage.files import storage

log = logging.getLogger(__name__)

NOTE, DRAFT, UNREADABLE = ".json", ".draft", ".unreadable"
FORGOTTEN_S = 3600.0


def notes_folder() -> Path:
    return Path(settings.ZELO_HOME) / "unfinished"


@contextlib.contextmanager
def in_the_making(folder: str) -> Iterator[None]:
    """Guard writing a folder in this block; create its row last. A failure deletes the folder."""
    notes_folder().mkdir(parents=True, exist_ok=True)
    note = notes_folder() / f"{secrets.token_hex(8)}{NOTE}"
    draft = note.with_suffix(DRAFT)
    with draft.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        json.dump({"storage": storage().url, "folder": folder}, file)
        file.flush()
        os.fsync(file.fileno())
        draft.rename(note)  # locked before other processes can see it
        try:
            yield
        except BaseException:
            try:
                storage().remove(folder)
            except Exception as error:  # any exception of a storage; the marker stays for a retry
                log.warning("%s could not be removed yet: %s", folder, error)
            else:
                note.unlink(missing_ok=True)
            raise
        note.unlink(missing_ok=True)


def collect(is_used: Callable[[str], bool]) -> list[str]:
    """Delete the folders of dead writers unless `is_used`, which means that a row exists; return the folders.

    Handles each marker separately: invalid markers are renamed. If folders cannot be deleted, raises the first
    problem after handling all others.
    """
    removed: list[str] = []
    problems: list[Exception] = []
    for path in sorted(notes_folder().glob("*")):
        if path.suffix == DRAFT:
            _remove_forgotten(path)
        if path.suffix != NOTE:
            continue
        try:
            removed += _collected(path, is_used)
        except Exception as error:  # any exception of a storage; the marker stays for a retry
            problems.append(error)
    if problems:
        raise problems[0]
    return removed


def _remove_forgotten(draft: Path) -> None:
    """Delete markers without a final name; their process died before it wrote anything else."""
    with contextlib.suppress(OSError):
        if time.time() - draft.stat().st_mtime > FORGOTTEN_S:
            draft.unlink()


def _collected(note: Path, is_used: Callable[[str], bool]) -> list[str]:
    """Delete the folder of one marker and return it; ignore markers of running writers."""
    with contextlib.suppress(FileNotFoundError), note.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return []
        marker = _read(file.read())
        if marker is None:
            aside = note.rename(note.with_suffix(UNREADABLE))
            log.warning("%s does not name an unfinished folder; renamed to %s", note, aside.name)
        elif marker["storage"] == storage().url:  # otherwise of another installation, or of this one before it moved
            left = [] if is_used(marker["folder"]) else [marker["folder"]]
            for folder in left:
                storage().remove(folder)
                log.warning("%s was removed because its writer died before it finished", folder)
            note.unlink(missing_ok=True)
            return left
    return []


def _read(text: str) -> dict[str, str] | None:
    """Return the contents of a marker; None if a crash of the machine lost them."""
    try:
        marker = json.loads(text)
    except ValueError:
        return None
    whole = isinstance(marker, dict) and all(isinstance(marker.get(key), str) for key in ("storage", "folder"))
    return marker if whole else None
