"""Mines pairs for a refinement: where another answer of the panel improves the labels of a student most. Pure.

The student's order enters the working posterior as the first stage's does in `adaptive`: as a prior mean whose weight is
its agreement with the judgments. Where student and Elo agree, the top is settled; where they disagree and the Elo is
uncertain, the posterior is wide at places that matter. Gains of several queries can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr

from labeling.records import FloatArray, IntArray, QueryState
from scoring.numerics.design import adaptive, static


@dataclass(frozen=True, slots=True)
class Mined:
    """Pairs of one query, the most valuable first.

    `pairs` int64[m, 2], a < b; `gain` float64[m]: the weighted posterior variance that an answer takes away, in squared logits;
    `against` float64[m]: P(the student's order of the pair is right) under the posterior of the judgments alone, NaN where the
    student ranks only one of both.
    """

    pairs: IntArray
    gain: FloatArray
    against: FloatArray


def mine(
    state: QueryState,
    student: FloatArray,
    count: int,
    rng: np.random.Generator,
    *,
    top: int = 10,
    floor: float = 0.03,
    draws: int = 64,
) -> Mined:
    """Up to `count` pairs that nobody has judged, for a rated query; `student` float64[size]: its scores, NaN for none.

    Raises UnratedQuery.
    """
    asked = state.pairs if state.free is None else state.pairs[~state.free]
    drawn = static.check_pairs(state.size, asked)
    alone = adaptive.working_posterior(state, first_stage=False)
    joined = adaptive.working_posterior(replace(state, first_stage_rank=ranks_of(student)))
    weights = adaptive.top_importance(joined, rng, top=top, floor=floor, draws=draws)
    chosen = adaptive.choose_pairs(joined, drawn, count, weights)
    scale = float(np.sum(weights * joined.covariance)) * joined.dispersion * joined.slope**2
    return Mined(chosen.pairs, chosen.shrinkage * scale, _agreement(alone, student, chosen.pairs))


def ranks_of(scores: FloatArray) -> IntArray:
    """1-based ranks of the scores, best first, 0 where there is none; int64[n]."""
    ranks = np.zeros(len(scores), dtype=np.int64)
    known = np.flatnonzero(np.isfinite(scores))
    order = known[np.argsort(-scores[known], kind="stable")]
    ranks[order] = np.arange(1, len(order) + 1)
    return ranks


def _agreement(posterior: adaptive.Posterior, student: FloatArray, pairs: IntArray) -> FloatArray:
    """P(the better of each pair in the student's order is the better) under the posterior."""
    a, b = pairs[:, 0], pairs[:, 1]
    cov = posterior.covariance * posterior.dispersion
    spread = np.sqrt(np.maximum(cov[a, a] + cov[b, b] - 2.0 * cov[a, b], 1e-12))
    first = ndtr((posterior.theta[a] - posterior.theta[b]) / spread)
    difference = student[a] - student[b]
    return np.where(np.isfinite(difference), np.where(difference >= 0.0, first, 1.0 - first), np.nan)


def best_of(mined: Sequence[Mined], budget: int) -> list[tuple[int, int]]:
    """The `budget` pairs with the largest gains over all queries, as (query, row of its pairs), the largest first."""
    places = [(query, row) for query, own in enumerate(mined) for row in range(len(own.pairs))]
    gains = np.concatenate([own.gain for own in mined]) if places else np.zeros(0)
    return [places[at] for at in np.argsort(-gains, kind="stable")[:budget].tolist()]
