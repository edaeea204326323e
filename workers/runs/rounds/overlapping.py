"""Rounds that overlap: the next one begins with the queries that have their scores, while others are still being judged.

Without it the judges of a large run wait at the end of each round until every query is fitted and the first of the next are planned.
The questions are the same, because a draw depends on its query's state, the seed and the round alone. `workers.runs.advancing`
begins such rounds and plans each slice of queries once it is ready.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connection

from scoring.calibration.cross_query import is_across
from scoring.rating import stale_query_ids
from scoring.sampling.draw import comparable_query_ids
from workers.broker.hints import leave_hint
from workers.models import Run
from workers.runs.choices.judges import was_pilot
from workers.runs.ordering import checked_sampler
from workers.runs.planning import EXACT
from workers.runs.query_budgets import weighs_queries


def may_begin(run: Run, judges: Sequence[int], *, at_once: int) -> bool:
    """Whether the next round may begin although this one is not over: its first `at_once` queries are ready, and there are more.

    Never where the next round needs all answers of this one: cascades, rounds that measure the judges, pairs across queries, given
    pairs, and budgets that go to the queries that gain most.
    """
    sampler = checked_sampler(run.sampler, run.sampler_options)
    if (
        not run.round
        or run.allocation == Run.Allocation.CASCADE
        or was_pilot(run)
        or is_across(sampler)
        or sampler.name in EXACT
    ):
        return False
    first = comparable_query_ids(run.project_id, run.query_ids, most=at_once + 1)
    if len(first) <= at_once or weighs_queries(run, sampler, judges, round_number=run.round + 1):
        return False
    return _are_ready(run, first[:at_once])


def is_ready(run: Run, *, after: int, at_once: int) -> bool:
    """Whether the next queries behind `after` have no questions left and are fitted."""
    return _are_ready(run, comparable_query_ids(run.project_id, run.query_ids, after=after, most=at_once))


# The limit keeps the planner from a scan of all tasks: each pair of these few queries is looked up.
_WAITING = """
SELECT EXISTS (
    SELECT 1 FROM labeling_pair pair WHERE pair.query_id = ANY(%(queries)s) AND (
        SELECT task.id FROM workers_judgingtask task JOIN workers_run run ON run.id = task.run_id
        WHERE task.pair_id = pair.id
          AND (task.state = 'leased' OR task.state = 'open' AND NOT EXISTS (
               SELECT 1 FROM workers_judgetrouble trouble WHERE trouble.annotator_id = task.annotator_id))
          AND (run.id = %(run)s OR run.state IN ('planned', 'judging') AND task.annotator_id IN (
               SELECT annotator_id FROM workers_run_judges WHERE run_id = %(run)s))
        LIMIT 1
    ) IS NOT NULL
)
"""


def _are_ready(run: Run, query_ids: Sequence[int]) -> bool:
    """As `advancing._is_busy` for some queries: questions of a judge in trouble are not waited for."""
    if stale_query_ids(run.project_id, limit=1, among=query_ids):
        leave_hint("rate", run.project_id)
        return False
    with connection.cursor() as cursor:
        cursor.execute(_WAITING, {"queries": list(query_ids), "run": run.pk})
        return not cursor.fetchone()[0]
