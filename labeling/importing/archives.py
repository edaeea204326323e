"""Files of a data set in a folder or a zip archive, read without unpacking them to disk. Imports no Django.

`open_files` gives importers the names and streams; unsafe names, damaged archives and zip bombs are RowErrors.
"""

from __future__ import annotations

import io
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from labeling.importing.lines import Bounded, RowError, TooMuch

ZIP_MAGIC = b"PK\x03\x04"
MOST_FILES = 10_000
_CONTROL = re.compile("[\x01-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")  # also those that turn the direction of a line


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of a folder or archive; `name` is its path in it, with slashes."""

    name: str
    open: Callable[[], IO[bytes]]


class _Left:
    """The bytes that all files of a set together may still hold."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = [limit]


def refused(problem: str, *, expectation: str, remedy: str, file: str = "") -> RowError:
    """The error of a whole archive, or of one `file` in it."""
    return RowError(problem, line=0, field=file, expectation=expectation, remedy=remedy, ends_file=True)


# The errors of the standard library on damaged archives. Opening one raises OSError as well; while reading, that is the disk's.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


@contextmanager
def open_files(source: IO[bytes] | Path, max_total_bytes: int) -> Iterator[list[DataFile]]:
    """The files of a folder or zip archive, in name order; all of them together have at most `max_total_bytes` bytes.

    Raises RowError for anything that is not a sound archive. Reading beyond the limit raises `lines.TooMuch`.
    """
    left = _Left(max_total_bytes)
    if isinstance(source, Path):
        yield _of_folder(source, left)
        return
    try:
        archive = zipfile.ZipFile(cast(Any, io.BufferedReader(Unclosed(source))))
    except (*_DAMAGE, OSError) as error:
        raise refused(
            f"not a readable zip archive ({error})",
            expectation="a zip archive or a folder",
            remedy="copy or compress the files again; a single file of the set has a format of its own",
        ) from None
    with archive:
        yield _of_archive(archive, left)


def _of_folder(folder: Path, left: _Left) -> list[DataFile]:
    found = sorted(each for each in folder.rglob("*") if each.is_file() and not each.is_symlink())
    if len(found) > MOST_FILES:
        raise _too_many(len(found))
    return [
        DataFile(each.relative_to(folder).as_posix(), lambda each=each: _bounded(each.open("rb"), left))  # type: ignore[misc]
        for each in found
    ]


def _of_archive(archive: zipfile.ZipFile, left: _Left) -> list[DataFile]:
    entries = [each for each in archive.infolist() if not each.filename.endswith("/")]
    if len(entries) > MOST_FILES:
        raise _too_many(len(entries))
    names: set[str] = set()
    for entry in entries:
        _check_entry(entry)
        if entry.filename in names:
            raise refused(
                "appears twice in the archive",
                expectation="each file once",
                remedy="compress the folder again",
                file=entry.filename[:200],
            )
        names.add(entry.filename)
    wanted = sorted((each for each in entries if not _is_litter(each.filename)), key=lambda each: each.filename)
    return [
        DataFile(
            each.filename.replace("\\", "/"),  # some programs on Windows write its separator
            lambda each=each: _bounded(_member(archive, each), left),  # type: ignore[misc]
        )
        for each in wanted
    ]


def _check_entry(entry: zipfile.ZipInfo) -> None:
    """Refuse names that lead out of a folder, links and encrypted files. Nothing is unpacked, so this only names the file."""
    name = entry.filename
    path = PurePosixPath(name.replace("\\", "/"))
    problem = ""
    if not path.parts:
        problem = "has no name"
    elif _CONTROL.search(name):
        problem = "has a name with a control character"
    elif path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or "\x00" in entry.orig_filename:
        problem = "has a path that leads out of the archive"
    elif stat.S_ISLNK(entry.external_attr >> 16):
        problem = "is a link"
    elif entry.flag_bits & 0x1:
        problem = "is encrypted"
    if problem:
        raise refused(
            problem,
            expectation="plain files with relative paths",
            remedy="compress the data set's folder again, without links and password",
            file=ascii(name)[1:-1][:200],
        )


def _is_litter(name: str) -> bool:
    """Files that operating systems add."""
    path = PurePosixPath(name)
    return "__MACOSX" in path.parts or path.name.startswith(".") or path.name in ("Thumbs.db", "desktop.ini")


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> IO[bytes]:
    try:
        return archive.open(entry)
    except (*_DAMAGE, OSError) as error:
        raise _damaged(entry.filename, error) from None


def _bounded(stream: IO[bytes], left: _Left) -> IO[bytes]:
    return cast(IO[bytes], io.BufferedReader(Bounded(stream, left.limit, shared=left.bytes), 1024 * 1024))


def _damaged(name: str, error: Exception) -> RowError:
    return refused(
        f"is damaged ({error})",
        expectation="a sound archive",
        remedy="copy or compress the files again",
        file=name[:200],
    )


@contextmanager
def named_damage(name: str) -> Iterator[None]:
    """Raise a RowError that names the file for damage that shows only while it is read."""
    try:
        yield
    except RowError:
        raise
    except _DAMAGE as error:
        raise _damaged(name, error) from None
    except TooMuch as error:
        raise refused(
            f"the files together are longer than {error.limit} bytes after decompression",
            expectation=f"at most {error.limit} bytes in all files",
            remedy="split the data set, or raise ZELO_MAX_IMPORT_MB",
            file=name[:200],
        ) from None


def _too_many(count: int) -> RowError:
    return refused(
        f"holds {count} files", expectation=f"at most {MOST_FILES} files", remedy="choose the data set's own folder"
    )


class Unclosed(io.RawIOBase):
    """The caller's stream for a reader that would close it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
