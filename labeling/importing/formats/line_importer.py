"""Base class and limits of importers that read one row per line. Imports no Django.

A new format is a subclass of `LineImporter` in its own module.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import IO, Any, ClassVar

import pydantic

from labeling.importing.lines import DEFAULT_MAX_LINE_BYTES, DEFAULT_MAX_TOTAL_BYTES, RowError, numbered_lines
from labeling.importing.strict_json import BadJson
from labeling.plugins import Importer, Plugin
from labeling.records import ImportedGrade, ImportedQuery

Row = ImportedQuery | ImportedGrade

MAX_ID_CHARACTERS = 500


class LineOptions(Importer.Options):
    max_line_bytes: int = pydantic.Field(
        default=DEFAULT_MAX_LINE_BYTES, ge=1, le=2**30, description="Maximum length of a line in bytes."
    )
    max_total_bytes: int = pydantic.Field(
        default=DEFAULT_MAX_TOTAL_BYTES, ge=1, le=2**50, description="Maximum size of the decompressed file in bytes."
    )


class LineImporter(Importer):
    """An importer of a format in which each line is a row. Files may be compressed with gzip."""

    Options = LineOptions
    options: LineOptions
    format_help: ClassVar[str] = ""
    example: ClassVar[bytes] = b""

    @abc.abstractmethod
    def parse_line(self, body: bytes, line: int) -> Row:
        """Return the row of a non-blank line. Raises RowError."""

    def read(self, stream: IO[bytes]) -> Iterator[Row]:
        """Rows in the order of the file. Raises RowError at the first bad line."""
        for row in self.read_all(stream):
            if isinstance(row, RowError):
                raise row
            yield row

    def read_all(self, stream: IO[bytes]) -> Iterator[Row | RowError]:
        """Rows, and the errors of bad lines in their places, for previews."""
        for number, body in numbered_lines(stream, self.options.max_line_bytes, self.options.max_total_bytes):
            if isinstance(body, RowError):
                yield body
                continue
            try:
                yield self.parse_line(body, number)
            except RowError as error:
                yield error


def check_identifier(value: str, field: str) -> None:
    """Raise BadJson for an id that is empty or too long."""
    expectation = f"an id of 1 to {MAX_ID_CHARACTERS} characters"
    if not value or value.isspace():
        raise BadJson("is empty", expectation=expectation, remedy="give it an id", field=field)
    if len(value) > MAX_ID_CHARACTERS:
        raise BadJson(
            f"has {len(value)} characters", expectation=expectation, remedy="shorten or hash the id", field=field
        )


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
