"""Stores pairs; a pair that exists keeps its row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labeling.database import array_cursor
from labeling.records import IntArray

_INSERT = """
INSERT INTO labeling_pair (a_id, b_id, query_id)
SELECT a, b, NULLIF(query, 0) FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS drawn (a, b, query) ORDER BY 1, 2
ON CONFLICT (a_id, b_id) DO NOTHING RETURNING a_id, b_id, id
"""

_IDS = """
SELECT pair.id FROM unnest(%s::bigint[], %s::bigint[]) WITH ORDINALITY AS drawn (a, b, position)
JOIN labeling_pair pair ON pair.a_id = drawn.a AND pair.b_id = drawn.b
ORDER BY drawn.position
"""


@dataclass(frozen=True, slots=True)
class StoredPairs:
    """`ids` int64[m] of the given pairs in order; `are_new`: whether this call made all of them, so that nobody has asked or
    answered one."""

    ids: IntArray
    are_new: bool


def store_drawn_pairs(pairs: IntArray, query_ids: IntArray) -> StoredPairs:
    """Insert the new ones of these pairs, candidate ids int64[m, 2], a < b. `query_ids` int64[m]: 0 for a cross-query pair.

    Raises IntegrityError if a pair is out of order or its query is not that of its candidates.
    """
    a, b = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    with array_cursor() as cursor:
        cursor.execute(_INSERT, [a, b, query_ids], binary=True)
        made = np.array(cursor.fetchall(), dtype=np.int64).reshape(-1, 3)
        if len(made) == len(pairs):
            ids = np.empty(len(pairs), dtype=np.int64)
            ids[np.lexsort((b, a))] = made[np.lexsort((made[:, 1], made[:, 0])), 2]
            return StoredPairs(ids, are_new=True)
        cursor.execute(_IDS, [a, b], binary=True)
        return StoredPairs(np.array(cursor.fetchall(), dtype=np.int64).ravel(), are_new=False)


def store_pairs(a: Sequence[int], b: Sequence[int], query_ids: Sequence[int | None]) -> list[int]:
    """As `store_drawn_pairs`, from lists and with None for a cross-query pair; returns the ids of all given pairs in order."""
    pairs = np.array([a, b], dtype=np.int64).T.reshape(-1, 2)
    ids: list[int] = store_drawn_pairs(
        pairs, np.array([query or 0 for query in query_ids], dtype=np.int64)
    ).ids.tolist()
    return ids
