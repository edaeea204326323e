"""Grades of a query's documents that are no rows of a snapshot: no candidates, or candidates that were left out of it.

They count as relevant and not retrieved, except by a run file that names them. `scoring.snapshots.freeze` writes them.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import numpy.typing as npt
from django.db import connection

from labeling.records import IntArray

_KEPT = """
SELECT query.id, kept.document_external_id, kept.grade, NULL::bigint
FROM labeling_unmatchedgrade kept JOIN labeling_query query
    ON query.project_id = kept.project_id AND query.external_id = kept.query_external_id
WHERE query.id = ANY(%(queries)s)
UNION ALL
SELECT candidate.query_id, document.external_id, candidate.grade, candidate.id
FROM labeling_candidate candidate JOIN labeling_document document ON document.id = candidate.document_id
WHERE candidate.query_id = ANY(%(proving)s) AND candidate.grade IS NOT NULL
"""


def other_grades(
    candidates: IntArray, queries: IntArray, proves: npt.NDArray[np.bool_], part: slice
) -> tuple[list[list[int]], list[list[str]]]:
    """Grades and imported ids of such documents for the query of each row of `part`, in the order of the ids.

    `candidates`, `queries` and `proves` (whether the query is in an evaluation split) describe all rows of the snapshot. In
    the other splits candidates are left out by filters, on purpose.
    """
    own = np.isin(queries, queries[part])
    found = _by_query(
        np.unique(queries[part]), proving=np.unique(queries[own & proves]), rows=set(candidates[own].tolist())
    )
    of_rows = [found.get(each, []) for each in queries[part].tolist()]
    return [[grade for _, grade in each] for each in of_rows], [[name for name, _ in each] for each in of_rows]


def _by_query(queries: IntArray, *, proving: IntArray, rows: set[int]) -> dict[int, list[tuple[str, int]]]:
    found: dict[int, list[tuple[str, int]]] = defaultdict(list)
    with connection.cursor() as cursor:
        cursor.execute(_KEPT, {"queries": queries.tolist(), "proving": proving.tolist()})
        for query, document, grade, candidate in cursor.fetchall():
            if candidate not in rows:
                found[query].append((document, grade))
    return {query: sorted(own) for query, own in found.items()}
