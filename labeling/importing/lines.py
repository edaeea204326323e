"""Lines of an imported file, plain or gzipped, with limits for a line and for the file; other content is named by its first bytes.

`labeling.importing.formats` parses them into rows. Imports no Django.
"""

from __future__ import annotations

import gzip
import io
import math
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import IO, Any, cast

DEFAULT_MAX_LINE_BYTES = 64 * 1024 * 1024
DEFAULT_MAX_TOTAL_BYTES = 10 * 1024**3

_GZIP_MAGIC = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_CTRL_Z = b"\x1a"
_CHUNK = 1024 * 1024

# The first bytes of other content: its name, and the remedy.
_HEAD_BYTES = 512
_PLAIN = "UTF-8 text, which may be compressed with gzip"
_UNPACK = "unpack it, and import the file inside"
_AS_CSV = "export the sheet as CSV UTF-8"
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive", _UNPACK),
    (b"PK\x05\x06", "an empty zip archive", "choose the right file"),
    (b"\x1f\x8b", "a gzip file inside a gzip file", "unpack it once"),
    (b"BZh", "compressed with bzip2", _UNPACK),
    (b"\xfd7zXZ\x00", "compressed with xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", _AS_CSV),
    (b"%PDF-", "a PDF document", "choose the data's own file"),
    (b"SQLite format 3\x00", "a SQLite database", "export its table as CSV"),
    (b"ARROW1\x00\x00", "an Arrow file", "save it as Parquet"),
    (b"PAR1", "a Parquet file", "choose the format table, and do not compress the file again"),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer", "fetch the file itself with git lfs pull"),
)  # fmt: skip
_PAGES = (b"<!doctype html", b"<html")


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


class TooSlow(Exception):
    """Unpacking and reading took longer than the time given to `reading_within`."""


@contextmanager
def reading_within(seconds: float) -> Iterator[None]:
    """Let reads of unpacked bytes raise TooSlow after so many seconds."""
    before = _until.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _until.reset(before)


_until: ContextVar[float] = ContextVar("until", default=math.inf)


class Bounded(io.RawIOBase):
    """A stream of at most `limit` bytes; reading more raises TooMuch. Streams with one `shared` list share the limit."""

    def __init__(self, rest: IO[bytes], limit: int, *, shared: list[int] | None = None) -> None:
        self._rest = rest
        self._limit = limit
        self._left = [limit] if shared is None else shared

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if time.monotonic() > _until.get():
            raise TooSlow
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
    """The bytes of a stream, unpacked if it begins like a gzip file. Raises RowError for content that is no UTF-8 text.

    Reading more than `max_total_bytes` unpacked bytes raises TooMuch: a small file can unpack to any size.
    """
    head = stream.read(2)
    while len(head) == 1 and (more := stream.read(1)):
        head += more
    whole = io.BufferedReader(Rejoined(head, stream), _CHUNK)
    unpacked = gzip.GzipFile(fileobj=whole) if head == _GZIP_MAGIC else whole
    opened: io.BufferedReader = io.BufferedReader(Bounded(cast(IO[bytes], unpacked), max_total_bytes), _CHUNK)
    _check_content(opened.peek(_HEAD_BYTES)[:_HEAD_BYTES])
    return opened


def _is_binary(head: bytes) -> bool:
    """Whether these bytes hold control characters, which no text has: a short signature may also begin a text."""
    return any(each < 32 and each not in b"\t\n\r\x0c" for each in head)


def _check_content(head: bytes) -> None:
    """Raise RowError, which ends the file, where these first bytes (up to _HEAD_BYTES) begin something else than UTF-8 text."""
    for start, what, remedy in _SIGNATURES:
        if head.startswith(start) and (len(start) > 4 or _is_binary(head)):
            raise _refused(f"is {what}", remedy)
    if head[257:262] == b"ustar":
        raise _refused("is a tar archive", "unpack it, and import the file inside, or its folder as a zip archive")
    if encoding := _encoding(head):
        raise _refused(f"is encoded as {encoding}", "save or convert the file as UTF-8")
    if head.lstrip()[:20].lower().startswith(_PAGES):
        raise _refused("is a web page", "download the data's own file: a page may ask to sign in")


def _encoding(head: bytes) -> str:
    """The encoding of wide characters: by its mark, or by the NULs in every second place of a text in Latin letters."""
    if head.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        return "UTF-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    halves = head[0:200:2], head[1:200:2]
    empty = [half.count(0) for half in halves]
    is_wide = len(head) >= 8 and max(empty) > 0.6 * len(halves[1]) and min(empty) == 0
    return "UTF-16" if is_wide else ""


def _refused(problem: str, remedy: str) -> RowError:
    return RowError(problem, line=1, expectation=_PLAIN, remedy=remedy, ends_file=True)


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
    try:
        reader = io.BufferedReader(_UnixLines(open_stream(stream, max_total_bytes)), _CHUNK)
    except RowError as error:
        yield error.line, error
        return
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        yield 1, damaged(1, error)
        return
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


def is_spread(body: bytes) -> bool:
    """Whether a line opens a JSON object that continues on the next lines."""
    return body.strip() == b"{"


def spread_over_lines(line: int) -> RowError:
    """The error of a JSON object with line ends, where each line must be one."""
    return RowError(
        "opens a JSON object that continues on the next lines",
        line=line,
        expectation="each object on one line",
        remedy="write the objects without line ends, for example with jq -c, or as one JSON array",
    )


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
