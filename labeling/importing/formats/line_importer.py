"""Base class and limits of importers that read one row per line. Imports no Django.

A new format is a subclass of `LineImporter` in its own module.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import IO, Any, ClassVar

import pydantic

from labeling.importing.answers.rows import ImportedPreference, ImportedRating
from labeling.importing.lines import DEFAULT_MAX_LINE_BYTES, DEFAULT_MAX_TOTAL_BYTES, RowError, numbered_lines
from labeling.plugins import Importer, Plugin
from labeling.records import ImportedCandidate, ImportedDocument, ImportedGrade, ImportedQuery

Row = ImportedQuery | ImportedDocument | ImportedCandidate | ImportedGrade | ImportedPreference | ImportedRating


class LineOptions(Importer.Options):
    max_line_bytes: int = pydantic.Field(
        default=DEFAULT_MAX_LINE_BYTES, ge=1, le=2**30, description="Maximum length of a line in bytes."
    )
    max_total_bytes: int = pydantic.Field(
        default=DEFAULT_MAX_TOTAL_BYTES, ge=1, le=2**50, description="Maximum size of the decompressed file in bytes."
    )


class RowImporter(Importer):
    """An importer that continues behind a bad row, so that all errors of a file can be shown, or the rest imported."""

    Options = LineOptions
    options: LineOptions
    format_help: ClassVar[str] = ""
    example: ClassVar[bytes] = b""

    @abc.abstractmethod
    def read_all(self, stream: IO[bytes], *, parts: bool = False) -> Iterator[Row | RowError]:
        """Rows, and the errors of bad ones in their places; with `parts` also the good parts of bad rows."""

    def read(self, stream: IO[bytes]) -> Iterator[Row]:
        """Rows in the order of the file. Raises RowError at the first bad one."""
        for row in self.read_all(stream):
            if isinstance(row, RowError):
                raise row
            yield row


class LineImporter(RowImporter):
    """An importer of a format in which each line is a row. Files may be compressed with gzip."""

    @abc.abstractmethod
    def parse_line(self, body: bytes, line: int) -> Row | None:
        """Return the row of a non-blank line, or None for a header or comment. Raises RowError."""

    def parse_parts(self, body: bytes, line: int) -> Iterator[Row | RowError]:
        """Yield the errors of a line's bad parts and a row of its good ones; by default a line has one part."""
        try:
            row = self.parse_line(body, line)
        except RowError as error:
            yield error
        else:
            if row is not None:
                yield row

    def read_all(self, stream: IO[bytes], *, parts: bool = False) -> Iterator[Row | RowError]:
        """Rows, and the errors of bad lines in their places; with `parts` also the good parts of bad lines."""
        for number, body in numbered_lines(stream, self.options.max_line_bytes, self.options.max_total_bytes):
            if isinstance(body, RowError):
                yield body
                continue
            if parts:
                yield from self.parse_parts(body, number)
            else:
                yield from LineImporter.parse_parts(self, body, number)


def make_importer(
    plugin: type[Plugin],
    *,
    max_line_bytes: int,
    max_total_bytes: int = DEFAULT_MAX_TOTAL_BYTES,
    options: dict[str, Any] | None = None,
) -> Importer:
    """Return an importer with the installation's limits unless `options` override them."""
    given = dict(options or {})
    for name, limit in (("max_line_bytes", max_line_bytes), ("max_total_bytes", max_total_bytes)):
        if name in plugin.Options.model_fields:
            given.setdefault(name, limit)
    made = plugin.from_dict(given)
    if not isinstance(made, Importer):
        raise TypeError(f"{plugin.__qualname__} is a {plugin.kind or 'plugin'}; expected an importer")
    return made
