"""The check of a preview: finds the answers of a file that a project can take, and stores nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from django.db import connection

from labeling.importing.answers.preferences import unknown_error
from labeling.importing.answers.rows import ImportedPreference
from labeling.importing.formats import Row, RowError
from labeling.models import Project
from labeling.records import ImportedCandidate, ImportedQuery

AT_ONCE = 2_000
_MISSING = """
SELECT asked.place, query.id IS NULL, document.id IS NULL
FROM unnest(%(queries)s::text[], %(documents)s::text[]) WITH ORDINALITY AS asked (query, document, place)
LEFT JOIN labeling_query query ON query.project_id = %(project)s AND query.external_id = asked.query
LEFT JOIN labeling_document document ON document.project_id = %(project)s AND document.external_id = asked.document
LEFT JOIN labeling_candidate candidate ON candidate.query_id = query.id AND candidate.document_id = document.id
WHERE candidate.id IS NULL ORDER BY 1
"""


def with_known_answers(project: Project, rows: Iterator[Row | RowError]) -> Iterator[Row | RowError]:
    """The same rows, with errors in place of answers about what neither the project nor the file so far has as candidates."""
    own: set[bytes] = set()
    waiting: list[ImportedPreference] = []
    for row in rows:
        if isinstance(row, ImportedPreference):
            waiting.append(row)
            if len(waiting) >= AT_ONCE:
                yield from _checked(project, waiting, own)
                waiting.clear()
            continue
        if isinstance(row, ImportedCandidate):
            own.add(_digest(row.query_id, row.document_id))
        elif isinstance(row, ImportedQuery):
            own.update(_digest(row.id, each.id) for each in row.documents)
        yield row
    yield from _checked(project, waiting, own)


def _checked(
    project: Project, rows: Sequence[ImportedPreference], own: set[bytes]
) -> Iterator[ImportedPreference | RowError]:
    sides = [side for row in rows for side in ((row.query_id, row.a_id), (row.query_b, row.b_id))]
    with connection.cursor() as cursor:
        cursor.execute(
            _MISSING,
            {"project": project.pk, "queries": [side[0] for side in sides], "documents": [side[1] for side in sides]},
        )
        missing = {place - 1: (no_query, no_document) for place, no_query, no_document in cursor.fetchall()}
    for number, row in enumerate(rows):
        lacking = [
            place for place in (2 * number, 2 * number + 1) if place in missing and _digest(*sides[place]) not in own
        ]
        yield row if not lacking else _error(row, sides[lacking[0]], *missing[lacking[0]])


def _error(row: ImportedPreference, side: tuple[str, str], no_query: bool, no_document: bool) -> RowError:
    query, document = side
    if no_query:
        return unknown_error(row.line, "query", query)
    if no_document:
        return unknown_error(row.line, "document", document)
    return unknown_error(row.line, "candidate", document, query)


def _digest(query: str, document: str) -> bytes:
    return hashlib.blake2b(f"{query}\x00{document}".encode("utf-8", "surrogatepass"), digest_size=12).digest()
