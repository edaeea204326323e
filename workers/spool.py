"""Answers on disk before the database hears of them: one append-only file a process, in ZELO_HOME/spool.

A line is a checksum, a key and a value as JSON. A file is locked while its process lives, so that one that
can be locked was left by a dead process: `workers.answers.recover` stores what it holds. The file's name is also the
token under which its process leases, which tells whose leases ended with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import threading
import time
import zlib
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings

log = logging.getLogger(__name__)

SUFFIX, DRAFT = ".jsonl", ".new"
REJECTED = "rejected.log"
# A file that never runs empty is rewritten when it has grown so large.
COMPACT_BYTES = 8 * 1024 * 1024
WARN_EVERY_S = 60.0
FORGOTTEN_S = 60.0


def spool_folder() -> Path:
    """Where the processes of this host keep their answers."""
    return Path(settings.ZELO_HOME) / "spool"


def encode(value: Any) -> bytes:
    """One line: eight digits of CRC-32, a space, JSON without line breaks."""
    text = json.dumps(value, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def decode(line: bytes) -> Any:
    """The value of a line without its line break. Raises ValueError where it is torn or damaged."""
    digits, _, text = line.partition(b" ")
    if len(digits) != 8 or int(digits, 16) != zlib.crc32(text):
        raise ValueError(f"a line of {len(line)} bytes does not match its checksum")
    return json.loads(text)


class Spool:
    """The file of one living process; may be used from several threads.

    `write` hands a line to the operating system, which survives the death of the process; `sync` waits until the disk
    has it, which survives the death of the host. A disk that is full or gone is warned of and never stops the work.
    """

    def __init__(self, folder: Path) -> None:
        self.token = secrets.token_hex(8)
        self._folder = folder
        self._path = folder / (self.token + SUFFIX)
        self._file: int | None = None
        self._size = 0
        self._unsynced = False
        self._kept: dict[Hashable, bytes] = {}
        self._lock = threading.Lock()
        self._warned_at = -WARN_EVERY_S
        with self._lock:
            self._open()

    def write(self, key: Hashable, value: Any) -> None:
        """Keep a value until `drop`; a key that is kept already stays as it is."""
        with self._lock:
            if key in self._kept or not self._open():
                return
            line = encode(value)
            try:
                self._append(line)
            except OSError as error:
                self._warn(error)
            else:
                self._kept[key] = line

    def sync(self) -> None:
        """Wait until all that was written is on the disk."""
        with self._lock:
            if self._file is None or not self._unsynced:
                return
            try:
                os.fsync(self._file)
                self._unsynced = False
            except OSError as error:
                self._warn(error)

    def drop(self, keys: list[Hashable]) -> None:
        """These are stored for good; once nothing is kept, the file is empty again."""
        with self._lock:
            for key in keys:
                self._kept.pop(key, None)
            try:
                if self._file is not None and not self._kept and self._size:
                    os.ftruncate(self._file, 0)
                    self._size, self._unsynced = 0, False
                elif self._size > COMPACT_BYTES and self._size > 2 * sum(map(len, self._kept.values())):
                    self._rewrite()
            except OSError as error:
                self._warn(error)

    def let_go(self) -> None:
        """Leave what is kept to whoever recovers next, this process included; a later answer begins a new file."""
        with self._lock:
            if self._file is None:
                return
            with contextlib.suppress(OSError):
                self._path.rename(self._path.with_name(f"{self.token}.{secrets.token_hex(4)}{SUFFIX}"))
            self.close()
            self._kept = {}
            self._open()

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file, self._size, self._unsynced = None, 0, False

    @property
    def kept(self) -> int:
        """How many values stand in the file that are not stored yet."""
        return len(self._kept)

    def _append(self, line: bytes) -> None:
        assert self._file is not None
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(28, os.strerror(28))  # ENOSPC: a part fitted
        except OSError:
            os.ftruncate(self._file, self._size)  # half a line would spoil the next one
            raise
        self._size += len(line)
        self._unsynced = True

    def _open(self) -> bool:
        """Make the file if there is none. It gets its name once it is locked: no other process sees it unlocked."""
        if self._file is not None:
            return True
        try:
            self._file = self._new_file(b"")
            return True
        except OSError as error:
            self._warn(error)
            return False

    def _rewrite(self) -> None:
        """Put a file in its place that holds only what is not stored yet."""
        content = b"".join(self._kept.values())
        older, self._file = self._file, self._new_file(content)
        if older is not None:
            os.close(older)
        self._size = len(content)

    def _new_file(self, content: bytes) -> int:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self._path.with_suffix(DRAFT)
        file = os.open(draft, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.write(file, content) != len(content):
                raise OSError(28, os.strerror(28))
            os.fsync(file)
            draft.rename(self._path)
            _sync_folder(self._folder)
        except OSError:
            os.close(file)
            draft.unlink(missing_ok=True)
            raise
        return file

    def _warn(self, error: OSError) -> None:
        now = time.monotonic()
        if now - self._warned_at >= WARN_EVERY_S:
            self._warned_at = now
            log.error(
                "answers cannot be kept on disk in %s (%s): they go to the database alone, and are paid again should "
                "this process die before; make room there, or let ZELO_HOME name another disk",
                self._folder,
                error.strerror,
            )


@dataclass
class Leftover:
    """The file of a dead process, locked by us: what it holds, and how many lines of it are unreadable."""

    path: Path
    file: int
    values: list[Any] = field(default_factory=list)
    damaged: int = 0

    @property
    def token(self) -> str:
        """Under which the dead process leased; empty where the process lives and only let go of the file."""
        return "" if "." in self.path.stem else self.path.stem

    def read(self) -> None:
        """Read all values. The last line may be torn: its answer was about to be kept, and counts as in flight."""
        *whole, torn = _content(self.file).split(b"\n")
        for line in whole:
            try:
                self.values.append(decode(line))
            except ValueError as error:
                self.damaged += 1
                log.error("%s: %s; kept in %s", self.path, error, REJECTED)
                reject(self.path.parent, line)
        if torn:
            log.warning("%s ends in %d bytes of an unfinished line, left out", self.path, len(torn))

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def _content(file: int) -> bytes:
    parts = []
    os.lseek(file, 0, os.SEEK_SET)
    while part := os.read(file, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def leftovers(folder: Path) -> Iterator[Leftover]:
    """The files of dead processes, one after the other, each locked while it is looked at."""
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return
    for path in paths:
        if path.suffix == DRAFT:
            _remove_forgotten(path)
        if path.suffix != SUFFIX:
            continue
        with contextlib.ExitStack() as stack:
            try:
                file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                stack.callback(os.close, file)
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(file).st_ino != path.stat().st_ino:
                    continue  # its owner has put another in its place
            except OSError:
                continue  # its process lives, somebody else has dealt with it, or it is another user's
            yield Leftover(path, file)


def _remove_forgotten(draft: Path) -> None:
    """A file that never got its name, because its process died in that moment, holds nothing that others do not."""
    with contextlib.suppress(OSError):
        if time.time() - draft.stat().st_mtime > FORGOTTEN_S:
            draft.unlink()


def reject(folder: Path, line: bytes) -> None:
    """Put aside what nobody can store, for a person to look at."""
    file = os.open(folder / REJECTED, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, line.rstrip(b"\n") + b"\n")
        os.fsync(file)
    finally:
        os.close(file)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- the file of this process ------------------------------------------------------------

_own: Spool | None = None
_starting = threading.Lock()


def own_spool() -> Spool:
    """The file of this process, made when it is first asked for."""
    global _own
    with _starting:
        if _own is None:
            _own = Spool(spool_folder())
        return _own


def forget_own() -> None:
    """Close the file without a word: in a child of a fork it is the parent's, whose lock the child must not hold."""
    global _own, _starting
    if _own is not None:
        _own.close()
    _own, _starting = None, threading.Lock()


os.register_at_fork(after_in_child=forget_own)


def status() -> Mapping[str, int]:
    """What lies in the spool of this host: `files`, `bytes`, and bytes put aside as `rejected`."""
    sizes = {path.name: path.stat().st_size for path in spool_folder().glob("*") if path.is_file()}
    files = {name: size for name, size in sizes.items() if name.endswith(SUFFIX)}
    return {"files": len(files), "bytes": sum(files.values()), "rejected": sizes.get(REJECTED, 0)}
