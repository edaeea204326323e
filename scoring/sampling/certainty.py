"""How certain the top ten of a query is, and what the next pairs would bring. Writes nothing.

Reads what is known of queries through `scoring.sampling.draw`; the mathematics is in `scoring.numerics.design.adaptive` and
`design_stopping`. Pages show it, and `workers.runs.query_budgets` moves a run's budget by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labeling.plugins import Sampler
from labeling.records import IntArray, QueryState
from scoring.numerics.design import adaptive, kernels, stopping
from scoring.numerics.design.adaptive import ChosenPairs, Posterior
from scoring.sampling.draw import query_states

TOP = 10
QUERIES_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Wish:
    """What a sampler would ask of a query next, and what that is worth.

    `gain`: the rise of the top ten's expected recall by one of these `pairs`; None for an unrated query.
    """

    pairs: int
    gain: float | None


@dataclass(frozen=True, slots=True)
class NextPair:
    """A pair worth asking. `shrinkage`: the share of all strengths' remaining variance that its answer is expected
    to take away, given those before it.
    """

    a_id: int
    b_id: int
    shrinkage: float


def top_certainty(query_ids: Sequence[int]) -> dict[int, float]:
    """Expected recall of the true top ten in the estimated one, in [0, 1], of each query that has been rated."""
    found: dict[int, float] = {}
    for start in range(0, len(query_ids), QUERIES_AT_ONCE):
        for query, known in query_states(query_ids[start : start + QUERIES_AT_ONCE]).items():
            if known.state.theta is not None and known.state.size > 0:
                posterior = adaptive.working_posterior(known.state)
                covariance = posterior.dispersion * posterior.covariance
                # Seeded by the query, so that the figure moves only when answers move it.
                rng = np.random.default_rng(query)
                found[query] = stopping.expected_top_recall(posterior.theta, covariance, k=TOP, rng=rng)
    return found


def next_pairs(query_id: int, count: int, *, pending: Sequence[int] = ()) -> list[NextPair]:
    """What the sampler `uncertain` would ask next, the most informative first; nothing before the first scores.

    `pending`: pairs still being asked about; they count as answered.
    """
    known = query_states([query_id], pending=pending)[query_id]
    state = known.state
    if state.theta is None or state.size < 2:
        return []
    posterior = adaptive.working_posterior(state)
    chosen = adaptive.choose_pairs(posterior, state.pairs, count, np.eye(state.size))
    ids = known.candidate_ids[chosen.pairs]
    return [NextPair(int(a), int(b), float(share)) for (a, b), share in zip(ids, chosen.shrinkage, strict=True)]


def wishes(
    query_ids: Sequence[int], sampler: Sampler, *, most: int, seed: int, round_number: int, pending: Sequence[int] = ()
) -> dict[int, Wish]:
    """What the sampler would ask of each query if it could have `most` pairs; the draw is that of `sample_pairs`."""
    found: dict[int, Wish] = {}
    for start in range(0, len(query_ids), QUERIES_AT_ONCE):
        for query, known in query_states(query_ids[start : start + QUERIES_AT_ONCE], pending=pending).items():
            pairs = sampler.sample(known.state, most, np.random.default_rng([seed, round_number, query]))
            found[query] = Wish(len(pairs), _gain(known.state, pairs, query))
    return found


def _gain(state: QueryState, pairs: IntArray, query: int) -> float | None:
    """The rise of the top ten's expected recall by one of these pairs."""
    if state.theta is None:
        return None
    if not len(pairs):
        return 0.0
    posterior = adaptive.working_posterior(state)
    rng = np.random.default_rng(query)
    return stopping.outlook(posterior, _as_chosen(posterior, pairs), k=TOP, rng=rng).gain_per_call


def _as_chosen(posterior: Posterior, pairs: IntArray) -> ChosenPairs:
    """These pairs, whoever chose them, with the covariance that one answer on each would leave."""
    after = posterior.covariance.copy()
    a, b = (np.ascontiguousarray(pairs[:, side]) for side in (0, 1))
    kernels.add_pending(after, a, b, posterior.theta, posterior.slope)
    return ChosenPairs(pairs, np.zeros(len(pairs)), after)
