"""Reads the elements of a large JSON array, or the members of a large object, one after the other. Imports no Django."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from typing import IO, Any, Literal

from labeling.importing.lines import RowError, TooMuch, open_stream
from labeling.importing.strict_json import BadJson, parse

_CHUNK = 256 * 1024
# A whole string, or a character that opens, closes or separates.
_MARK = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|"|[\[\]{},]', re.DOTALL)
_OPENING = {"array": b"[", "object": b"{"}
_CLOSING = {b"[": b"]", b"{": b"}"}


def json_members(
    stream: IO[bytes], max_part_bytes: int, max_total_bytes: int, *, kind: Literal["array", "object"], key: str = ""
) -> Iterator[tuple[int, Any]]:
    """Yield (number from 1, element) of an array, or (number, (key, value)) of an object; RowErrors in place of bad ones.

    `key`: the array is the value of this only key of an object, which is the whole file.
    Memory holds one element. An error of the structure, an element longer than `max_part_bytes`, or a damaged file ends it.
    """
    number = 0
    try:
        for number, part in enumerate(_parts(stream, max_part_bytes, max_total_bytes, _OPENING[kind], key), start=1):
            try:
                value = parse(part if kind == "array" else b"{" + part + b"}")
            except BadJson as error:
                yield (
                    number,
                    RowError(
                        error.problem,
                        line=number,
                        field=error.field,
                        expectation=error.expectation,
                        remedy=error.remedy,
                    ),
                )
                continue
            if kind == "array":
                yield number, value
            else:
                yield from ((number, member) for member in value.items())
    except RowError as error:
        yield number + 1, error
    except TooMuch as error:
        yield (
            number + 1,
            _ends(
                f"the file is longer than {error.limit} bytes after decompression",
                number + 1,
                expectation=f"at most {error.limit} bytes a file",
                remedy="split the file, or raise ZELO_MAX_IMPORT_MB",
            ),
        )
    except (EOFError, OSError, zlib.error) as error:
        yield (
            number + 1,
            _ends(
                f"the compressed file is damaged ({error})",
                number + 1,
                expectation="a complete gzip file",
                remedy="copy or compress the file again",
            ),
        )


def _ends(problem: str, line: int, *, expectation: str, remedy: str) -> RowError:
    return RowError(problem, line=line, expectation=expectation, remedy=remedy, ends_file=True)


def _parts(stream: IO[bytes], max_part_bytes: int, max_total_bytes: int, opening: bytes, key: str) -> Iterator[bytes]:
    """The bytes of each element between the commas of the outermost level."""
    reader = open_stream(stream, max_total_bytes)
    buffer = _start(reader.read(_CHUNK), opening, key)
    begin = scanned = depth = count = 0
    while True:
        for mark in _MARK.finditer(buffer, scanned):
            kind = buffer[mark.start() : mark.start() + 1]
            if kind == b'"':
                if mark.end() - mark.start() == 1:  # a string whose end is not read yet
                    scanned = mark.start()
                    break
            elif kind in (b"[", b"{"):
                depth += 1
            elif kind == b"," and depth == 0:
                count += 1
                yield buffer[begin : mark.start()]
                begin = mark.end()
            elif kind in (b"]", b"}"):
                depth -= 1
                if depth < 0:
                    if kind != _CLOSING[opening]:
                        raise _ends(
                            f"is closed by {kind.decode()}",
                            count + 1,
                            expectation=f"{_CLOSING[opening].decode()} at the end",
                            remedy="write the file with a JSON library, not by hand",
                        )
                    end = b"}" if key else b""
                    yield from _last(buffer[begin : mark.start()], buffer[mark.end() :], count, reader, end)
                    return
            scanned = mark.end()
        buffer, scanned, begin = buffer[begin:], scanned - begin, 0
        if len(buffer) > max_part_bytes:
            raise _ends(
                f"an element is longer than {max_part_bytes} bytes",
                count + 1,
                expectation=f"at most {max_part_bytes} bytes per element",
                remedy="shorten the texts, or raise ZELO_MAX_LINE_MB",
            )
        more = reader.read(max(_CHUNK, len(buffer)))
        if not more:
            raise _ends(
                "the file ends inside its outermost array or object",
                count + 1,
                expectation="a complete JSON file",
                remedy="copy the file again",
            )
        buffer += more


def _start(head: bytes, opening: bytes, key: str) -> bytes:
    bare = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n")
    if key and (found := re.match(rb'\{\s*"%s"\s*:\s*\[' % re.escape(key.encode()), bare)):
        return bare[found.end() :]
    if not key and bare.startswith(opening):
        return bare[1:]
    raise _ends(
        f"begins with {bare[:10].decode('utf-8', 'replace')!a}" if bare else "is empty",
        1,
        expectation=f'a JSON file that begins with {{"{key}": ['
        if key
        else f"a JSON file that begins with {opening.decode()}",
        remedy="choose the right file and format",
    )


def _last(part: bytes, rest: bytes, count: int, reader: IO[bytes], end: bytes) -> Iterator[bytes]:
    """The last element, unless the array is empty; nothing but `end` and blanks may follow."""
    if part.strip() or count:
        yield part
    if (rest + reader.read(_CHUNK)).strip() != end:
        raise _ends(
            f"{end.decode()} and nothing else must follow the array"
            if end
            else "text follows the end of the outermost array or object",
            count + 2,
            expectation="one array or object in the file",
            remedy="choose the right format, or write one element per line",
        )
