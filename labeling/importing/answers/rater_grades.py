"""Stores the grades of single raters, and combines those of people into the project's grades.

The rule: a document's grade is the lower median of the grades that people gave it, so that it is a grade that somebody gave,
and one outlier among three changes nothing. Grades of models are kept and not combined.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db.backends.utils import CursorWrapper

from labeling.importing.answers.annotators import imported_annotators
from labeling.models import Project

_SOURCES = """
SELECT DISTINCT annotator, annotator_key, by_person FROM import_answer WHERE grade IS NOT NULL ORDER BY 1, 2, 3
"""
# With `last` the later line wins; a mean is no grade, so that their lower median stands for it.
_RESOLVED = """
SELECT {distinct} source.id AS annotator_id, staged.query_a,
    staged.document_a, {grade} AS grade
FROM import_answer staged
JOIN unnest(%(names)s::text[], %(keys)s::text[], %(people)s::boolean[], %(ids)s::bigint[]) AS source (name, key, person, id)
    ON staged.annotator = source.name AND staged.annotator_key = source.key AND staged.by_person = source.person
WHERE staged.grade IS NOT NULL
"""
_LAST = (
    _RESOLVED.format(distinct="DISTINCT ON (source.id, staged.query_a, staged.document_a)", grade="staged.grade")
    + " ORDER BY source.id, staged.query_a, staged.document_a, position DESC"
)
_MEDIAN = (
    _RESOLVED.format(distinct="", grade="percentile_disc(0.5) WITHIN GROUP (ORDER BY staged.grade)")
    + " GROUP BY source.id, staged.query_a, staged.document_a"
)
_STORE = """
WITH stored AS (
    INSERT INTO labeling_ratergrade AS present (annotator_id, query_external_id, document_external_id, grade)
    SELECT annotator_id, query_a, document_a, grade FROM ({resolved}) AS resolved
    ON CONFLICT (annotator_id, query_external_id, document_external_id) DO UPDATE SET grade = EXCLUDED.grade
        WHERE present.grade <> EXCLUDED.grade
    RETURNING xmax = 0 AS is_new
)
SELECT count(*) FILTER (WHERE is_new), count(*) FILTER (WHERE NOT is_new) FROM stored
"""
_COMBINE = """
INSERT INTO import_row (position, line, kind, query_id, document_id, grade, by_score)
SELECT 0, 0, 'grade', given.query_external_id, given.document_external_id,
    percentile_disc(0.5) WITHIN GROUP (ORDER BY given.grade), false
FROM labeling_ratergrade given JOIN labeling_annotator rater ON rater.id = given.annotator_id
WHERE rater.project_id = %(project)s AND rater.is_person AND EXISTS (
    SELECT 1 FROM import_answer staged WHERE staged.grade IS NOT NULL AND staged.by_person
        AND staged.query_a = given.query_external_id AND staged.document_a = given.document_external_id)
    AND NOT EXISTS (
    SELECT 1 FROM import_row own WHERE own.kind = 'grade' AND own.query_id = given.query_external_id
        AND own.document_id = given.document_external_id)
GROUP BY given.query_external_id, given.document_external_id
"""


@dataclass(frozen=True, slots=True)
class StoredRatings:
    """Grades of raters that are new or changed, and how many combined grades were added to the temporary table."""

    created: int = 0
    changed: int = 0
    combined: int = 0


def store_ratings(cursor: CursorWrapper, project: Project, *, repeated: str) -> StoredRatings:
    """Store the raters' grades of the temporary table, and put the grades of the project that follow into `import_row`."""
    cursor.execute(_SOURCES)
    found = imported_annotators(project, cursor.fetchall())
    names, keys, people = zip(*found, strict=True)
    cursor.execute(
        _STORE.format(resolved=_MEDIAN if repeated == "mean" else _LAST),
        {"names": list(names), "keys": list(keys), "people": list(people), "ids": list(found.values())},
    )
    created, changed = cursor.fetchone()
    cursor.execute(_COMBINE, {"project": project.pk})
    return StoredRatings(created, changed, cursor.rowcount)
