"""Queries whose next fit can wait: fitted a moment ago, with questions that are still being answered.

While judges answer thousands of questions a second, every query would be fitted again after each batch of answers, five times in all.
`workers.tasks.rate` leaves these out for REST_S, which a reader of live scores does not notice; a query without open questions is
fitted at once, because the next round may wait for it.
"""

from __future__ import annotations

from django.db import connection

REST_S = 2.0

# The limit makes it one look-up for each pair of these few queries.
_RESTING = """
SELECT query.id FROM labeling_query query JOIN scoring_queryfit fit ON fit.query_id = query.id
WHERE query.project_id = %s AND fit.fitted_at > clock_timestamp() - make_interval(secs => %s)
  AND query.judged_version > fit.judged_version
  AND EXISTS (SELECT 1 FROM labeling_pair pair WHERE pair.query_id = query.id AND (
              SELECT task.id FROM workers_judgingtask task WHERE task.pair_id = pair.id AND task.state IN ('open', 'leased')
              LIMIT 1) IS NOT NULL)
"""


def resting_query_ids(project_id: int) -> list[int]:
    """The stale queries of a project that were fitted less than REST_S ago and have open questions. Others' answers, or the reconciler,
    bring the next hint."""
    with connection.cursor() as cursor:
        cursor.execute(_RESTING, [project_id, REST_S])
        return [row[0] for row in cursor.fetchall()]
