"""Raters' grades in a deletion: what they are of, and the project's grades that follow from the rest.

A document's grade is the lower median of people's grades (`labeling.importing.answers.rater_grades`), so it changes with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connection
from django.db.models import QuerySet

from labeling.models import Project, RaterGrade

_REST = """
WITH rest AS (
    SELECT gone.query_external_id, gone.document_external_id,
        percentile_disc(0.5) WITHIN GROUP (ORDER BY given.grade) AS grade
    FROM (SELECT DISTINCT row.query_external_id, row.document_external_id FROM labeling_ratergrade row
          JOIN labeling_annotator rater ON rater.id = row.annotator_id AND rater.is_person WHERE row.id = ANY(%(ids)s)) gone
    LEFT JOIN (labeling_ratergrade given
               JOIN labeling_annotator rater ON rater.id = given.annotator_id AND rater.is_person
                   AND rater.project_id = %(project)s)
        ON given.query_external_id = gone.query_external_id
        AND given.document_external_id = gone.document_external_id AND given.id <> ALL(%(ids)s)
    GROUP BY 1, 2
)
"""
_CANDIDATES = f"""
{_REST}
UPDATE labeling_candidate candidate SET grade = rest.grade
FROM rest JOIN labeling_query query ON query.project_id = %(project)s AND query.external_id = rest.query_external_id
JOIN labeling_document document ON document.project_id = %(project)s AND document.external_id = rest.document_external_id
WHERE candidate.query_id = query.id AND candidate.document_id = document.id
"""
_UNMATCHED = f"""
{_REST}, removed AS (
    DELETE FROM labeling_unmatchedgrade old USING rest
    WHERE old.project_id = %(project)s AND old.query_external_id = rest.query_external_id
        AND old.document_external_id = rest.document_external_id AND rest.grade IS NULL
)
UPDATE labeling_unmatchedgrade old SET grade = rest.grade FROM rest
WHERE old.project_id = %(project)s AND old.query_external_id = rest.query_external_id
    AND old.document_external_id = rest.document_external_id AND rest.grade IS NOT NULL
"""


def rater_grades(project: Project, path: str, external_ids: Any) -> QuerySet[RaterGrade]:
    """The raters' grades of these queries or documents (`path`)."""
    return RaterGrade.objects.filter(**{"annotator__project": project, f"{path}_external_id__in": external_ids})


def combine_the_rest(project: Project, grade_ids: Sequence[int]) -> None:
    """Set the project's grades to what people's other grades give; without any, there is no grade any more."""
    with connection.cursor() as cursor:
        for statement in (_CANDIDATES, _UNMATCHED):
            cursor.execute(statement, {"ids": list(grade_ids), "project": project.pk})
