"""Mixes questions with a known answer (from grades or people) into every run: at least one in a hundred.

They measure a judge, and detect drift (`workers.judging.drift`). Most designs over graded candidates
hold enough of them by chance; `top_up` adds what is missing, within the run's budget. `workers.runs.advancing`
calls this in the transaction that plans some queries of a round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from django.db import connection
from django.db.models import F

from labeling.pairs import store_pairs
from scoring.annotators.known_answers import IS_KNOWN, draw_known_pairs, gold_share, has_known_pairs
from scoring.numerics.judges.allocation import allocate
from workers.models import Run
from workers.runs import planning

SHARE = 0.01
# Where this share of the pairs is known anyway, no part of the budget is kept for known pairs.
PLENTY = 0.05


def keep_room(run: Run, budgets: Mapping[int, int]) -> dict[int, int]:
    """The budget of each query, less one pair in a hundred where known pairs will be needed.

    Budgets below a hundred pairs are not reduced.
    """
    kept = dict(budgets)
    if run.pair_budget is None or SHARE * sum(kept.values()) < 1.0:
        return kept
    queries = sorted(kept)
    if gold_share(queries) >= PLENTY or not draw_known_pairs(queries, 1, np.random.default_rng(0)):
        return kept
    for _ in range(math.ceil(SHARE * sum(kept.values()))):
        richest = max(queries, key=lambda query: kept[query])
        kept[richest] -= 1
    return kept


def top_up(run: Run, query_ids: Sequence[int]) -> int:
    """Add known pairs until one in a hundred of the run's open questions on these queries is about one.

    Every judge of the run is asked about each. Returns how many questions that added.
    """
    if not has_known_pairs(run.project_id, query_ids):
        return 0
    judges = list(run.judges.order_by("id").values_list("id", flat=True))
    sides = len(judges) * (2 if run.orders == Run.Orders.BOTH else 1)
    wanted = math.ceil(_missing(run, query_ids) / sides)
    if run.pair_budget is not None:
        run.refresh_from_db(fields=["pairs_planned"])
        wanted = min(wanted, run.pair_budget - run.pairs_planned)
    if wanted <= 0:
        return 0
    rng = np.random.default_rng([run.seed, run.round, int(query_ids[0]), 3])
    drawn = sorted(draw_known_pairs(query_ids, 4 * wanted, rng))
    if not drawn:
        return 0
    a, b, owners = zip(*drawn, strict=True)
    pairs = _unasked(store_pairs(a, b, owners), judges)[:wanted]
    return _ask(run, pairs, judges, rng) if pairs else 0


# The offset makes it a look at the tasks of each pair: a scan of all tasks of the run would grow with every slice that is planned.
# The run stands outside, or a new table's planner takes the index on runs for each pair.
_OPEN = f"""
SELECT count(*), count(*) FILTER (WHERE {IS_KNOWN}) FROM (
    SELECT pair.id, pair.a_id, pair.b_id, pair.query_id FROM labeling_pair pair CROSS JOIN LATERAL (
        SELECT pair_id, run_id, state FROM workers_judgingtask WHERE pair_id = pair.id OFFSET 0
    ) task WHERE pair.query_id = ANY(%(queries)s) AND task.run_id = %(run)s AND task.state = 'open'
) pair JOIN labeling_candidate a ON a.id = pair.a_id JOIN labeling_candidate b ON b.id = pair.b_id
"""


def _missing(run: Run, query_ids: Sequence[int]) -> int:
    """The number of questions about known pairs to add."""
    with connection.cursor() as cursor:
        cursor.execute(_OPEN, {"run": run.pk, "queries": list(query_ids)})
        asked, known = cursor.fetchone()
    return math.ceil((SHARE * asked - known) / (1.0 - SHARE))


_UNASKED = """
SELECT pair.id FROM labeling_pair pair WHERE pair.id = ANY(%(pairs)s)
  AND NOT EXISTS (SELECT 1 FROM labeling_live_judgment WHERE pair_id = pair.id AND annotator_id = ANY(%(judges)s))
  AND NOT EXISTS (SELECT 1 FROM workers_judgingtask WHERE pair_id = pair.id AND annotator_id = ANY(%(judges)s))
ORDER BY pair.id
"""


def _unasked(pairs: Sequence[int], judges: Sequence[int]) -> list[int]:
    with connection.cursor() as cursor:
        cursor.execute(_UNASKED, {"pairs": list(pairs), "judges": list(judges)})
        return [row[0] for row in cursor.fetchall()]


def _ask(run: Run, pairs: Sequence[int], judges: Sequence[int], rng: np.random.Generator) -> int:
    rows = np.arange(2 * len(pairs), dtype=np.int64).reshape(-1, 2)
    which, judge, swapped = allocate(rows, judges=len(judges), mode="all", rng=rng)
    if run.orders == Run.Orders.BOTH:
        which, judge, swapped = np.repeat(which, 2), np.repeat(judge, 2), np.stack([swapped, ~swapped], axis=1).ravel()
    asked = planning.ask(run, np.array(pairs)[which], np.array(judges)[judge], swapped)
    Run.objects.filter(pk=run.pk).update(pairs_planned=F("pairs_planned") + len(np.unique(asked)))
    return len(asked)
