"""Stores pairs; a pair that exists keeps its row."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connection

_INSERT = """
INSERT INTO labeling_pair (a_id, b_id, query_id)
SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) ORDER BY 1, 2
ON CONFLICT (a_id, b_id) DO NOTHING
"""

_IDS = """
SELECT pair.id FROM unnest(%s::bigint[], %s::bigint[]) WITH ORDINALITY AS drawn (a, b, position)
JOIN labeling_pair pair ON pair.a_id = drawn.a AND pair.b_id = drawn.b
ORDER BY drawn.position
"""


def store_pairs(a: Sequence[int], b: Sequence[int], query_ids: Sequence[int | None]) -> list[int]:
    """Insert new pairs and return the ids of all given pairs in order.

    `a` < `b` are candidate ids; `query_ids` is the query of both, None for a cross-query pair.
    Raises IntegrityError if a pair is out of order or its query is not that of its candidates.
    """
    with connection.cursor() as cursor:
        cursor.execute(_INSERT, [list(a), list(b), list(query_ids)])
        cursor.execute(_IDS, [list(a), list(b)])
        return [row[0] for row in cursor.fetchall()]
