"""The temporary table of an import: rows are copied into it, and SQL moves them into the project.

`labeling.importing.dataset` opens the transaction and calls `stage`, then `move`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.db.backends.utils import CursorWrapper

from labeling.importing.answers.rows import ImportedPreference, ImportedRating
from labeling.importing.answers.staging import StagedAnswers
from labeling.importing.formats import Row, RowChecks, RowError
from labeling.importing.left_out import LeftOutRows
from labeling.importing.replacing import replace_first_stage, replace_texts
from labeling.importing.strict_json import quoted
from labeling.importing.summary import ImportFailed, ImportSummary
from labeling.importing.unmatched_grades import attach_grades
from labeling.records import ImportedCandidate, ImportedDocument, ImportedGrade, ImportedQuery

Progress = Callable[[int], None]

ROWS_AT_ONCE = 5_000
CHARACTERS_AT_ONCE = 4_000_000
MAX_DOMAIN_CHARACTERS = 100
MANY_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Staged:
    """Counts of the temporary tables; documents and grades are distinct ones."""

    rows: int
    queries: int
    documents: int
    candidates: int
    grades: int
    preferences: int = 0
    ratings: int = 0
    by_score: bool = False


_CREATE_STAGE = """
DROP TABLE IF EXISTS pg_temp.import_row;
CREATE TEMPORARY TABLE import_row (
    position bigint, line bigint, kind text, query_id text, document_id text,
    text text, domain text, metadata jsonb, rank integer, score float8, grade integer, by_score boolean
) ON COMMIT DROP
"""
_COPY = "COPY import_row FROM STDIN"

Record = tuple[
    int, int, str, str, str | None, str | None, str | None, str | None, int | None, float | None, int | None, bool
]


def stage(
    cursor: CursorWrapper,
    rows: Iterator[Row | RowError],
    progress: Progress | None,
    left_out: LeftOutRows | None = None,
    *,
    repeated_answers: bool = False,
) -> Staged:
    """Check the rows across lines and copy them into the temporary tables, a few MB at a time.

    Bad rows are added to `left_out`; without it the first one raises RowError. `repeated_answers`: one annotator may answer a
    question several times.
    """
    cursor.execute(_CREATE_STAGE)
    answers = StagedAnswers(cursor, ROWS_AT_ONCE)
    counts = dict.fromkeys(("query", "document", "candidate", "grade"), 0)
    batch: list[Record] = []
    characters = position = 0
    by_score = False
    for record in _records(_good(rows, RowChecks(repeated_answers=repeated_answers), left_out), answers):
        position += 1
        counts[record[2]] += 1
        by_score = by_score or record[11]
        batch.append((position, *record[1:]))
        characters += len(record[5] or "")
        if len(batch) >= ROWS_AT_ONCE or characters >= CHARACTERS_AT_ONCE:
            _copy(cursor, batch)
            characters = 0
            if progress is not None:
                progress(record[1])
    _copy(cursor, batch)
    answers.finish()
    return Staged(
        rows=position + answers.rows,
        queries=counts["query"],
        documents=counts["document"],
        candidates=counts["candidate"],
        grades=counts["grade"],
        preferences=answers.preferences,
        ratings=answers.ratings,
        by_score=by_score,
    )


def _good(
    rows: Iterator[Row | RowError], checks: RowChecks, left_out: LeftOutRows | None
) -> Iterator[tuple[Row, list[bool]]]:
    """Rows that pass the checks across lines, with what `RowChecks.check` returns for them."""
    for row in rows:
        good, repeated, errors = (None, [], [row]) if isinstance(row, RowError) else checks.check_parts(row)
        for error in errors:
            if left_out is None:
                raise error
            left_out.add(error)
        if good is not None:
            yield good, repeated


def _records(rows: Iterator[tuple[Row, list[bool]]], answers: StagedAnswers) -> Iterator[Record]:
    """Rows of the temporary table, with position 0; repeated ones are left out, and answers go to their own table."""
    for row, repeated in rows:
        if isinstance(row, ImportedPreference | ImportedRating):
            if not repeated[0]:
                answers.add(row)
            continue
        if isinstance(row, ImportedGrade):
            if not repeated[0]:
                yield _grade(row.query_id, row.document_id, row.grade, row.line)
        elif isinstance(row, ImportedCandidate):
            by_score = row.rank is None and row.score is not None
            yield _candidate(row.query_id, row.document_id, row, row.line, by_score=by_score)
        elif isinstance(row, ImportedDocument):
            if not repeated[0]:
                yield _text("document", "", row, row.line)
        else:
            yield from _query_records(row, repeated)


def _query_records(row: ImportedQuery, repeated: list[bool]) -> Iterator[Record]:
    yield _text("query", row.id, row, row.line)
    for document, known in zip(row.documents, repeated, strict=True):
        if not known:
            yield _text("document", row.id, document, row.line)
        yield _candidate(row.id, document.id, document, row.line)
        if document.grade is not None:
            yield _grade(row.id, document.id, document.grade, row.line)


def _text(kind: str, query_id: str, row: ImportedQuery | ImportedDocument, line: int) -> Record:
    is_query = kind == "query"
    domain = row.metadata.get("domain", "") if is_query else None
    domain = domain[:MAX_DOMAIN_CHARACTERS] if isinstance(domain, str) else "" if is_query else None
    document = None if is_query else row.id
    return (0, line, kind, query_id, document, row.text, domain, _json(row.metadata), None, None, None, False)


def _candidate(
    query_id: str, document_id: str, row: ImportedDocument | ImportedCandidate, line: int, *, by_score: bool = False
) -> Record:
    return (0, line, "candidate", query_id, document_id, None, None, None, row.rank, row.score, None, by_score)


def _grade(query_id: str, document_id: str, grade: int, line: int) -> Record:
    return (0, line, "grade", query_id, document_id, None, None, None, None, None, grade, False)


def _json(metadata: Mapping[str, Any]) -> str:
    """The text of a jsonb column. The database refuses a NaN that an importer has let through."""
    return _ENCODER.encode(metadata) if metadata else "{}"


_ENCODER = json.JSONEncoder(ensure_ascii=False)


def _copy(cursor: CursorWrapper, batch: list[Record]) -> None:
    """Copy the batch and empty it."""
    if batch:
        with cursor.copy(_COPY) as copy:
            for record in batch:
                copy.write_row(record)
        batch.clear()


# --- from the temporary table into the project --------------------------------------------

_ADD_QUERIES = """
INSERT INTO labeling_query (project_id, external_id, text, domain, metadata, judged_version)
SELECT %(project)s, query_id, text, domain, metadata, 0 FROM import_row WHERE kind = 'query' ORDER BY position
ON CONFLICT (project_id, external_id) DO NOTHING
"""
_ADD_DOCUMENTS = """
INSERT INTO labeling_document (project_id, external_id, text, metadata)
SELECT %(project)s, document_id, text, metadata FROM import_row WHERE kind = 'document' ORDER BY position
ON CONFLICT (project_id, external_id) DO NOTHING
"""
# Ids are looked up row by row in an index. Joins would need statistics of the rows that this transaction has just added.
_QUERY = "(SELECT id FROM labeling_query WHERE project_id = %(project)s AND external_id = staged.query_id)"
_DOCUMENT = "(SELECT id FROM labeling_document WHERE project_id = %(project)s AND external_id = staged.document_id)"
_ADD_CANDIDATES = f"""
INSERT INTO labeling_candidate (query_id, document_id, first_stage_rank, first_stage_score)
SELECT query_id, document_id, rank, score FROM (
    SELECT {_QUERY} AS query_id, {_DOCUMENT} AS document_id, rank, score, position
    FROM import_row staged WHERE kind = 'candidate' OFFSET 0
) found WHERE query_id IS NOT NULL AND document_id IS NOT NULL ORDER BY position
ON CONFLICT (query_id, document_id) DO NOTHING
"""
_UNKNOWN_CANDIDATES = f"""
SELECT count(*) FROM import_row staged WHERE kind = 'candidate' AND ({_QUERY} IS NULL OR {_DOCUMENT} IS NULL)
"""
# The blanks that `str.strip` removes: texts are compared without the blanks around them.
_BLANKS = "".join(character for character in map(chr, range(1, 0x3001)) if character.isspace())
# Queries or documents that were there before this import, whose ids are at most `last`, with another text or other metadata.
_DIFFERENT = """
SELECT staged.line, staged.{what}_id, known.text <> staged.text
    AND btrim(known.text, %(blanks)s) <> btrim(staged.text, %(blanks)s), known.metadata <> staged.metadata
FROM import_row staged CROSS JOIN LATERAL (
    SELECT text, metadata FROM labeling_{what}
    WHERE project_id = %(project)s AND external_id = staged.{what}_id AND id <= %(last)s OFFSET 0
) known
WHERE staged.kind = '{what}' AND (known.text <> staged.text OR known.metadata <> staged.metadata) ORDER BY staged.position
"""
_LAST_ID = "SELECT COALESCE(max(id), 0) FROM labeling_{what}"
_OF_CANDIDATE = """
FROM import_row staged
JOIN labeling_query query ON query.project_id = %(project)s AND query.external_id = staged.query_id
JOIN labeling_document document ON document.project_id = %(project)s AND document.external_id = staged.document_id
"""
# As trec_eval: highest score first, ties by the document's id, the last one first.
_RANK_BY_SCORE = """
UPDATE import_row staged SET rank = ranked.rank FROM (
    SELECT position, row_number() OVER (PARTITION BY query_id ORDER BY score DESC, document_id COLLATE "C" DESC) AS rank
    FROM import_row WHERE by_score
) ranked WHERE ranked.position = staged.position
"""
_FILL_FIRST_STAGE = f"""
UPDATE labeling_candidate candidate SET first_stage_rank = staged.rank, first_stage_score = staged.score
{_OF_CANDIDATE} WHERE candidate.query_id = query.id AND candidate.document_id = document.id
    AND staged.kind = 'candidate' AND (staged.rank IS NOT NULL OR staged.score IS NOT NULL)
    AND candidate.first_stage_rank IS NULL AND candidate.first_stage_score IS NULL
"""
_OTHER_FIRST_STAGE = f"""
SELECT count(*) {_OF_CANDIDATE}
JOIN labeling_candidate candidate ON candidate.query_id = query.id AND candidate.document_id = document.id
WHERE staged.kind = 'candidate' AND (staged.rank <> candidate.first_stage_rank
    OR staged.score <> candidate.first_stage_score)
"""
_GRADES = f"""
SELECT count(*), count(*) FILTER (WHERE candidate.grade IS NULL),
    count(*) FILTER (WHERE candidate.grade <> staged.grade) {_OF_CANDIDATE}
JOIN labeling_candidate candidate ON candidate.query_id = query.id AND candidate.document_id = document.id
WHERE staged.kind = 'grade'
"""
_SET_GRADES = f"""
UPDATE labeling_candidate candidate SET grade = staged.grade
{_OF_CANDIDATE} WHERE candidate.query_id = query.id AND candidate.document_id = document.id
    AND staged.kind = 'grade' AND candidate.grade IS DISTINCT FROM staged.grade
"""
_FOREIGN_GRADES = """
SELECT EXISTS (SELECT 1 FROM labeling_query WHERE project_id = %(project)s) AND NOT EXISTS (
    SELECT 1 FROM import_row staged JOIN labeling_query query
        ON query.project_id = %(project)s AND query.external_id = staged.query_id WHERE staged.kind = 'grade')
"""
# `xmax` is 0 in a row that was inserted and not updated.
_KEEP_GRADES = """
WITH kept AS (
    INSERT INTO labeling_unmatchedgrade AS present (project_id, query_external_id, document_external_id, grade)
    SELECT %(project)s, staged.query_id, staged.document_id, staged.grade FROM import_row staged
    WHERE staged.kind = 'grade' AND NOT EXISTS (
        SELECT 1 FROM labeling_candidate candidate
        JOIN labeling_query query ON query.id = candidate.query_id
        JOIN labeling_document document ON document.id = candidate.document_id
        WHERE query.project_id = %(project)s AND query.external_id = staged.query_id
          AND document.project_id = %(project)s AND document.external_id = staged.document_id)
    ORDER BY staged.position
    ON CONFLICT (project_id, query_external_id, document_external_id) DO UPDATE SET grade = EXCLUDED.grade
        WHERE present.grade <> EXCLUDED.grade
    RETURNING xmax = 0 AS is_new
)
SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new) FROM kept
"""
# One import at a time in a project: two with the same ids in another order could deadlock.
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('zelo import'), %(project)s::integer)"


def move(
    cursor: CursorWrapper,
    project_id: int,
    staged: Staged,
    file: str,
    left_out: LeftOutRows | None = None,
    *,
    replaces: bool = False,
) -> ImportSummary:
    """Move the temporary table into the project; rows that contradict it are added to `left_out`, or refused.

    `replaces`: rows that differ replace those of the project first, but no text that has judgments.
    """
    project: dict[str, int | str] = {"project": project_id, "blanks": _BLANKS}
    cursor.execute(_LOCK, project)
    queries, known_queries = _add(cursor, _ADD_QUERIES, project, staged.queries, what="query")
    documents, known_documents = _add(cursor, _ADD_DOCUMENTS, project, staged.documents, what="document")
    replaced = 0
    if replaces:
        _refresh_statistics(cursor, staged.rows, _STAGED, *_TEXTS)
        replaced = replace_texts(cursor, project)
    # Compare after the insert, which then sees the rows that another import has committed.
    kept = 0
    for what, last in (("query", known_queries), ("document", known_documents)):
        if last is not None:
            cursor.execute(_DIFFERENT.format(what=what), project | {"last": last})
            different = cursor.fetchall()
            kept += sum(other_metadata and not other_text for _, _, other_text, other_metadata in different)
            other_texts = [(line, name) for line, name, other_text, _ in different if other_text]
            staged = _refuse_other_text(cursor, staged, file, left_out, other_texts, what=what)
    if staged.by_score:
        cursor.execute(_RANK_BY_SCORE)
    candidates = _changed(cursor, _ADD_CANDIDATES, project) if staged.candidates else 0
    _refresh_statistics(cursor, max(queries + documents, candidates), *_TEXTS, "labeling_candidate")
    if staged.grades or staged.preferences or candidates < staged.candidates:
        _refresh_statistics(cursor, staged.rows, _STAGED)
    unknown = 0
    if candidates < staged.candidates:
        unknown = _unknown_candidates(cursor, project, staged, file)
        replaced += replace_first_stage(cursor, project) if replaces else 0
        cursor.execute(_FILL_FIRST_STAGE, project)
        kept += _count(cursor, _OTHER_FIRST_STAGE, project)
    attach_grades(project_id)
    matched, graded, regraded = _set_grades(cursor, project, staged, file)
    return ImportSummary(
        queries=staged.queries,
        documents=staged.documents,
        candidates=staged.candidates,
        grades=staged.grades,
        queries_created=queries,
        documents_created=documents,
        candidates_created=candidates,
        grades_created=graded,
        grades_changed=regraded,
        grades_unmatched=staged.grades - matched,
        candidates_unmatched=unknown,
        kept=kept,
        replaced=replaced,
        left_out=left_out.counted() if left_out is not None else (),
    )


def _add(
    cursor: CursorWrapper, sql: str, project: Mapping[str, Any], staged: int, *, what: str
) -> tuple[int, int | None]:
    """Add new queries or documents; returns how many, and the last id before them if some were there already."""
    if not staged:
        return 0, None
    last = _count(cursor, _LAST_ID.format(what=what), project)
    added = _changed(cursor, sql, project)
    return added, last if added < staged else None


def _unknown_candidates(cursor: CursorWrapper, project: Mapping[str, Any], staged: Staged, file: str) -> int:
    """Return how many candidates have an unknown query or document. Raises ImportFailed if all have."""
    unknown = _count(cursor, _UNKNOWN_CANDIDATES, project)
    if unknown == staged.candidates:
        raise ImportFailed(
            f"none of its candidates ({unknown}) has a query and a document in this project",
            file=file,
            remedy="import the queries and documents first, and check that the ids are the same",
        )
    return unknown


_STAGED = "import_row (position, kind, query_id, document_id, by_score)"  # not the texts, which are long
_TEXTS = ("labeling_query (id, project_id, external_id)", "labeling_document (id, project_id, external_id)")
# A tenth of the usual sample: enough to tell many rows from one. Autovacuum takes the usual one after the commit.
_SAMPLE = 10


def _refresh_statistics(cursor: CursorWrapper, rows: int, *tables: str) -> None:
    """Update the planner's statistics after many inserts.

    Autovacuum does this only after the commit. Until then the planner expects one row of this
    transaction in a join: 32 s instead of 0.3.
    """
    if rows >= MANY_ROWS:
        cursor.execute(
            f"SET LOCAL default_statistics_target = {_SAMPLE}; ANALYZE {', '.join(tables)}; "
            "SET LOCAL default_statistics_target = DEFAULT"
        )


def _changed(cursor: CursorWrapper, sql: str, parameters: Mapping[str, Any]) -> int:
    cursor.execute(sql, parameters)
    return cursor.rowcount


def _count(cursor: CursorWrapper, sql: str, parameters: Mapping[str, Any]) -> int:
    cursor.execute(sql, parameters)
    return int(cursor.fetchone()[0])


_TEXT_FIELDS = {"query": "query.query", "document": "content"}


def _refuse_other_text(
    cursor: CursorWrapper,
    staged: Staged,
    file: str,
    left_out: LeftOutRows | None,
    found: Sequence[tuple[int, str]],
    *,
    what: str,
) -> Staged:
    """Raise ImportFailed for the first (line, id) of known ids with another text, or leave out their candidates; returns the new counts."""
    if not found:
        return staged
    field = _TEXT_FIELDS[what]
    for line, external_id in found:
        problem = f"the {what} {quoted(external_id)} has a different text in the project"
        remedy = "give the changed text a new id, or import into a new project"
        if left_out is None:
            raise ImportFailed(problem, file=file, line=line, field=field, remedy=remedy)
        expectation = f"the text that the {what} has in the project"
        left_out.add(RowError(problem, line=line, field=field, expectation=expectation, remedy=remedy))
    sql = f"DELETE FROM import_row WHERE kind = 'candidate' AND {what}_id = ANY(%(ids)s)"
    removed = _changed(cursor, sql, {"ids": [external_id for _, external_id in found]})
    candidates = staged.candidates - removed
    if what == "query":
        return replace(staged, queries=staged.queries - len(found), candidates=candidates)
    return replace(staged, documents=staged.documents - len(found), candidates=candidates)


def _set_grades(cursor: CursorWrapper, project: Mapping[str, Any], staged: Staged, file: str) -> tuple[int, int, int]:
    """Store the grades; returns how many have a candidate, how many are new, and how many replaced another."""
    if not staged.grades:
        return 0, 0, 0
    cursor.execute(_FOREIGN_GRADES, project)
    if cursor.fetchone()[0]:
        raise ImportFailed(
            f"none of its grades ({staged.grades}) belongs to a query of this project",
            file=file,
            remedy="check that its query ids are those of the project, or import the grades before the queries",
        )
    cursor.execute(_GRADES, project)
    matched, graded, regraded = cursor.fetchone()
    cursor.execute(_SET_GRADES, project)
    kept = changed = 0
    if matched < staged.grades:
        cursor.execute(_KEEP_GRADES, project)
        kept, changed = cursor.fetchone()
    return matched, graded + kept, regraded + changed
