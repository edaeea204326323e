"""Stores the preferences of a file as judgments: new ones are added, changed ones supersede, known ones stay.

They leave the temporary table `import_answer` by way of `import_vote`, which names candidates and the order of a pair.
Answers of an annotator who answered here by other means change nothing where they are equal, and never replace his.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db.backends.utils import CursorWrapper

from labeling.importing.answers.annotators import imported_annotators
from labeling.importing.left_out import LeftOutRows
from labeling.importing.lines import RowError
from labeling.importing.strict_json import printable, quoted
from labeling.judgments import record_judgments, supersede_judgments
from labeling.models import Project
from labeling.pairs import store_pairs
from labeling.records import AnswerKind, NewJudgment

AT_ONCE = 5_000

_SIDES = """
LEFT JOIN labeling_query query_{side} ON query_{side}.project_id = %(project)s
    AND query_{side}.external_id = staged.query_{side}
LEFT JOIN labeling_document document_{side} ON document_{side}.project_id = %(project)s
    AND document_{side}.external_id = staged.document_{side}
LEFT JOIN labeling_candidate {side} ON {side}.query_id = query_{side}.id AND {side}.document_id = document_{side}.id
"""
_JOINED = f"FROM import_answer staged {_SIDES.format(side='a')} {_SIDES.format(side='b')} WHERE staged.grade IS NULL"
_VOTES = f"""
DROP TABLE IF EXISTS pg_temp.import_vote;
CREATE TEMPORARY TABLE import_vote ON COMMIT DROP AS
SELECT staged.position, staged.annotator, staged.annotator_key, staged.by_person, NULL::bigint AS annotator_id,
    LEAST(a.id, b.id) AS a, GREATEST(a.id, b.id) AS b,
    CASE WHEN a.query_id = b.query_id THEN a.query_id END AS query_id,
    staged.swapped <> (a.id > b.id) AS swapped, staged.kind,
    CASE WHEN a.id > b.id THEN 1.0 - staged.preference ELSE staged.preference END AS preference, staged.rationale,
    NULL::bigint AS replaces
{_JOINED} AND a.id IS NOT NULL AND b.id IS NOT NULL AND a.id <> b.id
"""
_UNKNOWN = f"""
SELECT staged.line, staged.query_a, staged.query_b, staged.document_a, staged.document_b,
    query_a.id IS NULL, query_b.id IS NULL, document_a.id IS NULL, document_b.id IS NULL, a.id IS NULL
{_JOINED} AND (a.id IS NULL OR b.id IS NULL) ORDER BY staged.position
"""
# An annotator's several answers to one question: the last one alone, or their mean.
_ONLY_LAST = """
DELETE FROM import_vote earlier USING import_vote later
WHERE later.annotator = earlier.annotator AND later.annotator_key = earlier.annotator_key
    AND later.by_person = earlier.by_person AND later.a = earlier.a AND later.b = earlier.b
    AND later.swapped = earlier.swapped AND later.position > earlier.position
"""
# A person has one answer to a pair, whichever side each document stood on: the mean of those to both orders.
_MERGE = """
CREATE TEMPORARY TABLE import_merged ON COMMIT DROP AS
SELECT min(position) AS position, annotator, annotator_key, by_person, NULL::bigint AS annotator_id, a, b, query_id,
    (array_agg(swapped ORDER BY position))[1] AS swapped,
    CASE WHEN bool_or(kind = 'preference') THEN 'preference' ELSE (array_agg(kind ORDER BY position DESC))[1] END AS kind,
    CASE WHEN min(preference) = max(preference) THEN min(preference)
         ELSE avg(preference) END AS preference,
    COALESCE((array_agg(rationale ORDER BY position DESC) FILTER (WHERE rationale <> ''))[1], '') AS rationale,
    NULL::bigint AS replaces
FROM import_vote
GROUP BY annotator, annotator_key, by_person, a, b, query_id, (NOT by_person AND swapped);
DROP TABLE import_vote;
ALTER TABLE import_merged RENAME TO import_vote
"""
_LIVE = """
labeling_annotator present JOIN labeling_live_judgment live ON live.annotator_id = present.id
JOIN labeling_pair pair ON pair.id = live.pair_id
"""
_SAME = """
pair.a_id = vote.a AND pair.b_id = vote.b AND (vote.by_person OR live.swapped = vote.swapped)
"""
# As the same name answered here, by whatever way the answer came.
_DROP_KNOWN = f"""
DELETE FROM import_vote vote USING {_LIVE} LEFT JOIN labeling_rationale reason ON reason.judgment_id = live.id
WHERE present.project_id = %(project)s AND present.name = vote.annotator AND present.is_person = vote.by_person
    AND {_SAME} AND live.kind = vote.kind AND live.preference IS NOT DISTINCT FROM vote.preference
    AND (vote.rationale = '' OR vote.rationale = reason.text)
"""
_SOURCES = "SELECT DISTINCT annotator, annotator_key, by_person FROM import_vote ORDER BY 1, 2, 3"
_SET_ANNOTATORS = """
UPDATE import_vote vote SET annotator_id = source.id
FROM unnest(%(names)s::text[], %(keys)s::text[], %(people)s::boolean[], %(ids)s::bigint[]) AS source (name, key, person, id)
WHERE vote.annotator = source.name AND vote.annotator_key = source.key AND vote.by_person = source.person
"""
_SET_REPLACED = f"""
UPDATE import_vote vote SET replaces = live.id FROM {_LIVE} WHERE live.annotator_id = vote.annotator_id AND {_SAME}
"""
_NEXT = """
SELECT position, a, b, query_id, annotator_id, swapped, preference, kind, rationale, replaces
FROM import_vote WHERE position > %(after)s ORDER BY position LIMIT %(most)s
"""


@dataclass(frozen=True, slots=True)
class StoredPreferences:
    """Distinct judgments of a file, the new ones among them, and those that superseded another answer."""

    judgments: int = 0
    created: int = 0
    changed: int = 0


def store_preferences(
    cursor: CursorWrapper, project: Project, left_out: LeftOutRows | None, *, repeated: str
) -> StoredPreferences:
    """Store what the temporary table holds. Raises RowError for an unknown query or document unless `left_out` takes it."""
    parameters = {"project": project.pk}
    cursor.execute(_UNKNOWN, parameters)
    for row in cursor.fetchall():
        error = _unknown(*row)
        if left_out is None:
            raise error
        left_out.add(error)
    cursor.execute(_VOTES, parameters)
    cursor.execute("ANALYZE import_vote")
    if repeated == "last":
        cursor.execute(_ONLY_LAST)
    cursor.execute(_MERGE)
    cursor.execute("ANALYZE import_vote")
    judgments = _count(cursor)
    cursor.execute(_DROP_KNOWN, parameters)
    if not _count(cursor):
        return StoredPreferences(judgments)
    _find_annotators(cursor, project)
    cursor.execute(_SET_REPLACED)
    created = changed = 0
    for rows in _batches(cursor):
        replaced = [row[9] for row in rows if row[9] is not None]
        supersede_judgments(replaced)
        stored = record_judgments(_judgments(rows)).stored
        changed += len(replaced)
        created += stored - len(replaced)
    return StoredPreferences(judgments, created, changed)


def _count(cursor: CursorWrapper) -> int:
    cursor.execute("SELECT count(*) FROM import_vote")
    return int(cursor.fetchone()[0])


def _find_annotators(cursor: CursorWrapper, project: Project) -> None:
    cursor.execute(_SOURCES)
    found = imported_annotators(project, cursor.fetchall())
    names, keys, people = zip(*found, strict=True)
    cursor.execute(
        _SET_ANNOTATORS,
        {"names": list(names), "keys": list(keys), "people": list(people), "ids": list(found.values())},
    )


def _batches(cursor: CursorWrapper) -> Iterator[list[tuple[Any, ...]]]:
    after = -1
    while True:
        cursor.execute(_NEXT, {"after": after, "most": AT_ONCE})
        rows = cursor.fetchall()
        if not rows:
            return
        yield rows
        after = rows[-1][0]


def _judgments(rows: list[tuple[Any, ...]]) -> list[NewJudgment]:
    pairs = store_pairs([row[1] for row in rows], [row[2] for row in rows], [row[3] for row in rows])
    return [
        NewJudgment(
            pair_id=pair,
            annotator_id=annotator,
            swapped=swapped,
            preference=preference,
            kind=AnswerKind(kind),
            rationale=rationale,
        )
        for pair, (_, _, _, _, annotator, swapped, preference, kind, rationale, _) in zip(pairs, rows, strict=True)
    ]


def _unknown(
    line: int,
    query_a: str,
    query_b: str,
    document_a: str,
    document_b: str,
    no_query_a: bool,
    no_query_b: bool,
    no_document_a: bool,
    no_document_b: bool,
    no_a: bool,
) -> RowError:
    """The error of an answer whose query, document or candidate the project lacks, in this order."""
    for missing, what, name in (
        (no_query_a, "query", query_a),
        (no_query_b, "query", query_b),
        (no_document_a, "document", document_a),
        (no_document_b, "document", document_b),
    ):
        if missing:
            return unknown_error(line, what, name)
    query, document = (query_a, document_a) if no_a else (query_b, document_b)
    return unknown_error(line, "candidate", document, query)


def unknown_error(line: int, what: str, name: str, query: str = "") -> RowError:
    """The error of an answer that names a query, document or candidate that the project lacks."""
    shown = printable(name)
    problem = (
        f"the document {shown!r} is not a candidate of the query {quoted(query)}"
        if query
        else f"the project has no {what} {shown!r}"
    )
    remedy = "import it as a candidate first" if query else "import it first, and check that the ids are the same"
    return RowError(
        problem,
        line=line,
        field=what,
        expectation=f"a {what} of the project",
        remedy=f"{remedy}, or leave bad rows out",
    )
