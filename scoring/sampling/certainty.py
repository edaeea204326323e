"""Estimates the certainty of a query's top ten and the gain of the next pairs. Writes nothing.

Reads the state of queries through `scoring.sampling.draw`; the mathematics is in `scoring.numerics.design.adaptive` and
`design_stopping`. Pages show it, and `workers.runs.query_budgets` moves a run's budget by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from labeling.plugins import Sampler
from labeling.records import IntArray, QueryState
from scoring.models import QueryFit
from scoring.numerics.design import adaptive, stopping
from scoring.sampling.draw import query_states

TOP = 10
QUERIES_AT_ONCE = 50
MOST_REMEMBERED = 20_000

_remembered: dict[tuple[int, float], float] = {}


@dataclass(frozen=True, slots=True)
class Wish:
    """The next pairs of a query and their expected gain.

    `gain`: the increase of the top ten's expected recall per pair; None for an unrated query.
    """

    pairs: int
    gain: float | None


@dataclass(frozen=True, slots=True)
class NextPair:
    """An informative pair.

    `shrinkage`: the expected reduction of the strengths' total variance by its answer, as a share of the variance that
    remains after the pairs before it.
    """

    a_id: int
    b_id: int
    shrinkage: float


def top_certainty(query_ids: Sequence[int]) -> dict[int, float]:
    """Return the expected recall of the true top ten in the estimated one, in [0, 1], of each rated query."""
    found: dict[int, float] = {}
    for start in range(0, len(query_ids), QUERIES_AT_ONCE):
        for query, known in query_states(query_ids[start : start + QUERIES_AT_ONCE]).items():
            if known.state.theta is not None and known.state.size > 0:
                posterior = adaptive.working_posterior(known.state)
                covariance = posterior.dispersion * posterior.covariance
                # Seeded by the query, so that only new answers change the figure.
                rng = np.random.default_rng(known.seed)
                found[query] = stopping.expected_top_recall(posterior.theta, covariance, k=TOP, rng=rng)
    return found


def certainty_of_fits(fits: Iterable[QueryFit]) -> dict[int, float]:
    """Return the certainty by query id; this process recomputes only queries that were fitted again."""
    keys = {fit.query_id: (fit.query_id, fit.fitted_at.timestamp()) for fit in fits if fit.judgments}
    missing = [query for query, key in keys.items() if key not in _remembered]
    if missing:
        if len(_remembered) > MOST_REMEMBERED:
            _remembered.clear()
        _remembered.update({keys[query]: value for query, value in top_certainty(missing).items()})
    return {query: _remembered[key] for query, key in keys.items() if key in _remembered}


def next_pairs(query_id: int, count: int, *, pending: Sequence[int] = ()) -> list[NextPair]:
    """Return the next pairs of the sampler `uncertain`, the most informative first; none before the first scores.

    `pending`: queued pairs, which count as answered.
    """
    known = query_states([query_id], pending=pending)[query_id]
    state = known.state
    if state.theta is None or state.size < 2:
        return []
    posterior = adaptive.working_posterior(state)
    chosen = adaptive.choose_pairs(posterior, state.pairs, count, np.eye(state.size))
    ids = np.sort(known.candidate_ids[chosen.pairs], axis=1)
    return [NextPair(int(a), int(b), float(share)) for (a, b), share in zip(ids, chosen.shrinkage, strict=True)]


def wishes(
    query_ids: Sequence[int],
    sampler: Sampler,
    *,
    most: int,
    seed: int,
    round_number: int,
    pending: Sequence[int] = (),
    guides: Mapping[int, float] | None = None,
) -> dict[int, Wish]:
    """Return the next pairs of each query for a budget of `most` pairs, drawn by `sample_pairs`."""
    found: dict[int, Wish] = {}
    for start in range(0, len(query_ids), QUERIES_AT_ONCE):
        part = query_ids[start : start + QUERIES_AT_ONCE]
        for query, known in query_states(part, pending=pending, guides=guides).items():
            pairs = sampler.sample(known.state, most, np.random.default_rng([seed, round_number, known.seed]))
            found[query] = Wish(len(pairs), _gain(known.state, pairs, known.seed))
    return found


def _gain(state: QueryState, pairs: IntArray, seed: int) -> float | None:
    """Return the increase of the top ten's expected recall per pair; None for an unrated query."""
    if state.theta is None:
        return None
    return stopping.gain_per_pair(adaptive.working_posterior(state), pairs, k=TOP, rng=np.random.default_rng(seed))
