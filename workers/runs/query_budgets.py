"""Divides the rest of a run's budget among the queries of a round.

The first round divides it evenly, since nothing is known yet. Later rounds divide it by the expected gain: pairs that a
query does not need go to queries that gain more. Samplers that share rounds begin with scores, so that their first round is divided
too. `workers.runs.advancing` calls this before `workers.runs.planning`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from labeling.plugins import Sampler
from scoring.annotators.student_weights import guides_of
from scoring.numerics.design.stopping import split_budget
from scoring.sampling.certainty import Wish, wishes
from scoring.sampling.draw import comparable_query_ids
from scoring.sampling.named_pairs import NAMED, pairs_of
from workers.budgets.limits import NO_LIMIT, pairs_left
from workers.models import Run
from workers.runs import planning

# Estimating the gain of a query takes some 10 ms; with more queries than this the budget is divided evenly.
MOST_WEIGHED = 5_000
# A budget that ends within so many rounds is given out in halves, so that each round can react to the last.
LAST_ROUNDS = 4
# A query without a measurable gain may still use what the others leave.
LEAST_WORTH = 1e-9


def shares_of_round(
    run: Run, sampler: Sampler, judges: Sequence[int], *, queries: Sequence[int], round_number: int
) -> dict[str, int] | None:
    """The most pairs of each query in a round, by query id as text, as the job stores them.

    None where there is no limit, or where the budget is divided evenly, as in the first round of most samplers.
    """
    left = pairs_left(run, judges)
    if sampler.name == NAMED:
        return _of_named_pairs(run, sampler, queries=queries, budget=left)
    if not weighs_queries(run, sampler, judges, round_number=round_number):
        return None
    pending = planning.pending_pairs(list(queries))
    guides = guides_of(run.project_id, judges)
    wanted = wishes(
        queries, sampler, most=left, seed=run.seed, round_number=round_number, pending=pending, guides=guides
    )
    total = sum(wish.pairs for wish in wanted.values())
    if total * LAST_ROUNDS <= left and not sampler.shares_rounds:
        return {str(query): wish.pairs for query, wish in wanted.items() if wish.pairs}
    least = sum(1 for wish in wanted.values() if wish.pairs)
    return _by_need(wanted, min(left, max(least, math.ceil(total / 2))))


def weighs_queries(run: Run, sampler: Sampler, judges: Sequence[int], *, round_number: int) -> bool:
    """Whether a round divides its budget by what the queries gain, for which it needs the answers of the last one."""
    if sampler.name == planning.RECORDED or pairs_left(run, judges) >= NO_LIMIT:
        return False
    if round_number < 2 and not sampler.shares_rounds:
        return False
    return len(comparable_query_ids(run.project_id, run.query_ids, most=MOST_WEIGHED + 1)) <= MOST_WEIGHED


def _of_named_pairs(run: Run, sampler: Sampler, *, queries: Sequence[int], budget: int) -> dict[str, int]:
    """The named pairs of each query that the budget allows, the first pairs first."""
    left = planning.named_pairs_left(run, sampler, queries)
    query_of = {tuple(pair): query for query, own in left.items() for pair in own.tolist()}
    kept = [query_of[pair] for pair in pairs_of(sampler) if pair in query_of][:budget]
    return {str(query): count for query, count in Counter(kept).items()}


def _by_need(wanted: Mapping[int, Wish], budget: int) -> dict[str, int]:
    """The budget in proportion to the expected gain; an unrated query counts as the neediest."""
    gains = [wish.gain for wish in wanted.values() if wish.gain is not None]
    neediest = max(gains, default=0.0) or 1.0
    worth = [max(LEAST_WORTH, neediest if wish.gain is None else wish.gain) for wish in wanted.values()]
    given = split_budget(budget, worth, [wish.pairs for wish in wanted.values()])
    return {str(query): int(share) for query, share in zip(wanted, given, strict=True) if share}


def budgets_of_chunk(
    run: Run, judges: Sequence[int], *, shares: Mapping[str, int] | None, chunk: Sequence[int], ahead: int
) -> dict[int, int]:
    """The most pairs of each query of the chunk: its share, or else an even part of the rest of the budget.

    `ahead`: queries that this round has not planned yet, including this chunk; the first ones get the remainder.
    """
    if shares is not None:
        return {query: shares.get(str(query), 0) for query in chunk}
    left = pairs_left(run, judges)
    if left >= NO_LIMIT:
        return dict.fromkeys(chunk, NO_LIMIT)
    share, rest = divmod(left, ahead)
    return {query: share + (position < rest) for position, query in enumerate(chunk)}
