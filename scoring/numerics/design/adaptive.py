"""Choice of the next pairs from the answers so far: top-weighted A-optimal designs.

A round takes the working posterior of one query, weighs documents by how much they matter for the
top of the list, and greedily takes the pairs that shrink the weighted posterior variance most. Starting
designs are in `static`, stopping rules in `stopping`, whole rounds in `rounds`; `scoring.sampling.samplers` wraps them as plugins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from labeling.records import FloatArray, IntArray, QueryState
from scoring.numerics.design import kernels, static

EM_PASSES = 3

DOCUMENT_SHARE = 0.25


class UnratedQuery(static.DesignError):
    """A design that needs strengths was asked of a query that has none."""


@dataclass(frozen=True, slots=True)
class Posterior:
    """The posterior of one query's strengths: N(theta, dispersion x covariance).

    `theta` float64[n], `covariance` float64[n, n] in the rater's natural units, the latter without the
    dispersion; `slope` the logits a unit (the fit's logit_scale); `prior_precision` the empirical
    one; `first_stage_slope` how much of a normal score of first-stage rank the prior mean takes.
    """

    theta: FloatArray
    covariance: FloatArray
    dispersion: float
    slope: float
    prior_precision: float
    first_stage_slope: float

    @property
    def size(self) -> int:
        return len(self.theta)

    def draws(self, count: int, rng: np.random.Generator) -> FloatArray:
        """`count` posterior draws of all strengths, float64[n, count]."""
        factor = np.linalg.cholesky(self.covariance * self.dispersion)
        return self.theta[:, None] + factor @ rng.standard_normal((self.size, count))


def working_posterior(state: QueryState, *, first_stage: bool = True) -> Posterior:
    """Laplace approximation around the fitted strengths, under a prior estimated from this query.

    The rater's prior is one for the project and has mean zero. Here its width comes from the query itself
    (EM), and its mean is a multiple of the normal score of the first-stage rank, fitted in the same
    passes: zero where the ranks do not agree with the judgments. It guides the choice of pairs only; no score
    ever contains it. The likelihood is logistic with the fit's slope, whichever rater fitted. Drawn pairs
    without an answer count as if they had one. Raises UnratedQuery.
    """
    pairs = static.check_pairs(state.size, state.pairs)
    if state.theta is None or state.preference is None or state.weight is None:
        raise UnratedQuery("the query has no strengths yet; expected a rated query; judge and rate its first round")
    answered = (state.weight > 0) & np.isfinite(state.preference)
    theta = np.array(state.theta, dtype=np.float64)
    a, b = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    flipped = np.asarray(state.pairs).reshape(-1, 2)[:, 0] != a
    preference = np.where(flipped, 1.0 - state.preference, state.preference)
    covariance, dispersion, precision, beta = kernels.empirical_posterior(
        a[answered],
        b[answered],
        preference[answered],
        np.asarray(state.weight, dtype=np.float64)[answered],
        float(state.logit_scale),
        max(float(state.prior_precision), kernels.PRECISION_RANGE[0]),
        normal_scores(state.first_stage_rank) if first_stage else np.zeros(state.size),
        theta,
        EM_PASSES,
    )
    kernels.add_pending(covariance, a[~answered], b[~answered], theta, float(state.logit_scale))
    return Posterior(theta, covariance, dispersion, float(state.logit_scale), precision, beta)


def normal_scores(rank: IntArray) -> FloatArray:
    """Normal scores of 1-based ranks, best highest, mean zero; 0 where the rank is unknown (0)."""
    scores = np.zeros(len(rank))
    known = np.flatnonzero(np.asarray(rank) > 0)
    if len(known) > 1:
        order = np.argsort(np.argsort(np.asarray(rank)[known], kind="stable"), kind="stable")
        scores[known] = -ndtri((order + 0.5) / len(known))
    return scores


def top_importance(
    posterior: Posterior, rng: np.random.Generator, *, top: int = 10, floor: float = 0.03, draws: int = 64
) -> FloatArray:
    """Weight matrix W of the loss trace(W covariance), float64[n, n], positive definite for floor > 0.

    DOCUMENT_SHARE of it weighs documents by their expected discount in the top `top`, the rest weighs differences by what
    their inversion would cost where the two meet; together their trace is `top`.
    `floor` is added for every document, which keeps the whole order in view.
    """
    places = 1.0 / np.log2(np.arange(min(top, posterior.size)) + 2.0)
    best = np.argsort(-posterior.draws(draws, rng), axis=0)[: len(places)]
    discount = np.bincount(best.ravel(), weights=np.repeat(places / draws, draws), minlength=posterior.size)
    documents = np.diag(discount)
    worth = kernels.inversion_worth(posterior.theta, posterior.covariance, posterior.dispersion, places)
    differences = np.diag(worth.sum(axis=1)) - worth
    weights = floor * np.eye(posterior.size)
    for share, part in ((DOCUMENT_SHARE, documents), (1.0 - DOCUMENT_SHARE, differences)):
        trace = np.trace(part)
        if trace > 0:
            weights += share * min(top, posterior.size) / trace * part
    return weights


@dataclass(frozen=True, slots=True)
class ChosenPairs:
    """Pairs in the order in which they were chosen and what each is expected to bring.

    `pairs` int64[m, 2], a < b; `shrinkage` float64[m] the share of the weighted posterior variance that
    each takes away, given the ones before it; `covariance` float64[n, n] what it will be after all.
    """

    pairs: IntArray
    shrinkage: FloatArray
    covariance: FloatArray


def choose_pairs(posterior: Posterior, drawn: IntArray, count: int, importance: FloatArray) -> ChosenPairs:
    """Up to `count` pairs not in `drawn` that greedily lower trace(importance covariance) most.

    One answer of weight 1 is expected for each. Fewer come where fewer are left.
    """
    static.check_budget(count)
    taken = static.check_pairs(posterior.size, drawn)
    free = ~np.eye(posterior.size, dtype=np.bool_)
    free[taken[:, 0], taken[:, 1]] = free[taken[:, 1], taken[:, 0]] = False
    expected = kernels.expected_curvature(posterior.theta, posterior.covariance, posterior.dispersion, posterior.slope)
    covariance = posterior.covariance.copy()
    before = float(np.sum(importance * covariance))
    pairs, gains = kernels.greedy_pairs(
        covariance, expected, importance, free, min(count, posterior.size * (posterior.size - 1) // 2)
    )
    return ChosenPairs(pairs, gains / before if before > 0 else gains, covariance)
