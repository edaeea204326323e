"""Folders of the storage that are being written: where their writer dies, what it left is taken away.

Each has a note on this machine, in `unfinished/` of ZELO_HOME, whose writer holds a lock on it for as long as it lives; a note
that can be locked was left by a dead process. Used by `scoring.snapshots` and `workers.training`; `workers.reconciler`
collects.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from django.conf import settings

from scoring.storage import storage

log = logging.getLogger(__name__)


def notes_folder() -> Path:
    return Path(settings.ZELO_HOME) / "unfinished"


@contextlib.contextmanager
def in_the_making(folder: str) -> Iterator[None]:
    """Write a folder of the storage in this block, and the row that names it last; what fails leaves no folder."""
    notes_folder().mkdir(parents=True, exist_ok=True)
    note = notes_folder() / f"{secrets.token_hex(8)}.json"
    draft = note.with_suffix(".draft")
    with draft.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        json.dump({"storage": storage().url, "folder": folder}, file)
        file.flush()
        os.fsync(file.fileno())
        draft.rename(note)  # locked before anybody can see it
        try:
            yield
        except BaseException:
            try:
                storage().remove(folder)
            except Exception as error:  # whatever a storage raises; the note stays, and with it the task
                log.warning("%s could not be removed yet: %s", folder, error)
            else:
                note.unlink(missing_ok=True)
            raise
        note.unlink(missing_ok=True)


def collect(is_used: Callable[[str], bool]) -> list[str]:
    """Remove what dead writers left, but what `is_used`: a row was made of it just before. Returns the folders."""
    return [folder for note in sorted(notes_folder().glob("*.json")) if (folder := _collected(note, is_used))]


def _collected(note: Path, is_used: Callable[[str], bool]) -> str:
    with contextlib.suppress(FileNotFoundError), note.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ""
        told = json.load(file)
        if told["storage"] != storage().url:  # another installation's, or this one's before it moved
            return ""
        left = "" if is_used(told["folder"]) else str(told["folder"])
        if left:
            storage().remove(left)
            log.warning("%s was left unfinished by a process that died, and is removed", left)
        note.unlink(missing_ok=True)
        return left
    return ""
