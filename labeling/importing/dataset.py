"""Imports data and exports judgments: `import_dataset`, `preview_dataset`, `export_judgments` (stage 1).

Formats are plugins (`labeling.importing.formats`). Their rows pass through a temporary table
(`labeling.importing.staging`) into the project in one transaction, so imports are all-or-nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import psycopg
from django.conf import settings
from django.db import DataError, IntegrityError, connection, transaction

from labeling.importing.formats import LineImporter, Row, RowChecks, RowError, make_importer
from labeling.importing.staging import ImportFailed, ImportSummary, Progress, move, stage
from labeling.models import Judgment, Project
from labeling.plugins import Importer, get_plugin
from labeling.records import ImportedQuery

__all__ = [
    "ImportFailed",
    "ImportSummary",
    "Preview",
    "export_judgments",
    "import_dataset",
    "preview_dataset",
    "stream_judgments",
]

Source = str | Path | IO[bytes]


@dataclass(frozen=True, slots=True)
class Preview:
    """A preview of a file. `rows` are the first valid rows; `errors` describe the first invalid ones.

    If `complete` is False, reading stopped before the end of the file, and the counts cover only the
    part that was read.
    """

    rows: tuple[Row, ...]
    errors: tuple[ImportFailed, ...]
    queries: int
    candidates: int
    grades: int
    complete: bool


# --- import ------------------------------------------------------------------------------


def import_dataset(
    project: Project,
    source: Source,
    *,
    importer: str = "zbench-jsonl",
    options: Mapping[str, Any] | None = None,
    filename: str = "",
    progress: Progress | None = None,
) -> ImportSummary:
    """Store a file's queries, documents, candidates and grades in one transaction, or raise ImportFailed.

    Existing data stays: importing the same file again changes nothing. A known query gets its new
    documents and missing first-stage ranks and scores. A known id with a different text is an error.
    Grades replace earlier grades. Grades of unknown candidates are counted and skipped; a file with
    only such grades is an error.

    The import calls `progress` with the number of lines read. Raises UnknownPlugin for an unknown
    importer, pydantic.ValidationError for its options, OSError if the file cannot be read.
    """
    reader = _reader(importer, options)
    file = filename or _name_of(source)
    with (
        _opened(source) as stream,
        _named_errors(file),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        staged = stage(cursor, reader.read(stream), progress)
        if not staged.rows:
            raise ImportFailed("holds no rows", file=file, remedy="choose the right file and format")
        return move(cursor, project.pk, staged, file)


def _reader(importer: str, options: Mapping[str, Any] | None) -> Importer:
    return make_importer(
        get_plugin("importer", importer),
        max_line_bytes=settings.ZELO_MAX_LINE_BYTES,
        max_total_bytes=settings.ZELO_MAX_IMPORT_BYTES,
        options=dict(options or {}),
    )


def _name_of(source: Source) -> str:
    return Path(source if isinstance(source, str | Path) else getattr(source, "name", None) or "file").name


@contextmanager
def _opened(source: Source) -> Iterator[IO[bytes]]:
    """Open a path and close it afterwards; leave the caller's stream open."""
    if isinstance(source, str | Path):
        with Path(source).open("rb") as stream:
            yield stream
    else:
        yield source


@contextmanager
def _named_errors(file: str) -> Iterator[None]:
    """Turn row errors and values that the database rejects into ImportFailed with the file's name."""
    try:
        yield
    except RowError as error:
        raise ImportFailed.of_row(error, file) from None
    except (DataError, IntegrityError, psycopg.DataError, UnicodeEncodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImportFailed(
            f"the database refused a value: {reason}", file=file, remedy="fix the value or the importer plugin"
        ) from error


# --- preview -----------------------------------------------------------------------------


def preview_dataset(
    source: Source,
    *,
    importer: str = "zbench-jsonl",
    options: Mapping[str, Any] | None = None,
    filename: str = "",
    rows: int = 5,
    max_errors: int = 50,
) -> Preview:
    """Read and check a whole file without storing anything; stop after `max_errors` invalid lines.

    An importer that does not read line by line stops at its first invalid row. Only `import_dataset`
    compares the texts with those of the project.
    """
    reader = _reader(importer, options)
    file = filename or _name_of(source)
    counts = {"queries": 0, "candidates": 0, "grades": 0}
    first: list[Row] = []
    errors: list[ImportFailed] = []
    with _opened(source) as stream:
        for row in _checked(reader, stream):
            if isinstance(row, RowError):
                errors.append(ImportFailed.of_row(row, file))
                if len(errors) >= max_errors:
                    break
                continue
            if len(first) < rows:
                first.append(row)
            if isinstance(row, ImportedQuery):
                counts["queries"] += 1
                counts["candidates"] += len(row.documents)
            else:
                counts["grades"] += 1
    complete = len(errors) < max_errors and (isinstance(reader, LineImporter) or not errors)
    if complete and not first and not errors:
        errors.append(ImportFailed("holds no rows", file=file, remedy="choose the right file and format"))
    return Preview(rows=tuple(first), errors=tuple(errors), complete=complete, **counts)


def _checked(reader: Importer, stream: IO[bytes]) -> Iterator[Row | RowError]:
    """Yield valid rows and the errors of invalid ones, including checks across lines."""
    checks = RowChecks()
    rows = reader.read_all(stream) if isinstance(reader, LineImporter) else reader.read(stream)
    try:
        for row in rows:
            try:
                if not isinstance(row, RowError):
                    checks.check(row)
                yield row
            except RowError as error:
                yield error
    except RowError as error:
        yield error


# --- judgments out -----------------------------------------------------------------------

_JUDGMENT_FIELDS = {
    "query_a": "pair__a__query__external_id",
    "document_a": "pair__a__document__external_id",
    "query_b": "pair__b__query__external_id",
    "document_b": "pair__b__document__external_id",
    "annotator": "annotator__name",
    "annotator_id": "annotator_id",
    "by_person": "by_person",
    "swapped": "swapped",
    "kind": "kind",
    "preference": "preference",
    "rationale": "rationale__text",
    "created_at": "created_at",
}


def stream_judgments(project: Project) -> Iterator[bytes]:
    """Yield the project's live judgments as JSON lines, oldest first.

    `preference` is P(a is the more relevant), or null for other answers; `swapped` means that b was
    shown first. One consistent read through a server-side cursor uses constant memory.
    """
    rows = (
        cast(Any, Judgment.objects)
        .live()
        .filter(annotator__project=project)
        .order_by("id")
        .values_list(*_JUDGMENT_FIELDS.values())
    )
    for row in rows.iterator(chunk_size=2000):
        line = dict(zip(_JUDGMENT_FIELDS, row, strict=True))
        line["rationale"] = line["rationale"] or ""
        line["created_at"] = line["created_at"].isoformat()
        yield json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def export_judgments(project: Project, stream: IO[bytes]) -> int:
    """Write the lines of `stream_judgments`; return the number of judgments."""
    written = 0
    # Outside a transaction PostgreSQL would copy all rows to a file first to keep the cursor open.
    with transaction.atomic():
        for line in stream_judgments(project):
            stream.write(line)
            written += 1
    return written
