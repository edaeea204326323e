"""Writes a zip archive, one member after the other, into a stream that need not seek. Imports no Django."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from types import TracebackType
from typing import IO, Self

# The earliest time that a zip can hold: the same rows give the same bytes.
_TIME = (1980, 1, 1, 0, 0, 0)


class ZipFolder:
    """A zip of files with known names, written in their order; files without a row are there too, with their header."""

    def __init__(self, stream: IO[bytes], files: Mapping[str, str], headers: Mapping[str, bytes] | None = None) -> None:
        self._archive = zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED)
        self._files = dict(files)
        self._headers = headers or {}
        self._open: tuple[str, IO[bytes]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            while self._files:
                self._next()
        if self._open is not None:
            self._open[1].close()
        self._archive.close()

    def write(self, key: str, data: bytes) -> None:
        """Append to a file. Raises KeyError for a file before the one that is being written."""
        self.member(key).write(data)

    def member(self, key: str) -> IO[bytes]:
        """The stream of a file; those before it are complete."""
        if self._open is None or self._open[0] != key:
            if key not in self._files:
                raise KeyError(f"the file {key!r} of the archive is complete or unknown")
            while self._open is None or self._open[0] != key:
                self._next()
        return self._open[1]

    def _next(self) -> None:
        key = next(iter(self._files))
        if self._open is not None:
            self._open[1].close()
        entry = zipfile.ZipInfo(self._files.pop(key), date_time=_TIME)
        entry.compress_type = zipfile.ZIP_DEFLATED
        stream = self._archive.open(entry, "w", force_zip64=True)
        stream.write(self._headers.get(key, b""))
        self._open = key, stream
