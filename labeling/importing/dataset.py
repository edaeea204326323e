"""Imports of datasets, their previews, and the export of judgments (stage 1).

Formats are plugins (`labeling.importing.formats`). Their rows go through a temporary table
(`labeling.importing.staging`) into the project in one transaction, so that an import is all-or-nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, cast

import psycopg
from django.conf import settings
from django.db import DataError, IntegrityError, connection, transaction
from django.db.backends.utils import CursorWrapper

from labeling import audit
from labeling.importing.answers.preferences import StoredPreferences, store_preferences
from labeling.importing.answers.preview import with_known_answers
from labeling.importing.answers.rater_grades import StoredRatings, store_ratings
from labeling.importing.answers.rows import ImportedPreference, ImportedRating
from labeling.importing.detection import AUTO, OF_FOLDERS, detect_source
from labeling.importing.formats import Row, RowChecks, RowError, RowImporter, make_importer
from labeling.importing.left_out import LeftOut, LeftOutRows
from labeling.importing.lines import TooSlow, reading_within
from labeling.importing.reports import store_report
from labeling.importing.staging import Progress, Staged, move, stage
from labeling.importing.summary import ImportFailed, ImportSummary
from labeling.models import Judgment, Project
from labeling.plugins import Importer, get_plugin
from labeling.records import ImportedCandidate, ImportedDocument, ImportedQuery

__all__ = [
    "ImportFailed",
    "ImportSummary",
    "LeftOut",
    "Preview",
    "export_judgments",
    "import_dataset",
    "live_judgments",
    "preview_dataset",
    "stream_judgments",
]

Source = str | Path | IO[bytes]
MOST_ANNOTATORS = 20
# A preview is read in the web process; a small file may unpack to gigabytes without a row.
PREVIEW_S = 20.0


@dataclass(frozen=True, slots=True)
class Preview:
    """The result of `preview_dataset`: the first valid `rows` and the first `errors` of a file, and all errors by reason.

    `documents` are those on lines of their own. `complete` is False where reading stopped before the end of the file; the counts
    cover the part that was read. `annotators`: the first MOST_ANNOTATORS names of those who gave judgments and ratings.
    """

    rows: tuple[Row, ...]
    errors: tuple[ImportFailed, ...]
    queries: int
    documents: int
    candidates: int
    grades: int
    complete: bool
    importer: str
    reasons: tuple[LeftOut, ...] = ()
    judgments: int = 0
    ratings: int = 0
    annotators: tuple[str, ...] = ()


# --- import ------------------------------------------------------------------------------


def import_dataset(
    project: Project,
    source: Source,
    *,
    importer: str = "zbench-jsonl",
    options: Mapping[str, Any] | None = None,
    filename: str = "",
    progress: Progress | None = None,
    leave_out_bad_rows: bool = False,
    replaces: bool = False,
    by: Any = None,
) -> ImportSummary:
    """Store a file's queries, documents, candidates and grades in one transaction, or raise ImportFailed.

    Existing rows stay. The same file again changes nothing; a known query gets its new documents; missing first-stage
    ranks and scores are filled in; a known id with another text is an error. Grades replace earlier grades. Grades of
    documents that are not candidates are kept until they are, unless the project has none of the file's queries.

    `replaces`: texts without judgments, metadata, first-stage ranks and scores of the file replace those of the project.

    `leave_out_bad_rows` imports the rest of a file with bad rows: a bad document leaves the others of its query, and
    the summary counts what was left out by reason. A damaged file, or one without a good row, is still refused.

    The importer `auto` is the one that recognises the file. The import calls `progress` with the number of lines read. Raises UnknownPlugin for an unknown
    importer, pydantic.ValidationError for its options, OSError if the file cannot be read.
    """
    file = filename or _name_of(source)
    with (
        _opened(source) as stream,
        _named_errors(file),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        reader = _reader(importer, options, stream, file)
        left_out = LeftOutRows() if leave_out_bad_rows else None
        repeated = repeated_answers(reader)
        staged = stage(
            cursor,
            _rows(reader, stream, leave_out=leave_out_bad_rows),
            progress,
            left_out,
            repeated_answers=repeated != REFUSE,
        )
        if not staged.rows:
            raise _without_rows(left_out, file)
        summary = _moved(cursor, project, staged, file, left_out, repeated=repeated, replaces=replaces)
        _note_import(project, summary, file, by=by)
        report = store_report(project, file=file, importer=reader.name, summary=str(summary), left_out=left_out, by=by)
        return replace(summary, import_id=report.pk)


REFUSE = "refuse"


def repeated_answers(reader: Importer) -> str:
    """The format's rule for two answers of one annotator to the same question: refuse, last or mean."""
    return str(getattr(reader.options, "repeated_answers", REFUSE))


def _moved(
    cursor: CursorWrapper,
    project: Project,
    staged: Staged,
    file: str,
    left_out: LeftOutRows | None,
    *,
    repeated: str,
    replaces: bool,
) -> ImportSummary:
    """Move the temporary tables into the project: raters' grades first, which give grades, and preferences last."""
    ratings = StoredRatings()
    if staged.ratings:
        ratings = store_ratings(cursor, project, repeated=repeated)
        staged = replace(staged, grades=staged.grades + ratings.combined)
    summary = move(cursor, project.pk, staged, file, left_out, replaces=replaces)
    judged = StoredPreferences()
    if staged.preferences:
        judged = store_preferences(cursor, project, left_out, repeated=repeated)
        if not judged.judgments and staged.preferences == staged.rows:
            raise _without_rows(left_out, file)
    return replace(
        summary,
        judgments=judged.judgments,
        judgments_created=judged.created,
        judgments_changed=judged.changed,
        ratings=staged.ratings,
        ratings_created=ratings.created,
        ratings_changed=ratings.changed,
        left_out=left_out.counted() if left_out is not None else (),
    )


def _rows(reader: Importer, stream: IO[bytes], *, leave_out: bool) -> Iterator[Row | RowError]:
    """Rows, with the errors of bad ones if those are left out; a reader of whole files stops at its first.

    Raises RowError beyond ZELO_MAX_IMPORT_ROWS: a small compressed file can hold more rows than a server can store.
    """
    every = isinstance(reader, RowImporter) and leave_out
    rows = reader.read_all(stream, parts=True) if every and isinstance(reader, RowImporter) else reader.read(stream)
    most = settings.ZELO_MAX_IMPORT_ROWS
    for number, row in enumerate(rows, start=1):
        if number > most:
            raise RowError(
                f"the file has more than {most:,} rows",
                line=number,
                ends_file=True,
                expectation=f"at most {most:,} rows in a file",
                remedy="split it, or ask the server's operator to raise ZELO_MAX_IMPORT_ROWS",
            )
        yield row


def _without_rows(left_out: LeftOutRows | None, file: str) -> ImportFailed:
    reasons = left_out.counted() if left_out is not None else ()
    found = "".join(f"; {each}" for each in reasons)
    return ImportFailed(
        f"holds no {'good ' if found else ''}rows{found}", file=file, remedy="choose the right file and format"
    )


def _note_import(project: Project, summary: ImportSummary, file: str, *, by: Any) -> None:
    """Write one audit entry for new rows and another for replaced grades; none for a file that changed nothing."""
    created = {
        name: count
        for name in ("queries", "documents", "candidates", "grades", "judgments", "ratings")
        if (count := getattr(summary, f"{name}_created"))
    }
    if summary.replaced:
        created["replaced"] = summary.replaced
    if created:
        if left := sum(each.count for each in summary.left_out):
            created["left_out"] = left
        audit.note("data.imported", project=project, actor=by, subject=file, **created)
    if summary.judgments_changed or summary.ratings_changed:
        changed = {"judgments": summary.judgments_changed, "ratings": summary.ratings_changed}
        audit.note("judgments.replaced", project=project, actor=by, subject=file, **changed)
    if summary.grades_changed:
        audit.note("grades.replaced", project=project, actor=by, subject=file, grades=summary.grades_changed)


def _reader(importer: str, options: Mapping[str, Any] | None, stream: IO[bytes] | Path, file: str) -> Importer:
    name = detect_source(stream, file) if importer == AUTO else importer
    if isinstance(stream, Path) and name not in OF_FOLDERS:
        raise ImportFailed(
            "is a folder",
            file=file,
            remedy="choose one of its files, or the format beir or datasets-folder for a data set of that kind",
        )
    return make_importer(
        get_plugin("importer", name),
        max_line_bytes=settings.ZELO_MAX_LINE_BYTES,
        max_total_bytes=settings.ZELO_MAX_IMPORT_BYTES,
        options=dict(options or {}),
    )


def _name_of(source: Source) -> str:
    return Path(source if isinstance(source, str | Path) else getattr(source, "name", None) or "file").name


@contextmanager
def _opened(source: Source) -> Iterator[Any]:
    """Open a path, and close it afterwards; a stream of the caller stays open, and a folder stays a path."""
    if isinstance(source, str | Path) and Path(source).is_dir():
        yield Path(source)
    elif isinstance(source, str | Path):
        with Path(source).open("rb") as stream:
            yield stream
    else:
        yield source


@contextmanager
def _named_errors(file: str) -> Iterator[None]:
    """Raise ImportFailed, which names the file, for bad rows and for values that the database refuses."""
    try:
        yield
    except RowError as error:
        raise ImportFailed.of_row(error, file) from None
    except (DataError, IntegrityError, psycopg.DataError, UnicodeEncodeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImportFailed(
            f"the database refused a value: {reason}", file=file, remedy="fix the value, or the importer plugin"
        ) from error


# --- preview -----------------------------------------------------------------------------


def preview_dataset(
    source: Source,
    *,
    importer: str = "zbench-jsonl",
    options: Mapping[str, Any] | None = None,
    filename: str = "",
    rows: int = 10,
    max_errors: int = 50,
    most_counted: int = 10_000,
    most_rows: int | None = None,
    project: Project | None = None,
) -> Preview:
    """Read and check a file without storing anything; list `max_errors` errors. Stop after `most_counted` errors, after
    `most_rows` rows (None: ZELO_PREVIEW_ROWS) and after PREVIEW_S seconds.

    An importer that does not read line by line stops at its first bad row. With a `project`, judgments of queries and documents
    that it lacks are errors; only `import_dataset` compares texts with its own.
    """
    file = filename or _name_of(source)
    counts = dict.fromkeys(("queries", "documents", "candidates", "grades", "judgments", "ratings"), 0)
    annotators: dict[str, None] = {}
    first: list[Row] = []
    errors: list[ImportFailed] = []
    tally, found, read, is_cut = LeftOutRows(), 0, 0, True
    most_rows = settings.ZELO_PREVIEW_ROWS if most_rows is None else most_rows
    with _opened(source) as stream:
        reader = _reader(importer, options, stream, file)
        with suppress(TooSlow), reading_within(PREVIEW_S):
            rows_read = _checked(reader, stream)
            for row in rows_read if project is None else with_known_answers(project, rows_read):
                if isinstance(row, RowError):
                    found += 1
                    tally.count(row)
                    if len(errors) < max_errors:
                        errors.append(ImportFailed.of_row(row, file))
                    if found >= most_counted:
                        break
                    continue
                if read >= most_rows:
                    break
                read += 1
                if len(first) < rows:
                    first.append(row)
                _count(counts, row)
                if isinstance(row, ImportedPreference | ImportedRating) and len(annotators) < MOST_ANNOTATORS:
                    annotators[row.annotator] = None
            else:
                is_cut = False
    complete = not is_cut and (isinstance(reader, RowImporter) or not errors)
    if not first and not errors:
        problem = "holds no rows" if complete else f"holds no rows in what was read within {PREVIEW_S:g} s"
        errors.append(ImportFailed(problem, file=file, remedy="choose the right file and format"))
    return Preview(
        rows=tuple(first),
        errors=tuple(errors),
        complete=complete,
        importer=reader.name,
        reasons=tally.counted(),
        annotators=tuple(annotators),
        **counts,
    )


def _count(counts: dict[str, int], row: Row) -> None:
    if isinstance(row, ImportedQuery):
        counts["queries"] += 1
        counts["candidates"] += len(row.documents)
        counts["grades"] += sum(document.grade is not None for document in row.documents)
    elif isinstance(row, ImportedDocument):
        counts["documents"] += 1
    elif isinstance(row, ImportedPreference | ImportedRating):
        counts["judgments" if isinstance(row, ImportedPreference) else "ratings"] += 1
    else:
        counts["candidates" if isinstance(row, ImportedCandidate) else "grades"] += 1


def _checked(reader: Importer, stream: IO[bytes]) -> Iterator[Row | RowError]:
    """Valid rows, and the errors of bad ones, with the checks across lines."""
    checks = RowChecks(repeated_answers=repeated_answers(reader) != REFUSE)
    rows = reader.read_all(stream) if isinstance(reader, RowImporter) else reader.read(stream)
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


def stream_judgments(project: Project, *, by: Any = None) -> Iterator[bytes]:
    """The project's live judgments as JSON lines, oldest first.

    `preference` is P(a is the more relevant), null where the answer is none; `swapped` says that b
    was shown first. One consistent read through a server-side cursor, in constant memory. The call writes the audit
    entry: a client that stops reading has exported all the same.
    """
    audit.note("judgments.exported", project=project, actor=by, subject=project.slug)
    return _judgment_lines(project)


def live_judgments(project: Project) -> Iterator[dict[str, Any]]:
    """The values of each live judgment by name, oldest first; `created_at` in ISO 8601."""
    rows = (
        cast(Any, Judgment.objects)
        .live()
        .filter(annotator__project=project)
        .order_by("id")
        .values_list(*_JUDGMENT_FIELDS.values())
    )
    for row in rows.iterator(chunk_size=2000):
        values = dict(zip(_JUDGMENT_FIELDS, row, strict=True))
        values["rationale"] = values["rationale"] or ""
        values["created_at"] = values["created_at"].isoformat()
        yield values


def _judgment_lines(project: Project) -> Iterator[bytes]:
    for values in live_judgments(project):
        yield json.dumps(values, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def export_judgments(project: Project, stream: IO[bytes], *, by: Any = None) -> int:
    """Write what `stream_judgments` gives; returns how many judgments were written."""
    written = 0
    # Outside a transaction PostgreSQL would hold the cursor and copy all rows to a file first.
    with transaction.atomic():
        for line in stream_judgments(project, by=by):
            stream.write(line)
            written += 1
    return written
