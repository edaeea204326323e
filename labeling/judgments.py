"""Stores, supersedes and restores judgments, and stores the grades of models; no other code writes them.

`record_judgments` joins the caller's transaction, so that a finished task or a person's answer commits together with
its judgments. It raises the version of every query it touches, from which the rater knows which scores are stale, and
sends `judgments_recorded` after commit. Superseded judgments stay in the table and are no longer live.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from django.db import connection, transaction
from django.db.models import F

from labeling.database import Cursor, PreparedCursor, names_and_places, prepared_cursor
from labeling.models import Judgment, Project
from labeling.records import NewJudgment, PointwiseGrade
from labeling.signals import judgments_recorded


@dataclass(frozen=True, slots=True)
class Recorded:
    """The result of `record_judgments`. `duplicates` already had a live judgment, which stays; `ids` are the new ones."""

    stored: int
    duplicates: int
    query_ids: tuple[int, ...]
    project_ids: tuple[int, ...]
    ids: tuple[int, ...] = ()


# Whether a judgment's pair is a cross-query pair.
_ACROSS = "(SELECT pair.query_id IS NULL FROM labeling_pair pair WHERE pair.id = labeling_judgment.pair_id)"

_INSERT = f"""
INSERT INTO labeling_judgment (pair_id, annotator_id, by_person, swapped, kind, preference, truncated, call, call_size,
                               place_a, place_b)
SELECT answer.pair_id, answer.annotator_id, annotator.is_person, answer.swapped, (%s::text[])[answer.kind],
       CASE WHEN answer.is_given THEN answer.preference END, answer.truncated, answer.call, answer.call_size, answer.place_a,
       answer.place_b
FROM unnest(%s::bigint[], %s::bigint[], %s::boolean[], %s::bigint[], %s::float8[], %s::boolean[], %s::boolean[], %s::bigint[],
            %s::smallint[], %s::smallint[], %s::smallint[])
     WITH ORDINALITY AS answer (pair_id, annotator_id, swapped, kind, preference, is_given, truncated, call, call_size,
                                place_a, place_b, position)
JOIN labeling_annotator annotator ON annotator.id = answer.annotator_id
ORDER BY answer.position
ON CONFLICT DO NOTHING
RETURNING id, pair_id, annotator_id, swapped, {_ACROSS}
"""

_SUPERSEDE = f"""
UPDATE labeling_judgment SET superseded_at = statement_timestamp()
WHERE id = ANY(%s) AND superseded_at IS NULL RETURNING pair_id, {_ACROSS}
"""

# Locks rows in id order, so that two writers cannot deadlock.
_RAISE_VERSIONS = """
WITH touched AS (
    SELECT id FROM labeling_query
    WHERE id IN (SELECT query_id FROM labeling_pair WHERE id = ANY(%s) AND query_id IS NOT NULL)
    ORDER BY id FOR NO KEY UPDATE
)
UPDATE labeling_query query SET judged_version = judged_version + 1
FROM touched WHERE query.id = touched.id
RETURNING query.id, query.project_id
"""

_CROSS_QUERY_PROJECTS = """
SELECT DISTINCT query.project_id
FROM labeling_pair pair
JOIN labeling_candidate candidate ON candidate.id = pair.a_id
JOIN labeling_query query ON query.id = candidate.query_id
WHERE pair.id = ANY(%s) AND pair.query_id IS NULL
ORDER BY 1
"""


def record_judgments(judgments: Sequence[NewJudgment]) -> Recorded:
    """Store the judgments that have no live one yet; the first one stays. Raises IntegrityError for an unknown pair."""
    if not judgments:
        return Recorded(stored=0, duplicates=0, query_ids=(), project_ids=())
    # Sorted, so that two writers lock common rows in the same order.
    ordered = sorted(judgments, key=lambda j: (j.pair_id, j.annotator_id, j.swapped))
    with transaction.atomic(savepoint=False), prepared_cursor() as cursor:
        stored, across = _insert(cursor, ordered)
        queries, projects = _changed(cursor, across)
        _insert_rationales(cursor, ordered, stored)
    return Recorded(
        stored=len(stored),
        duplicates=len(judgments) - len(stored),
        query_ids=queries,
        project_ids=projects,
        ids=tuple(sorted(stored.values())),
    )


def supersede_judgments(judgment_ids: Sequence[int]) -> int:
    """Supersede live judgments, so that their annotators may answer again; returns how many were live."""
    with transaction.atomic(savepoint=False), connection.cursor() as cursor:
        cursor.execute(_SUPERSEDE, [list(judgment_ids)])
        rows = cursor.fetchall()
        _changed(cursor, dict(rows))
    return len(rows)


def restore_judgments(judgment_ids: Sequence[int]) -> int:
    """Make superseded judgments live again, unless a newer one is live; returns how many became live."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_RESTORE, [list(judgment_ids)])
        rows = cursor.fetchall()
        _changed(cursor, dict(rows))
    return len(rows)


_RESTORE = f"""
UPDATE labeling_judgment SET superseded_at = NULL
WHERE id = ANY(%s) AND superseded_at IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM labeling_live_judgment newer
    WHERE newer.pair_id = labeling_judgment.pair_id AND newer.annotator_id = labeling_judgment.annotator_id
      AND (labeling_judgment.by_person OR newer.swapped = labeling_judgment.swapped))
RETURNING pair_id, {_ACROSS}
"""


def _changed(cursor: Cursor, across: dict[int, bool]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Raise the versions of queries and calibrations, and send `judgments_recorded` after commit.

    `across`: pair to whether it is a cross-query pair. Returns the changed queries and projects.
    """
    touched = raise_versions(cursor, sorted(pair for pair in across if not across[pair]))
    calibrations = raise_calibrations(cursor, sorted(pair for pair in across if across[pair]))
    projects = tuple(sorted({project for _, project in touched} | calibrations))
    queries = tuple(sorted(query for query, _ in touched))
    if projects:
        # Robust: an exception of a receiver must not reach the caller, whose transaction has committed.
        transaction.on_commit(
            lambda: judgments_recorded.send(Judgment, project_ids=projects, query_ids=queries), robust=True
        )
    return queries, projects


def _insert(
    cursor: PreparedCursor, judgments: Sequence[NewJudgment]
) -> tuple[dict[tuple[int, int, bool], int], dict[int, bool]]:
    """Insert; returns the new ids by (pair, annotator, swapped), and pair to whether it is a cross-query pair."""
    kinds, kind = names_and_places([j.kind.value for j in judgments])
    given = [j.preference for j in judgments]
    cursor.execute(
        _INSERT,
        [
            kinds,
            np.array([j.pair_id for j in judgments], dtype=np.int64),
            np.array([j.annotator_id for j in judgments], dtype=np.int64),
            np.array([j.swapped for j in judgments], dtype=np.bool_),
            kind,
            np.array(given, dtype=np.float64),  # None becomes NaN, which counts as little
            np.array([each is not None for each in given], dtype=np.bool_),
            np.array([j.truncated for j in judgments], dtype=np.bool_),
            *_places(judgments),
        ],
    )
    rows = cursor.fetchall()
    ids = {(pair, annotator, swapped): row_id for row_id, pair, annotator, swapped, _ in rows}
    return ids, {row[1]: bool(row[4]) for row in rows}


def _places(judgments: Sequence[NewJudgment]) -> list[list[int | None] | None]:
    """Call, its size and the two places of each answer; None, which stands for NULL in every row, where none is about a set."""
    if all(j.places is None for j in judgments):
        return [None] * 4
    return [[getattr(j.places, name, None) for j in judgments] for name in ("call", "size", "a", "b")]


def raise_versions(cursor: Cursor, pair_ids: Sequence[int]) -> list[tuple[int, int]]:
    """Raise the version of the queries of these pairs; returns (query, project) of each."""
    if not pair_ids:
        return []
    cursor.execute(_RAISE_VERSIONS, [list(pair_ids)])
    return cursor.fetchall()


def raise_calibrations(cursor: Cursor, pair_ids: Sequence[int]) -> set[int]:
    """Raise the calibration version of the projects of cross-query pairs; returns the projects."""
    if not pair_ids:
        return set()
    cursor.execute(_CROSS_QUERY_PROJECTS, [list(pair_ids)])
    projects = {row[0] for row in cursor.fetchall()}
    if projects:
        Project.with_archived.filter(pk__in=projects).update(calibration_version=F("calibration_version") + 1)
    return projects


def _insert_rationales(
    cursor: Cursor, judgments: Sequence[NewJudgment], stored: dict[tuple[int, int, bool], int]
) -> None:
    explained = [
        (stored[j.pair_id, j.annotator_id, j.swapped], j.rationale)
        for j in judgments
        if j.rationale and (j.pair_id, j.annotator_id, j.swapped) in stored
    ]
    if explained:
        cursor.execute(
            "INSERT INTO labeling_rationale (judgment_id, text) SELECT * FROM unnest(%s::bigint[], %s::text[]) "
            "ON CONFLICT DO NOTHING",
            [[row_id for row_id, _ in explained], [text for _, text in explained]],
        )


_STORE_GRADES = """
INSERT INTO labeling_modelgrade (annotator_id, candidate_id, value)
SELECT DISTINCT ON (grade.annotator, candidate.id) grade.annotator, candidate.id, grade.value
FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::float8[]) AS grade (annotator, query, document, value)
JOIN labeling_candidate candidate ON candidate.query_id = grade.query AND candidate.document_id = grade.document
ORDER BY 1, 2
ON CONFLICT DO NOTHING
"""


def store_model_grades(cursor: Cursor, grades: Sequence[tuple[int, PointwiseGrade]]) -> None:
    """Store (annotator, grade) of each candidate that still exists."""
    if grades:
        columns = [[judge for judge, _ in grades]]
        columns += [[getattr(grade, name) for _, grade in grades] for name in ("query_id", "document_id", "value")]
        cursor.execute(_STORE_GRADES, columns)
