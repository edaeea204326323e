"""Queries that a snapshot lacks because none of their documents has a score: an evaluation cannot measure them."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connection

_UNSCORED = """
SELECT count(*), count(*) FILTER (
    WHERE EXISTS (SELECT FROM labeling_candidate own WHERE own.query_id = query.id AND own.grade IS NOT NULL)
       OR EXISTS (SELECT FROM labeling_unmatchedgrade other
                  WHERE other.project_id = query.project_id AND other.query_external_id = query.external_id))
FROM labeling_query query
WHERE query.project_id = ANY(%(projects)s) AND query.excluded_at IS NULL
  AND (cardinality(%(domains)s::text[]) = 0 OR query.domain = ANY(%(domains)s::text[]))
  AND NOT EXISTS (
    SELECT FROM scoring_queryfit fit JOIN labeling_candidate candidate ON candidate.query_id = fit.query_id
    JOIN scoring_score score ON score.candidate_id = candidate.id
    WHERE fit.query_id = query.id AND fit.error = '')
"""


def unscored_queries(project_ids: Sequence[int], domains: Sequence[str]) -> dict[str, int]:
    """The number of `queries` without a score in these domains (empty: all), and how many of them are `graded`."""
    with connection.cursor() as cursor:
        cursor.execute(_UNSCORED, {"projects": list(project_ids), "domains": list(domains)})
        queries, graded = cursor.fetchone()
    return {"queries": queries, "graded": graded}
