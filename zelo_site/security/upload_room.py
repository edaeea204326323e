"""Room for uploads: each one reserves its announced length before it is read, so that all together stay within their limit.

A reservation is an empty file of that length, which takes no space. The process that reads the upload holds its lock, and the
kernel releases the lock of a process that was killed, so its reservation counts no more. No Django.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SUFFIX = ".reserved"


class RoomTaken(RuntimeError):
    """Uploads in progress need the room."""


class DiskTooFull(RuntimeError):
    """The disk has no room for the upload."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Room for one upload, until `release`."""

    path: Path
    descriptor: int

    def release(self) -> None:
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


def reserve(folder: Path, length: int, *, most: int, free: int) -> Reservation:
    """Reserve `length` bytes of the `most` that all uploads in `folder` may need; `free` bytes of the disk stay unused.

    Raises RoomTaken, DiskTooFull.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(folder):
        reserved, written = _reserved(folder), _written(folder)
        coming = max(0, reserved - written)
        if shutil.disk_usage(folder).free < length + coming + free:
            raise DiskTooFull(f"less than {length + coming + free:,} bytes are free")
        if max(reserved, written) + length > most:
            raise RoomTaken(f"{max(reserved, written):,} of {most:,} bytes are taken")
        descriptor, name = tempfile.mkstemp(suffix=SUFFIX, dir=folder)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.ftruncate(descriptor, length)
        return Reservation(Path(name), descriptor)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, so that two uploads do not take the same room."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _reserved(folder: Path) -> int:
    """The sum of the reservations; those that nobody holds any more are removed."""
    total = 0
    for path in folder.glob(f"*{SUFFIX}"):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            except BlockingIOError:
                total += os.fstat(stream.fileno()).st_size
    return total


def _written(folder: Path) -> int:
    """The size of the uploads' files, those that a killed process left included."""
    total = 0
    for path in folder.iterdir():
        if path.suffix != SUFFIX:
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
    return total
