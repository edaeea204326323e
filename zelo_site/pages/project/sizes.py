"""The counts of a project, read in one query."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import connection

from labeling.models import Project


@dataclass(frozen=True, slots=True)
class Sizes:
    """Counts of a project. `judgments` and `pairs` count those in the last fits; `waiting_for_people`
    counts pairs with at least one unanswered spot check.
    """

    queries: int
    candidates: int
    graded: int
    rated_queries: int
    islands: int
    judgments: int
    pairs: int
    stale: int
    failed_fits: int
    waiting_for_people: int

    @property
    def most_rows(self) -> int:
        return max(self.candidates, self.judgments)


_SIZES = """
SELECT counts.*,
    (SELECT count(*) FROM labeling_candidate c JOIN labeling_query q ON q.id = c.query_id
     WHERE q.project_id = %(project)s AND c.grade IS NOT NULL),
    fits.*,
    (SELECT count(*) FROM labeling_query q LEFT JOIN scoring_queryfit f ON f.query_id = q.id
     WHERE q.project_id = %(project)s AND q.judged_version > COALESCE(f.judged_version, 0)),
    (SELECT count(DISTINCT pair_id) FROM labeling_spotcheck WHERE project_id = %(project)s
     AND judgment_id IS NULL AND slot IS NOT NULL)
FROM (
    SELECT COALESCE(sum(queries), 0)::bigint, COALESCE(sum(candidates), 0)::bigint FROM labeling_projectcount
    WHERE project_id = %(project)s
) counts, (
    SELECT count(*), count(*) FILTER (WHERE f.islands > 1), COALESCE(sum(f.judgments), 0)::bigint,
           COALESCE(sum(f.pairs), 0)::bigint, count(*) FILTER (WHERE f.error <> '')
    FROM scoring_queryfit f JOIN labeling_query q ON q.id = f.query_id WHERE q.project_id = %(project)s
) fits
"""


def read_sizes(project: Project) -> Sizes:
    with connection.cursor() as cursor:
        cursor.execute(_SIZES, {"project": project.pk})
        queries, candidates, graded, rated, islands, judgments, pairs, failed, stale, asked = cursor.fetchone()
    return Sizes(queries, candidates, graded, rated, islands, judgments, pairs, stale, failed, asked)
