"""Do two references order a set of systems alike? Kendall's tau and Pearson's r between the systems' means.

TREC validates automatic labels this way (Voorhees, SIGIR 1998; tau-b of Kendall, Biometrika 1945). The interval is a
percentile bootstrap over queries: the systems stay, the topics vary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labeling.records import FloatArray
from scoring.numerics.measures.metrics import MetricInput
from scoring.numerics.measures.resampling import Interval

FEWEST_SYSTEMS = 3
_CHUNK_VALUES = 2_000_000


@dataclass(frozen=True, slots=True)
class OrderAgreement:
    """Kendall's tau-b and Pearson's r in [-1, 1] between two orders of the same systems, each with its interval."""

    kendall: Interval
    pearson: Interval


def order_agreement(
    first: FloatArray, second: FloatArray, *, rng: np.random.Generator, level: float = 0.95, resamples: int = 2_000
) -> OrderAgreement:
    """Compare the means over queries of `first` and `second`, float64[systems, queries] on the same systems and queries.

    A draw in which all means of one reference are equal orders nothing and counts as 0. Raises MetricInput for fewer than
    three systems or other than finite values.
    """
    left, right = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 2 or left.shape[0] < FEWEST_SYSTEMS or not left.shape[1]:
        raise MetricInput(
            f"values of shape {left.shape} and {right.shape}; expected the same systems (at least {FEWEST_SYSTEMS}) and "
            "queries in both"
        )
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        raise MetricInput("values that are not finite; expected one number for each system and query")
    systems, queries = left.shape
    # So that neither the order in which systems are stored nor the queries' names have a say in the intervals.
    rank = np.lexsort(np.concatenate([np.sort(left, axis=1), np.sort(right, axis=1)], axis=1).T)
    left, right = left[rank], right[rank]
    order = np.lexsort(np.concatenate([left, right]))
    left, right = left[:, order], right[:, order]
    step = max(1, _CHUNK_VALUES // (queries + systems * systems))
    drawn: list[FloatArray] = []
    for done in range(0, resamples, step):
        rows = min(step, resamples - done)
        counts = rng.multinomial(queries, np.full(queries, 1.0 / queries), size=rows).astype(np.float64) / queries
        drawn.append(_agreements(counts @ left.T, counts @ right.T))
    whole = _agreements(left.mean(axis=1)[None, :], right.mean(axis=1)[None, :])[0]
    edges = np.quantile(np.concatenate(drawn), [(1.0 - level) / 2.0, (1.0 + level) / 2.0], axis=0)
    kendall, pearson = (
        Interval(estimate=float(whole[column]), low=float(edges[0, column]), high=float(edges[1, column]),
                 level=level, count=queries)
        for column in (0, 1)
    )  # fmt: skip
    return OrderAgreement(kendall, pearson)


def _agreements(left: FloatArray, right: FloatArray) -> FloatArray:
    """Tau-b and r of each row: float64[draws, systems] twice -> float64[draws, 2]."""
    return np.stack([_kendall(left, right), _pearson(left, right)], axis=1)


def _kendall(left: FloatArray, right: FloatArray) -> FloatArray:
    above = np.triu_indices(left.shape[1], k=1)
    # Means of the same values in another order of summation differ in the last digits.
    signs = [np.sign(np.round(side[:, above[0]] - side[:, above[1]], 12)) for side in (left, right)]
    return _ratio((signs[0] * signs[1]).sum(axis=1), (signs[0] ** 2).sum(axis=1), (signs[1] ** 2).sum(axis=1))


def _pearson(left: FloatArray, right: FloatArray) -> FloatArray:
    own = [side - side.mean(axis=1, keepdims=True) for side in (left, right)]
    return _ratio((own[0] * own[1]).sum(axis=1), (own[0] ** 2).sum(axis=1), (own[1] ** 2).sum(axis=1))


def _ratio(product: FloatArray, first: FloatArray, second: FloatArray) -> FloatArray:
    scale = np.sqrt(first * second)
    return np.clip(np.divide(product, scale, out=np.zeros_like(product), where=scale > 1e-15), -1.0, 1.0)
