"""Folders of the storage that are being written: where their writer dies, what it left is taken away.

Each has a note on this machine, in `unfinished/` of ZELO_HOME, whose writer holds a lock on it for as long as it lives; a note
that can be locked was left by a dead process. Used by `scoring.snapshots.freeze` and `workers.jobs.training`; `workers.reconciler`
collects.
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
    """Write a folder of the storage in this block, and the row that names it last; what fails leaves no folder."""
    notes_folder().mkdir(parents=True, exist_ok=True)
    note = notes_folder() / f"{secrets.token_hex(8)}{NOTE}"
    draft = note.with_suffix(DRAFT)
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
    """Remove what dead writers left, but what `is_used`: a row was made of it just before. Returns the folders.

    Each note is dealt with for itself: those that lead nowhere are put aside, and of what cannot be removed now the first
    problem is raised once all others are done.
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
        except Exception as error:  # whatever a storage raises; the note stays, and with it the task
            problems.append(error)
    if problems:
        raise problems[0]
    return removed


def _remove_forgotten(draft: Path) -> None:
    """A note that never got its name: its process died in that moment, and had written nothing that it could tell of."""
    with contextlib.suppress(OSError):
        if time.time() - draft.stat().st_mtime > FORGOTTEN_S:
            draft.unlink()


def _collected(note: Path, is_used: Callable[[str], bool]) -> list[str]:
    """The folder of one note if it was removed; a living writer's note is left alone."""
    with contextlib.suppress(FileNotFoundError), note.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return []
        told = _read(file.read())
        if told is None:
            aside = note.rename(note.with_suffix(UNREADABLE))
            log.warning("%s does not name an unfinished folder; renamed to %s", note, aside.name)
        elif told["storage"] == storage().url:  # otherwise another installation's, or this one's before it moved
            left = [] if is_used(told["folder"]) else [told["folder"]]
            for folder in left:
                storage().remove(folder)
                log.warning("%s was removed because its writer died before it finished", folder)
            note.unlink(missing_ok=True)
            return left
    return []


def _read(text: str) -> dict[str, str] | None:
    """What a note tells; None where a disk lost it, as it may when the machine dies."""
    try:
        told = json.loads(text)
    except ValueError:
        return None
    whole = isinstance(told, dict) and all(isinstance(told.get(key), str) for key in ("storage", "folder"))
    return told if whole else None
