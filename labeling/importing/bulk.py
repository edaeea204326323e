"""Bulk upserts over REST: JSON lines of one kind, read as they arrive, all or nothing.

Queries and documents: `id`, `text`, `metadata`. Candidates: `query_id`, `document_id`, `rank`, `score`. Grades: `query_id`,
`document_id`, `grade`. Judgments: `query_id`, `a_id`, `b_id`, `preference`, `annotator` and more. Ids are the imported ones.
Rows that differ replace those of the project, but no text with judgments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import IO, Any

import psycopg
from django.conf import settings
from django.db import DataError, IntegrityError, connection, transaction

from labeling import audit
from labeling.importing.answers.preferences import store_preferences
from labeling.importing.answers.rows import ImportedPreference
from labeling.importing.formats import Row, RowError
from labeling.importing.formats.answers import values
from labeling.importing.formats.fields import grade, identifier, rank, row_error, score, text
from labeling.importing.lines import numbered_lines
from labeling.importing.staging import ImportFailed, ImportSummary, move, stage
from labeling.importing.strict_json import BadJson, parse
from labeling.models import Project
from labeling.records import AnswerKind, ImportedCandidate, ImportedDocument, ImportedGrade, ImportedQuery

MOST_ROWS = 100_000
MOST_ERRORS = 100


class BadLines(ValueError):
    """A request with bad lines; `errors` are the first of them. Nothing was stored."""

    def __init__(self, errors: list[RowError], *, stopped: bool) -> None:
        counted = f"the first {len(errors)} lines" if stopped else f"{len(errors)} line{'s' * (len(errors) != 1)}"
        super().__init__(f"{counted} cannot be stored, so nothing was; fix them and send all lines again")
        self.errors = errors


def upsert_lines(project: Project, kind: str, stream: IO[bytes], *, by: Any = None) -> ImportSummary:
    """Store up to 100,000 JSON lines of `kind` (queries, documents, candidates, grades, judgments) in one transaction.

    Memory is bounded: lines go to a temporary table a few MB at a time. Raises BadLines for bad lines, ImportFailed for rows
    that contradict the project, for more rows and for none.
    """
    errors: list[RowError] = []
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            staged = stage(cursor, _good(_rows(kind, stream), errors), None, repeated_answers=True)
            if errors:
                raise BadLines(errors, stopped=False)
            if not staged.rows:
                raise ImportFailed("holds no rows", file="request", remedy="send one JSON object a line")
            summary = move(cursor, project.pk, staged, "request", replaces=True)
            if staged.preferences:
                judged = store_preferences(cursor, project, None, repeated="last")
                summary = replace(
                    summary,
                    judgments=judged.judgments,
                    judgments_created=judged.created,
                    judgments_changed=judged.changed,
                )
            _note(project, kind, summary, by=by)
            return summary
    except RowError as error:
        raise BadLines([*errors, error], stopped=False) from None
    except (DataError, IntegrityError, psycopg.DataError, UnicodeEncodeError) as error:
        raise ImportFailed(
            f"the database refused a value: {str(error).splitlines()[0]}", file="request", remedy="fix the value"
        ) from error


def store_rows(project: Project, rows: Iterator[Row], *, source: str, by: Any = None) -> ImportSummary:
    """Store rows that a program has made, in one transaction; rows of the project stay. Raises ImportFailed.

    `source` names them in the audit log.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        staged = stage(cursor, rows, None, repeated_answers=True)
        summary = move(cursor, project.pk, staged, source)
        created = {
            name: count
            for name in ("queries", "documents", "candidates")
            if (count := getattr(summary, f"{name}_created"))
        }
        if created:
            audit.note("data.imported", project=project, actor=by, subject=source, **created)
    return summary


def _good(rows: Iterator[Row | RowError], errors: list[RowError]) -> Iterator[Row | RowError]:
    """The good rows; errors are collected, and stop the reading at `MOST_ERRORS`."""
    for row in rows:
        if not isinstance(row, RowError):
            yield row
            continue
        errors.append(row)
        if len(errors) >= MOST_ERRORS:
            raise BadLines(errors, stopped=True)


def _rows(kind: str, stream: IO[bytes]) -> Iterator[Row | RowError]:
    make, fields = _KINDS[kind]
    for count, (line, body) in enumerate(
        numbered_lines(stream, settings.ZELO_MAX_LINE_BYTES, settings.ZELO_MAX_IMPORT_BYTES), start=1
    ):
        if count > MOST_ROWS:
            raise ImportFailed(f"has more than {MOST_ROWS} rows", file="request", remedy="send several requests")
        if isinstance(body, RowError):
            yield body
            continue
        try:
            yield make(_object(body, line, fields), line)
        except RowError as error:
            yield error


def _object(body: bytes, line: int, fields: frozenset[str]) -> dict[str, Any]:
    expectation = f"a JSON object with {', '.join(sorted(fields))}"
    try:
        found = parse(body)
    except BadJson as error:
        raise row_error(error, line) from None
    if not isinstance(found, dict):
        raise RowError("is not a JSON object", line=line, expectation=expectation, remedy="send one object a line")
    if unknown := sorted(found.keys() - fields):
        raise RowError(
            f"has the unknown field {unknown[0]!r}", line=line, expectation=expectation, remedy="rename or remove it"
        )
    return found


def _metadata(row: dict[str, Any], line: int) -> dict[str, Any]:
    found = row.get("metadata") or {}
    if not isinstance(found, dict):
        raise RowError(
            f"is {type(found).__name__}", line=line, field="metadata", expectation="an object", remedy="send {}"
        )
    return found


def _query(row: dict[str, Any], line: int) -> Row:
    return ImportedQuery(
        identifier(row.get("id"), "id", line), text(row.get("text"), "text", line), (), _metadata(row, line), line
    )


def _document(row: dict[str, Any], line: int) -> Row:
    return ImportedDocument(
        identifier(row.get("id"), "id", line),
        text(row.get("text"), "text", line),
        _metadata(row, line),
        line=line,
    )


def _ids(row: dict[str, Any], line: int) -> tuple[str, str]:
    return identifier(row.get("query_id"), "query_id", line), identifier(row.get("document_id"), "document_id", line)


def _candidate(row: dict[str, Any], line: int) -> Row:
    query, document = _ids(row, line)
    placed = None if row.get("rank") is None else rank(row["rank"], line)
    scored = None if row.get("score") is None else score(row["score"], line)
    return ImportedCandidate(query, document, rank=placed, score=scored, line=line)


def _grade(row: dict[str, Any], line: int) -> Row:
    query, document = _ids(row, line)
    value = grade(row.get("grade"), line)
    if value < 0:
        raise RowError(
            f"is {value}", line=line, field="grade", expectation="0 or more", remedy="send 0 for irrelevant documents"
        )
    return ImportedGrade(query, document, grade=value, line=line)


def _judgment(row: dict[str, Any], line: int) -> Row:
    query, a, b = (identifier(row.get(name), name, line) for name in ("query_id", "a_id", "b_id"))
    values.different(a, b, line)
    kind = _kind(row.get("kind"), line)
    preference = None
    if kind is AnswerKind.PREFERENCE:
        preference = values.of_number(row.get("preference"), line, field="preference", low=0.0, high=1.0)
    elif row.get("preference") is not None:
        raise RowError(
            f"is given together with the kind {kind.value}", line=line, field="preference", expectation="null with this kind",
            remedy="remove one of them",
        )  # fmt: skip
    return ImportedPreference(
        query_id=query,
        a_id=a,
        b_id=b,
        preference=preference,
        kind=kind,
        annotator=values.name_of(row.get("annotator"), line, field="annotator", default="imported"),
        by_person=values.truth(row.get("by_person"), line, field="by_person"),
        swapped=values.truth(row.get("swapped"), line, field="swapped"),
        rationale=values.rationale(row.get("rationale"), line),
        line=line,
    )


def _kind(value: Any, line: int) -> AnswerKind:
    try:
        return AnswerKind(AnswerKind.PREFERENCE if value is None else value)
    except ValueError:
        raise RowError(
            f"is {str(value)[:80]!r}",
            line=line,
            field="kind",
            expectation=", ".join(AnswerKind),
            remedy="send one of them",
        ) from None


_TEXT = frozenset({"id", "text", "metadata"})
_IDS = frozenset({"query_id", "document_id"})
_KINDS: dict[str, tuple[Callable[[dict[str, Any], int], Row], frozenset[str]]] = {
    "queries": (_query, _TEXT),
    "documents": (_document, _TEXT),
    "candidates": (_candidate, _IDS | {"rank", "score"}),
    "grades": (_grade, _IDS | {"grade"}),
    "judgments": (
        _judgment,
        frozenset(("query_id", "a_id", "b_id", "preference", "kind", "annotator", "by_person", "swapped", "rationale")),
    ),
}


def replaced_of(summary: ImportSummary, kind: str) -> int:
    """The number of the project's rows that the request replaced."""
    changed = {"grades": summary.grades_changed, "judgments": summary.judgments_changed}
    return summary.replaced + changed.get(kind, 0)


def _note(project: Project, kind: str, summary: ImportSummary, *, by: Any) -> None:
    """One entry for what is new or replaced; a request that changed nothing leaves none."""
    counts = {
        "created": getattr(summary, f"{kind}_created"),
        "replaced": replaced_of(summary, kind),
    }
    if any(counts.values()):
        audit.note("data.imported", project=project, actor=by, subject=kind, **counts)
