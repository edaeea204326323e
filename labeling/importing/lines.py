"""Lines of an imported file, plain or gzipped, with limits for a line and for the file.

`labeling.importing.formats` parses them into rows. Imports no Django.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from typing import IO, Any, cast

DEFAULT_MAX_LINE_BYTES = 64 * 1024 * 1024
DEFAULT_MAX_TOTAL_BYTES = 10 * 1024**3

_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_CTRL_Z = b"\x1a"
_CHUNK = 1024 * 1024


class RowError(ValueError):
    """One bad line of a file: place, problem, expectation and remedy. The caller adds the name of the file.

    `ends_file`: the rest of the file cannot be read, so leaving out this line does not help.
    """

    def __init__(
        self, problem: str, *, line: int, expectation: str, remedy: str, field: str = "", ends_file: bool = False
    ) -> None:
        where = f"line {line}, {field}" if field else f"line {line}"
        super().__init__(f"{where}: {problem}; expected {expectation}; {remedy}")
        self.ends_file = ends_file
        self.problem = problem
        self.line = line
        self.field = field
        self.expectation = expectation
        self.remedy = remedy


class Rejoined(io.RawIOBase):
    """A stream that begins with bytes which were read already, for streams that cannot seek."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head[: len(buffer)] or self._rest.read(len(buffer)) or b""
        self._head = self._head[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def rejoined(stream: IO[bytes], size: int) -> tuple[bytes, IO[bytes]]:
    """The first `size` unpacked bytes of a stream, and a stream that begins with them; empty for a damaged gzip file."""
    raw = stream.read(size)
    while raw and len(raw) < size and (more := stream.read(size - len(raw))):
        raw += more
    whole = cast(IO[bytes], io.BufferedReader(Rejoined(raw, stream), _CHUNK))
    if not raw.startswith(_GZIP_MAGIC):
        return raw, whole
    unpacking = zlib.decompressobj(wbits=31)
    try:
        return unpacking.decompress(raw, size), whole
    except zlib.error:
        return b"", whole


class TooMuch(Exception):
    """An unpacked file is longer than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} bytes")
        self.limit = limit


class Bounded(io.RawIOBase):
    """A stream of at most `limit` bytes; reading more raises TooMuch. Streams with one `shared` list share the limit."""

    def __init__(self, rest: IO[bytes], limit: int, *, shared: list[int] | None = None) -> None:
        self._rest = rest
        self._limit = limit
        self._left = [limit] if shared is None else shared

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._rest.read(min(len(buffer), self._left[0]) or 1)
        if data and not self._left[0]:
            raise TooMuch(self._limit)
        self._left[0] -= len(data)
        buffer[: len(data)] = data
        return len(data)


class _UnixLines(io.RawIOBase):
    """A stream whose line ends CR LF and CR become LF, whatever mixture it holds."""

    def __init__(self, rest: io.BufferedReader) -> None:
        self._rest = rest
        self._ready = b""
        self._held = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            read = self._rest.read1(_CHUNK)
            data = self._held + read
            # A CR at the end of a piece may be half of a CR LF.
            self._held = b"\r" if read and data.endswith(b"\r") else b""
            data = data[: len(data) - len(self._held)]
            self._ready = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            if not read:
                break
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size


def open_stream(stream: IO[bytes], max_total_bytes: int = DEFAULT_MAX_TOTAL_BYTES) -> io.BufferedReader:
    """The bytes of a stream, unpacked if it begins like a gzip file.

    Reading more than `max_total_bytes` unpacked bytes raises TooMuch: a small file can unpack to any size.
    """
    head = stream.read(2)
    while len(head) == 1 and (more := stream.read(1)):
        head += more
    whole = io.BufferedReader(Rejoined(head, stream), _CHUNK)
    unpacked = gzip.GzipFile(fileobj=whole) if head == _GZIP_MAGIC else whole
    return io.BufferedReader(Bounded(cast(IO[bytes], unpacked), max_total_bytes), _CHUNK)


def numbered_lines(
    stream: IO[bytes],
    max_line_bytes: int,
    max_total_bytes: int = DEFAULT_MAX_TOTAL_BYTES,
    *,
    blank: bool = False,
) -> Iterator[tuple[int, bytes | RowError]]:
    """Yield each line with its 1-based number, without line end (LF, CR LF or CR), byte order mark and DOS's Ctrl-Z.

    Marks are dropped at the beginning of every line: files joined with `cat` or `copy` have them in the middle.

    A RowError stands in the place of a line that is too long, of which no more than the limit is held in memory. A
    damaged gzip file, or a file that is too long, ends with a RowError. Blank lines are left out, unless `blank` is set.
    """
    reader = io.BufferedReader(_UnixLines(open_stream(stream, max_total_bytes)), _CHUNK)
    number = 0
    while True:
        number += 1
        try:
            line = reader.readline(max_line_bytes + 3)
            if not line:
                return
            body = line.rstrip(b"\n")
            cut = len(line) == max_line_bytes + 3 and not line.endswith(b"\n")
            if cut or len(body) > max_line_bytes:
                _skip_to_line_end(reader, line)
                yield number, _too_long(number, max_line_bytes)
                continue
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            yield number, damaged(number, error)
            return
        except TooMuch as error:
            yield number, _too_much(number, error.limit)
            return
        body = _without_marks(body)
        if blank or (body and not body.isspace()):
            yield number, body


def _without_marks(body: bytes) -> bytes:
    """A line without byte order marks and Ctrl-Z at its beginning, and without Ctrl-Z at its end."""
    while (bare := body.removeprefix(_BOM).removeprefix(_CTRL_Z)) != body:
        body = bare
    return body.rstrip(_CTRL_Z)


def _skip_to_line_end(reader: IO[bytes], piece: bytes) -> None:
    while piece and not piece.endswith(b"\n"):
        piece = reader.readline(_CHUNK)


def _too_long(line: int, limit: int) -> RowError:
    return RowError(
        f"longer than {limit} bytes",
        line=line,
        expectation=f"at most {limit} bytes per line",
        remedy="shorten the texts, or raise ZELO_MAX_LINE_MB",
    )


def _too_much(line: int, limit: int) -> RowError:
    return RowError(
        f"the file is longer than {limit} bytes after decompression",
        line=line,
        expectation=f"at most {limit} bytes a file",
        remedy="split the file, or raise ZELO_MAX_IMPORT_MB",
        ends_file=True,
    )


def damaged(line: int, error: Exception) -> RowError:
    return RowError(
        f"the compressed file is damaged or truncated here ({error})",
        line=line,
        expectation="a complete gzip file",
        remedy="copy or compress the file again",
        ends_file=True,
    )
