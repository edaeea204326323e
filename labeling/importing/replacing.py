"""Replaces texts, metadata and first-stage ranks of a project by those of the temporary table of an import.

A text with judgments stays: they were given for the old one. `labeling.importing.staging` then refuses it by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.backends.utils import CursorWrapper

_JUDGED = """
EXISTS (
    SELECT 1 FROM labeling_candidate candidate
    JOIN labeling_pair pair ON pair.a_id = candidate.id OR pair.b_id = candidate.id
    JOIN labeling_judgment judgment ON judgment.pair_id = pair.id WHERE candidate.{column} = present.id)
"""
_CHANGED = f"""
present.project_id = %(project)s AND present.external_id = staged.{{name}}_id AND staged.kind = '{{name}}'
    AND (present.text <> staged.text OR present.metadata <> staged.metadata)
    AND (btrim(present.text, %(blanks)s) = btrim(staged.text, %(blanks)s) OR NOT {_JUDGED})
"""
_QUERIES = f"""
UPDATE labeling_query present SET text = staged.text, domain = staged.domain, metadata = staged.metadata
FROM import_row staged WHERE {_CHANGED.format(name="query", column="query_id")}
"""
_DOCUMENTS = f"""
UPDATE labeling_document present SET text = staged.text, metadata = staged.metadata
FROM import_row staged WHERE {_CHANGED.format(name="document", column="document_id")}
"""
_FIRST_STAGE = """
UPDATE labeling_candidate present SET first_stage_rank = COALESCE(staged.rank, present.first_stage_rank),
    first_stage_score = COALESCE(staged.score, present.first_stage_score)
FROM import_row staged
JOIN labeling_query query ON query.project_id = %(project)s AND query.external_id = staged.query_id
JOIN labeling_document document ON document.project_id = %(project)s AND document.external_id = staged.document_id
WHERE staged.kind = 'candidate' AND present.query_id = query.id AND present.document_id = document.id
    AND (staged.rank <> present.first_stage_rank OR staged.score <> present.first_stage_score)
"""


def replace_texts(cursor: CursorWrapper, project: Mapping[str, Any]) -> int:
    """Replace texts without judgments, and metadata; returns how many queries and documents changed."""
    return _changed(cursor, _QUERIES, project) + _changed(cursor, _DOCUMENTS, project)


def replace_first_stage(cursor: CursorWrapper, project: Mapping[str, Any]) -> int:
    """Replace first-stage ranks and scores where the file has others; returns how many candidates changed."""
    return _changed(cursor, _FIRST_STAGE, project)


def _changed(cursor: CursorWrapper, sql: str, parameters: Mapping[str, Any]) -> int:
    cursor.execute(sql, parameters)
    return cursor.rowcount
