"""Answers on disk before the database hears of them: one append-only file a process, in ZELO_HOME/spool.

A line is a checksum, a key and a value as JSON. A file is locked while its process lives, so that one that
can be locked was left by a dead process: `workers.judging.recorder.recover` stores what it holds. The file's name is also the
token under which its process leases, which tells whose leases ended with it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import secrets
import threading
import time
import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping
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
    """The folder in which the processes of this host keep their answers."""
    return Path(settings.ZELO_HOME) / "spool"


def encode(value: Any) -> bytes:
    """One line: eight digits of CRC-32, a space, JSON without line breaks."""
    text = _ENCODER.encode(value).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


_ENCODER = json.JSONEncoder(separators=(",", ":"))


def decode(line: bytes) -> Any:
    """The value of a line without its line break. Raises ValueError where it is torn or damaged."""
    digits, _, text = line.partition(b" ")
    if len(digits) != 8 or int(digits, 16) != zlib.crc32(text):
        raise ValueError(f"a line of {len(line)} bytes does not match its checksum")
    return json.loads(text)


class Spool:
    """The file of one living process; may be used from several threads.

    `write` hands a line to the operating system, which survives the death of the process; `sync` waits until the disk
    has it, which survives the death of the host. Answers are written on an event loop, so that nothing waits for the
    disk under the lock that `write` takes. A full or missing disk is warned of and never stops the work.
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
        # Taken before the other one, by the one who waits for the disk: none returns before what it relies on is there.
        self._syncing = threading.Lock()
        self._warned_at = -WARN_EVERY_S
        with self._lock:
            self._open()

    def write(self, key: Hashable, value: Any) -> bool:
        """Keep a value until `drop`; whether it was written. A key that is kept already stays as it is."""
        with self._lock:
            if key in self._kept or not self._open():
                return False
            line = encode(value)
            try:
                self._append(line)
            except OSError as error:
                self._warn(error)
                return False
            self._kept[key] = line
            return True

    def write_all(self, values: Mapping[Hashable, Callable[[], Any]]) -> bool:
        """As `write` for many values, in one go; each is made only if its key is not kept yet. Whether any was written."""
        with self._lock:
            if not self._open():
                return False
            lines = {key: encode(make()) for key, make in values.items() if key not in self._kept}
            if not lines:
                return False
            try:
                self._append(b"".join(lines.values()))
            except OSError as error:
                self._warn(error)
                return False
            self._kept |= lines
            return True

    def sync(self) -> None:
        """Wait until all that was written is on the disk; what is written meanwhile does not wait."""
        with self._syncing:
            with self._lock:
                if self._file is None or not self._unsynced:
                    return
                file, self._unsynced = os.dup(self._file), False
            try:
                os.fsync(file)
            except OSError as error:
                with self._lock:
                    self._unsynced = True
                    self._warn(error)
            finally:
                os.close(file)

    def drop(self, keys: list[Hashable]) -> None:
        """These are stored permanently; once nothing is kept, the file is empty again."""
        with self._lock:
            for key in keys:
                self._kept.pop(key, None)
            try:
                if self._file is not None and not self._kept and self._size:
                    os.ftruncate(self._file, 0)
                    self._size, self._unsynced = 0, False
            except OSError as error:
                self._warn(error)
            is_long = self._size > COMPACT_BYTES and self._size > 2 * sum(map(len, self._kept.values()))
        if is_long:
            self._compact()

    def let_go(self) -> None:
        """Leave what is kept to whoever recovers next, this process included; a later answer begins a new file."""
        with self._syncing, self._lock:
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
        """The number of values in the file that are not stored yet."""
        return len(self._kept)

    def _append(self, line: bytes) -> None:
        assert self._file is not None
        try:
            _write(self._file, line)
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
            file = self._draft(b"")
            self._publish(file)
            self._file = file
            _sync_folder(self._folder)
            return True
        except OSError as error:
            self._warn(error)
            return self._file is not None

    def _compact(self) -> None:
        """Put a file in its place that holds only what is not stored yet. What is written meanwhile is added at the end."""
        with self._syncing:
            with self._lock:
                copied = dict(self._kept)
            try:
                file = self._draft(b"".join(copied.values()))
                with self._lock:
                    self._replace(file, since=copied)
                _sync_folder(self._folder)
            except OSError as error:
                with self._lock:
                    self._warn(error)

    def _replace(self, file: int, *, since: Mapping[Hashable, bytes]) -> None:
        """Go on in this draft, which holds `since`; what was kept after that joins it."""
        added = b"".join(line for key, line in self._kept.items() if key not in since)
        try:
            _write(file, added)
        except OSError:
            self._discard(file)
            raise
        self._publish(file)
        older, self._file = self._file, file
        if older is not None:
            os.close(older)
        self._size, self._unsynced = os.fstat(file).st_size, bool(added)

    def _draft(self, content: bytes) -> int:
        """A locked file with this content, on the disk, that does not have its name yet."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self._path.with_suffix(DRAFT)
        file = os.open(draft, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(file, content)
            os.fsync(file)
        except OSError:
            self._discard(file)
            raise
        return file

    def _publish(self, file: int) -> None:
        try:
            self._path.with_suffix(DRAFT).rename(self._path)
        except OSError:
            self._discard(file)
            raise

    def _discard(self, file: int) -> None:
        os.close(file)
        self._path.with_suffix(DRAFT).unlink(missing_ok=True)

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
    # Answers of another database, and lines that could not be put aside: for either the file has to stay.
    foreign: int = 0
    stuck: int = 0

    @property
    def token(self) -> str:
        """The token under which the crashed process leased; empty where a living process released the file."""
        return "" if "." in self.path.stem else self.path.stem

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self.file).st_size

    def read(self) -> None:
        """Read all values. The last line may be torn: its answer was about to be kept, and counts as in flight."""
        *whole, torn = _content(self.file).split(b"\n")
        for line in whole:
            try:
                self.values.append(decode(line))
            except ValueError as error:
                self.damaged += 1
                log.error("%s: %s; it goes to %s", self.path, error, REJECTED)
                self.reject(line)
        if torn:
            log.warning("%s ends in %d bytes of an unfinished line, left out", self.path, len(torn))

    def reject(self, line: bytes) -> None:
        """Put a line aside; where that fails the file stays, and costs no other line."""
        self.stuck += not reject(self.path.parent, line)

    @property
    def is_needed(self) -> bool:
        return bool(self.foreign or self.stuck)

    def remove(self) -> None:
        """Remove the file, unless it is still needed."""
        if not self.is_needed:
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


def reject(folder: Path, line: bytes) -> bool:
    """Put aside what nobody can store, for a person to look at. False where the disk does not take it."""
    try:
        file = os.open(folder / REJECTED, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(file).st_size
            try:
                _write(file, line.rstrip(b"\n") + b"\n")
            except OSError:
                os.ftruncate(file, size)
                raise
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        log.error("%s cannot be written (%s); the answer stays in its file", folder / REJECTED, error.strerror)
        return False
    return True


def _write(file: int, content: bytes) -> None:
    if os.write(file, content) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a part fitted


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
    """The contents of this host's spool: `files`, `bytes`, and bytes put aside as `rejected`."""
    sizes = {path.name: path.stat().st_size for path in spool_folder().glob("*") if path.is_file()}
    files = {name: size for name, size in sizes.items() if name.endswith(SUFFIX)}
    return {"files": len(files), "bytes": sum(files.values()), "rejected": sizes.get(REJECTED, 0)}
