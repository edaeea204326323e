"""When a query has enough pairs, and where the calls it no longer needs should go.

Certainty is the expected overlap of the estimated and the true top ten under the posterior of
`adaptive`; its expected rise by the next round, per call, is what a call is worth there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labeling.records import FloatArray, IntArray
from scoring.numerics.design import kernels, static
from scoring.numerics.design.adaptive import ChosenPairs, Posterior


class BadRule(static.DesignError):
    """A stopping rule or a share of a budget that makes no sense."""


def expected_top_recall(
    theta: FloatArray, covariance: FloatArray, *, k: int = 10, draws: int = 256, rng: np.random.Generator
) -> float:
    """Expected share of the true top k among the estimated top k, in [0, 1].

    Truth ~ N(theta, covariance); the estimate is the order of `theta` float64[n]. `covariance`
    float64[n, n] includes the dispersion. With n <= k candidates it is 1.
    """
    if k < 1:
        raise BadRule(f"k is {k}; expected 1 or more")
    if len(theta) <= k:
        return 1.0
    truth = np.asarray(theta)[:, None] + _factor(covariance) @ rng.standard_normal((len(theta), draws))
    estimate = np.asarray(theta)[:, None]
    return float(_overlap(np.broadcast_to(estimate, truth.shape), truth, k).mean())


def expected_recall_after(
    posterior: Posterior, chosen: ChosenPairs, *, k: int = 10, draws: int = 256, rng: np.random.Generator
) -> float:
    """The expected value of `expected_top_recall` after the chosen pairs have been answered.

    Looks ahead by one round: the answers move the estimate by N(0, before - after) and leave the truth
    N(0, after) around it.
    """
    n = posterior.size
    if n <= k:
        return 1.0
    after = posterior.dispersion * chosen.covariance
    moved = _factor(posterior.dispersion * posterior.covariance - after)
    estimate = posterior.theta[:, None] + moved @ rng.standard_normal((n, draws))
    truth = estimate + _factor(after) @ rng.standard_normal((n, draws))
    return float(_overlap(estimate, truth, k).mean())


@dataclass(frozen=True, slots=True)
class Outlook:
    """The outlook of a query: certainty of its top ten now and after the next round, and the round's calls."""

    recall: float
    recall_after: float
    calls: int

    @property
    def gain_per_call(self) -> float:
        """Expected rise of the certainty by one call; 0 where there is nothing to ask."""
        return max(self.recall_after - self.recall, 0.0) / self.calls if self.calls else 0.0


def outlook(
    posterior: Posterior,
    chosen: ChosenPairs,
    *,
    calls_per_pair: int = 1,
    k: int = 10,
    draws: int = 256,
    rng: np.random.Generator,
) -> Outlook:
    """The outlook of a query for which `chosen` would be asked next, each pair costing `calls_per_pair`."""
    covariance = posterior.dispersion * posterior.covariance
    return Outlook(
        recall=expected_top_recall(posterior.theta, covariance, k=k, draws=draws, rng=rng),
        recall_after=expected_recall_after(posterior, chosen, k=k, draws=draws, rng=rng),
        calls=len(chosen.pairs) * calls_per_pair,
    )


def gain_per_pair(posterior: Posterior, pairs: IntArray, *, k: int = 10, rng: np.random.Generator) -> float:
    """Expected rise of the certainty by each of the given pairs int64[m, 2], where one answer to each is expected; 0 for none."""
    if not len(pairs):
        return 0.0
    after = posterior.covariance.copy()
    a, b = (np.ascontiguousarray(pairs[:, side]) for side in (0, 1))
    kernels.add_pending(after, a, b, posterior.theta, posterior.slope)
    return outlook(posterior, ChosenPairs(pairs, np.zeros(len(pairs)), after), k=k, rng=rng).gain_per_call


def is_finished(ahead: Outlook, *, enough_recall: float = 1.0, least_gain: float = 0.0) -> bool:
    """Whether a query needs no more: certain enough, or a call would bring less than `least_gain`.

    `enough_recall` 1 and `least_gain` 0 never stop a query early.
    """
    if not 0.0 < enough_recall <= 1.0:
        raise BadRule(f"enough_recall is {enough_recall}; expected above 0 and at most 1 (1 never stops)")
    if least_gain < 0.0:
        raise BadRule(f"least_gain is {least_gain}; expected 0 or more (0 never stops)")
    sure = enough_recall < 1.0 and ahead.recall >= enough_recall
    return ahead.calls == 0 or sure or ahead.gain_per_call < least_gain


def split_budget(budget: int, worth: Sequence[float] | FloatArray, capacity: Sequence[int] | IntArray) -> IntArray:
    """Pairs of each query, int64[Q], in proportion to `worth` and within `capacity`.

    `worth` float64[Q] >= 0, for example the expected gain per call; 0 for a finished query, which gets
    nothing. What a query cannot take moves on to the others. All of the budget is spent unless every
    query of worth is full. Raises BadBudget, BadRule.
    """
    static.check_budget(budget)
    share = np.asarray(worth, dtype=np.float64)
    room = np.asarray(capacity, dtype=np.int64)
    if share.shape != room.shape or share.ndim != 1:
        raise BadRule(f"worth has shape {share.shape} and capacity {room.shape}; expected one number each a query")
    if not np.isfinite(share).all() or (share < 0).any() or (room < 0).any():
        raise BadRule("worth or capacity is negative or not finite; expected numbers of 0 or more")
    given = np.zeros(len(share), dtype=np.int64)
    room = np.where(share > 0, room, 0)
    while (left := min(budget - int(given.sum()), int((room - given).sum()))) > 0:
        open_ = room > given
        ideal = np.where(open_, share, 0.0) / share[open_].sum() * left
        step = np.floor(ideal).astype(np.int64)
        remainder = np.where(open_, ideal - step, -1.0)
        step[np.argsort(-remainder, kind="stable")[: left - int(step.sum())]] += 1
        given += np.minimum(step, room - given)
    return given


def _overlap(estimate: FloatArray, truth: FloatArray, k: int) -> FloatArray:
    """Share of the top k in common, column by column, float64[draws]."""
    return (_is_top(estimate, k) & _is_top(truth, k)).sum(axis=0) / k


def _is_top(values: FloatArray, k: int) -> np.ndarray:
    best = np.argpartition(-values, k - 1, axis=0)[:k]
    mask = np.zeros(values.shape, dtype=np.bool_)
    np.put_along_axis(mask, best, True, axis=0)
    return mask


def _factor(covariance: FloatArray) -> FloatArray:
    """L with L L' = covariance, for a semidefinite one too (its smallest eigenvalues may round below 0)."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))
