"""Grades of documents that are not candidates: kept by the imported ids, and moved to candidates once these exist.

`labeling.importing.staging` keeps them; everything that adds candidates calls `attach_grades`.
"""

from __future__ import annotations

from django.db import connection

from labeling.models import UnmatchedGrade

_ATTACH = """
WITH moved AS (
    DELETE FROM labeling_unmatchedgrade kept USING labeling_query query, labeling_document document,
        labeling_candidate candidate
    WHERE kept.project_id = %(project)s AND query.project_id = %(project)s AND document.project_id = %(project)s
      AND query.external_id = kept.query_external_id AND document.external_id = kept.document_external_id
      AND candidate.query_id = query.id AND candidate.document_id = document.id
    RETURNING candidate.id, kept.grade
)
UPDATE labeling_candidate candidate SET grade = moved.grade FROM moved
WHERE candidate.id = moved.id AND candidate.grade IS NULL
"""


def attach_grades(project_id: int) -> int:
    """Give new candidates the grades that were kept for them; returns how many got one."""
    if not UnmatchedGrade.objects.filter(project_id=project_id).exists():
        return 0
    with connection.cursor() as cursor:
        cursor.execute(_ATTACH, {"project": project_id})
        return cursor.rowcount
