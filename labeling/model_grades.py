"""Stores the grades that models gave; a grade that is there stays."""

from __future__ import annotations

from collections.abc import Sequence

from labeling.prepared import Cursor
from labeling.records import PointwiseGrade

_STORE = """
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
        cursor.execute(_STORE, columns)
