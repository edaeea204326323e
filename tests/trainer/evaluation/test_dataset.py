"""Queries of a split as evaluations read them: their names and rows."""

from __future__ import annotations

import pyarrow as pa

from trainer.evaluation.dataset import listing_of


def test_queries_of_equal_names_are_told_apart_by_their_projects_where_that_is_possible() -> None:
    """The last two were deleted and imported again between two mixed snapshots: they share one name."""
    table = pa.table(
        {
            "query_id": [1, 1, 2, 3, 4, 9],
            "query_external_id": ["q1", "q1", "q1", "law/q1", "q2", "q2"],
            "project": ["law", "law", "tax", "tax", "law", "law"],
        }
    )
    listing = listing_of(table, "test", name="both")
    assert listing.names == ("law/q1", "tax/q1", "tax/law/q1", "law/q2", "law/q2")
    assert listing.bounds == (0, 2, 3, 4, 5, 6)
