"""Access to all stored files: snapshots, artefacts and uploads at `STORAGE_URL` (fsspec).

Writes use a temporary name and rename the complete file, so that an existing name is complete; failed writes are
deleted. Paths are relative, use slashes and never leave the storage.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import fsspec
import fsspec.implementations.local
from django.conf import settings

BLOCK = 1 << 20
UNFINISHED = ".unfinished"


class StorageUnusable(RuntimeError):
    """The place in `STORAGE_URL` cannot be used."""


class StorageFull(OSError):
    """There was no space for a file; nothing was stored."""


class BadPath(ValueError):
    """The path is invalid or leaves the storage."""


class StoredFileUnusable(Exception):
    """A file that the database names cannot be used; the message names it and the remedies."""


class StoredFileMissing(StoredFileUnusable, FileNotFoundError):
    """A file that the database names is not in the storage."""


class ChecksumMismatch(StoredFileUnusable, ValueError):
    """A stored file does not match its checksum."""


@dataclass(slots=True)
class HashedFile(io.RawIOBase):
    """A writable stream that counts and hashes its data."""

    stream: IO[bytes]
    bytes_written: int = 0

    def __post_init__(self) -> None:
        self._digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.stream.write(view)
        self._digest.update(view)
        self.bytes_written += len(view)
        return len(view)

    def tell(self) -> int:
        return self.bytes_written

    def flush(self) -> None:
        if not self.stream.closed:
            self.stream.flush()

    @property
    def checksum(self) -> str:
        """The SHA-256 of the written data, in hex."""
        return self._digest.hexdigest()


class Storage:
    """Files under one root. `full` is the remedy for a full storage."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._checked: dict[str, str] = {}
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise StorageUnusable(
                f"STORAGE_URL is {url!r}, which cannot be opened ({error}); expected file:///folder, s3://bucket/folder "
                "or another address of fsspec; install the package that it names"
            ) from error

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[HashedFile]:
        """Yield a stream to `path`, which exists after the block succeeded. Raises StorageFull."""
        target = self._absolute(path)
        unfinished = f"{target}.{secrets.token_hex(6)}{UNFINISHED}"
        try:
            with _room_is_needed(self.url):
                self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
                with self._files.open(unfinished, "wb") as stream:
                    hashed = HashedFile(stream)
                    yield hashed
                self._files.mv(unfinished, target)
        except BaseException:
            with contextlib.suppress(Exception):
                self._files.rm(unfinished)
            raise

    def write_bytes(self, path: str, data: bytes) -> str:
        """Store `data` under `path`; return its SHA-256."""
        with self.writing(path) as stream:
            stream.write(data)
        return stream.checksum

    def read_bytes(self, path: str) -> bytes:
        """Return a stored file. Raises StoredFileMissing."""
        with _naming(path):
            return bytes(self._files.cat_file(self._absolute(path)))

    def opened(self, path: str) -> Any:
        """Open a stored file for reading; a context manager. Raises StoredFileMissing."""
        with _naming(path):
            return self._files.open(self._absolute(path), "rb")

    def check(self, path: str, checksum: str) -> None:
        """Raise ChecksumMismatch unless a stored file has this SHA-256, StoredFileMissing where there is none.

        A file that has been found to have it is read again only after its size, time or tag in the storage has changed.
        """
        with _naming(path):
            seen = f"{checksum} {self._files.ukey(self._absolute(path))}"
        if self._checked.get(path) == seen:
            return
        digest = hashlib.sha256()
        with self.opened(path) as source:
            while block := source.read(BLOCK):
                digest.update(block)
        _compare(path, digest.hexdigest(), checksum)
        self._checked[path] = seen

    def exists(self, path: str) -> bool:
        return bool(self._files.exists(self._absolute(path)))

    def names(self, folder: str = "") -> list[str]:
        """Return the paths of all files below a folder (default: the root), relative to it, in name order."""
        root = self._absolute(folder) if folder else self._root.rstrip("/")
        found = self._files.find(root) if self._files.exists(root) else []
        return sorted(self._relative(each, root) for each in found if not each.endswith(UNFINISHED))

    def sizes(self) -> dict[str, int]:
        """Return the bytes of all files by their paths, unfinished ones included."""
        root = self._root.rstrip("/")
        found = self._files.find(root, detail=True) if self._files.exists(root) else {}
        return {self._relative(path, root): int(each.get("size") or 0) for path, each in found.items()}

    def remove(self, path: str) -> None:
        """Delete a file or a folder with its contents; do nothing if it does not exist."""
        target = self._absolute(path)
        if self._files.exists(target):
            self._files.rm(target, recursive=True)

    def remove_unfinished(self, path: str) -> None:
        """Delete temporary files of killed writers of `path`; a running writer fails and leaves nothing."""
        folder, _, name = self._absolute(path).rpartition("/")
        beside = self._files.find(folder, maxdepth=1) if self._files.exists(folder) else []
        for each in beside:
            if each.rpartition("/")[2].startswith(f"{name}.") and each.endswith(UNFINISHED):
                with contextlib.suppress(FileNotFoundError):
                    self._files.rm(each)

    def download(self, path: str, target: Path, *, checksum: str = "") -> None:
        """Copy a stored file to a local one. Raises ChecksumMismatch, StoredFileMissing."""
        digest = hashlib.sha256()
        target.parent.mkdir(parents=True, exist_ok=True)
        with _room_is_needed(str(target.parent)), self.opened(path) as source, target.open("wb") as local:
            while block := source.read(BLOCK):
                digest.update(block)
                local.write(block)
        if checksum:
            try:
                _compare(path, digest.hexdigest(), checksum)
            except ChecksumMismatch:
                target.unlink()
                raise

    def upload_folder(self, source: Path, path: str, *, last: str = "manifest.json") -> None:
        """Copy a local folder; its file `last` comes last, so that its presence means completeness."""
        files = [each for each in sorted(source.rglob("*")) if each.is_file()]
        for each in sorted(files, key=lambda file: file == source / last):
            with each.open("rb") as local, self.writing(f"{path}/{each.relative_to(source).as_posix()}") as stream:
                shutil.copyfileobj(local, stream, BLOCK)

    def download_folder(self, path: str, target: Path) -> None:
        """Copy a stored folder to a local one."""
        for name in self.names(path):
            self.download(f"{path}/{name}", target / name)

    def local_folder(self, path: str) -> Path | None:
        """Return the stored folder if the storage is a local disk, None if it must be downloaded."""
        on_disk = isinstance(self._files, fsspec.implementations.local.LocalFileSystem)
        return Path(self._absolute(path)) if on_disk else None

    def _absolute(self, path: str) -> str:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\x00" in path or "\\" in path:
            raise BadPath(f"{path!r} is not a valid path in the storage; expected names joined by slashes, without ..")
        return "/".join([self._root.rstrip("/"), *parts])

    def _relative(self, path: str, root: str) -> str:
        return path[path.index(root.lstrip("/")) + len(root.lstrip("/")) :].lstrip("/")


def _compare(path: str, found: str, checksum: str) -> None:
    if found != checksum:
        raise ChecksumMismatch(
            f"{path!r} in the storage has the checksum {found[:12]}..., expected {checksum[:12]}...: the file was changed or "
            "damaged; create it again"
        )


@functools.cache
def _opened(url: str) -> Storage:
    return Storage(url)


def storage() -> Storage:
    """Return the installation's storage."""
    return _opened(settings.STORAGE_URL)


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise StoredFileMissing(
            f"{path!r} is missing from the storage; restore it from a backup, or make it again: freeze a new snapshot, train or "
            "evaluate once more"
        ) from error


@contextlib.contextmanager
def _room_is_needed(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or isinstance(error, StorageFull):
            raise
        raise StorageFull(
            error.errno,
            f"no space left in {where}; nothing was stored. Free some space, or set STORAGE_URL to a larger place",
        ) from error
