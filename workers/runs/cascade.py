"""Cascades: a cheap judge answers every pair, the others only those on which it was unsure.

`workers.runs.advancing` calls this when the first judge has no task left in a round; `workers.runs.planning` stores the
questions, so that none is asked twice.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from django.db import connection, transaction

from labeling.plugins import Sampler, get_plugin
from labeling.records import BoolArray, IntArray
from scoring.calibration.cross_query import is_across
from workers.broker.hints import leave_hint
from workers.judging.pausing import retired_judges
from workers.judging.trouble import troubled_judges
from workers.models import JudgingTask, Run
from workers.runs import planning

PAIRS_AT_ONCE = 5_000
DEFAULT_THRESHOLD = 0.2

# The mean over both orders, where both were asked. What the first judge could not judge is nobody's close call.
_UNSURE = """
SELECT pair.id FROM labeling_pair pair
JOIN labeling_candidate a ON a.id = pair.a_id JOIN labeling_query query ON query.id = a.query_id
CROSS JOIN LATERAL (
    SELECT avg(preference) AS mean FROM labeling_live_judgment
    WHERE pair_id = pair.id AND annotator_id = %(first)s AND kind = 'preference'
) cheap
WHERE query.project_id = %(project)s AND (%(queries)s::bigint[] IS NULL OR query.id = ANY(%(queries)s))
  AND (pair.query_id IS NULL) = %(across)s AND pair.id > %(after)s AND abs(cheap.mean - 0.5) < %(threshold)s
ORDER BY pair.id LIMIT %(limit)s
"""


def escalate(run: Run) -> int:
    """Ask the other judges of a cascade about the pairs on which the first was unsure; returns the number of new questions.

    0 while any judge has tasks left, and where no new pair is close.
    """
    if run.allocation != Run.Allocation.CASCADE or _owes(run):
        return 0
    idle = {run.cascade_first_id, *troubled_judges(run), *retired_judges(run)}
    strong = [judge for judge in run.judges.order_by("id").values_list("id", flat=True) if judge not in idle]
    if not strong:
        return 0
    before, after = run.tasks_planned, 0
    while pairs := _unsure_pairs(run, after=after):
        with transaction.atomic():
            if not Run.objects.select_for_update(no_key=True).filter(pk=run.pk, state__in=Run.ACTIVE).exists():
                break
            planning.ask(run, *_questions(run, np.array(pairs), np.array(strong)))
        after = pairs[-1]
    run.refresh_from_db()
    if run.tasks_planned > before:
        for judge in strong:
            leave_hint("judge", judge)
    return run.tasks_planned - before


def _owes(run: Run) -> bool:
    unfinished = JudgingTask.objects.filter(run=run, state__in=[JudgingTask.State.OPEN, JudgingTask.State.LEASED])
    return unfinished.exclude(state=JudgingTask.State.OPEN, annotator__in=troubled_judges(run)).exists()


def _unsure_pairs(run: Run, *, after: int) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(
            _UNSURE,
            {
                "first": run.cascade_first_id,
                "project": run.project_id,
                "queries": run.query_ids,
                "after": after,
                "across": is_across(cast(Sampler, get_plugin("sampler", run.sampler))),
                "threshold": run.cascade_threshold,
                "limit": PAIRS_AT_ONCE,
            },
        )
        return [row[0] for row in cursor.fetchall()]


def _questions(run: Run, pairs: IntArray, judges: IntArray) -> tuple[IntArray, IntArray, BoolArray]:
    """(pairs, judges, sides) of every question; the sides follow from seed and pair, half of them swapped."""
    rng = np.random.default_rng([run.seed, int(pairs[0]), 2])
    pair, judge = np.repeat(pairs, len(judges)), np.tile(judges, len(pairs))
    swapped = rng.permutation(np.arange(len(pair)) % 2 == 0)
    if run.orders == Run.Orders.BOTH:
        sides = np.stack([swapped, ~swapped], axis=1).ravel()
        return np.repeat(pair, 2), np.repeat(judge, 2), sides
    return pair, judge, swapped
