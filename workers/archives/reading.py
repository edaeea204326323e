"""Reads a project archive: its header, a check of the whole file, and its rows by section. Knows no database."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from workers.archives.format import FORMAT, LONGEST_LINE, SECTIONS, VERSION, Section

BLOCK = 1 << 18
NAMES = frozenset(section.name for section in SECTIONS)


class BadArchive(ValueError):
    """The file is no archive that can be imported; the message names the line, and what to do."""


@dataclass(frozen=True, slots=True)
class Header:
    """The first line: the format's version, the project's settings and the number of rows."""

    version: int
    project: dict[str, Any]
    rows: dict[str, int]
    people: str

    @property
    def total(self) -> int:
        return sum(self.rows.values())


def lines_of(stream: IO[bytes]) -> Iterator[bytes]:
    """The lines of a gzip stream, each with its newline, in constant memory. Raises BadArchive."""
    unpacker = zlib.decompressobj(wbits=31)
    rest = b""
    while block := stream.read(BLOCK):
        while block:
            try:
                text = unpacker.decompress(block, BLOCK * 4)
            except zlib.error as error:
                raise BadArchive(
                    f"the file is not a gzip file, or it is damaged ({error}); export the project again"
                ) from error
            block = unpacker.unconsumed_tail
            rest += text
            *whole, rest = rest.split(b"\n")
            for line in whole:
                yield line + b"\n"
            if len(rest) > LONGEST_LINE:
                raise BadArchive(f"a line has more than {LONGEST_LINE >> 20} MB; this is not an archive of zelo")
            if not block and not text and unpacker.eof:
                break
    if rest or not unpacker.eof:
        raise BadArchive("the file is cut off; copy it again, or export the project again")


def read_header(stream: IO[bytes]) -> Header:
    """The header of an archive. Raises BadArchive."""
    first = next(lines_of(stream), b"")
    return _header(first)


def check(stream: IO[bytes]) -> Header:
    """Read the whole file: its checksum, its sections and their row counts. Raises BadArchive."""
    digest, header, last = hashlib.sha256(), None, b""
    counts: dict[str, int] = {}
    name = ""
    for number, line in enumerate(lines_of(stream), 1):
        if last:
            digest.update(last)
        if number == 1:
            header = _header(line)
        elif line.startswith(b"{"):
            name = str(_json(line, number).get("section", name))
            if name not in NAMES and name:
                raise BadArchive(
                    f"line {number}: {name[:80]!r} is not a section of an archive; export the project again"
                )
            counts.setdefault(name, 0)
        else:
            counts[name] = counts.get(name, 0) + 1
        last = line
    if header is None:
        raise BadArchive("the file is empty; expected a project archive")
    end = _json(last, 0)
    if not end.get("end"):
        raise BadArchive("the file is cut off; copy it again, or export the project again")
    if end.get("sha256") != digest.hexdigest() or end.get("rows") != counts:
        raise BadArchive("the checksum does not match: the file was changed or damaged; export the project again")
    return header


def sections(stream: IO[bytes]) -> Iterator[tuple[Section, Iterator[tuple[int, list[Any]]]]]:
    """Each section with its rows and their line numbers; rows are to be read before the next section. Raises BadArchive.

    Columns that an older archive lacks are None.
    """
    numbered = enumerate(lines_of(stream), 1)
    version = _header(next(numbered)[1]).version
    waiting: list[tuple[int, dict[str, Any]]] = []

    def rows(section: Section) -> Iterator[tuple[int, list[Any]]]:
        expected = len(section.names_in(version))
        missing = [None] * (len(section.columns) - expected)
        for number, line in numbered:
            value = _json_value(line, number)
            if isinstance(value, dict):
                waiting.append((number, value))
                return
            if not isinstance(value, list) or len(value) != expected:
                raise BadArchive(f"line {number}: expected {expected} values of {section.name}")
            yield number, value + missing

    number, line = next(numbered)
    waiting.append((number, _json(line, number)))
    for section in (each for each in SECTIONS if each.since <= version):
        number, found = waiting.pop()
        if found.get("section") != section.name or found.get("columns") != section.names_in(version):
            raise BadArchive(f"line {number}: expected the section {section.name} with its columns")
        yield section, rows(section)


def _header(line: bytes) -> Header:
    if not line.startswith(b'{"format"'):
        raise BadArchive("the file is not a project archive; choose the importer of its format instead")
    found = _json(line, 1)
    if found.get("format") != FORMAT:
        raise BadArchive(f"the file is not a project archive: its format is {found.get('format')!r}")
    version = found.get("version")
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        raise BadArchive(
            f"the archive has version {version!r}, and this release reads 1 to {VERSION}; update this installation"
        )
    project, rows = found.get("project"), found.get("rows")
    if not isinstance(project, dict) or not isinstance(rows, dict):
        raise BadArchive("line 1: the header lacks the project or the row counts")
    return Header(
        version, project, {str(name): int(number) for name, number in rows.items()}, str(found.get("people", ""))
    )


def _json(line: bytes, number: int) -> dict[str, Any]:
    value = _json_value(line, number)
    if not isinstance(value, dict):
        raise BadArchive("the file is cut off; copy it again, or export the project again")
    return value


def _json_value(line: bytes, number: int) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadArchive(f"line {number}: not valid JSON ({error}); export the project again") from error
