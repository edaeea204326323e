"""The correlation of preferences that come from one call about a set of documents, and the weight that it leaves them.

Model: a preference errs by e_ij, with variance phi; two preferences of one call that share a document, both read from that
document's side, have the covariance rho phi, and others of the call none. An error on each document in the call alone gives rho
= 1/2, errors on each pair give 0. Under this model the average over all pairs of a set of k documents is worth as much as
independent preferences of weight 1 / (1 + (k - 2) rho), and the same holds for a winner's k - 1 preferences (the
design effect of clusters, Kish 1965). The fit absorbs a part of the errors, so the estimate equates two sums of
residuals with what the hat matrix leaves of them (the fitting-of-constants moments of Henderson 1953).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labeling.records import FloatArray, IntArray
from scoring.numerics.fitting.likelihood import LOGIT_SCALES, probability

# Until it is measured, all preferences of a call count as one vote.
UNMEASURED = 1.0
# Fewer calls than this leave the estimate to chance.
FEWEST_CALLS = 30
# An error on each document makes 1/2; a choice of a winner, which all its preferences share, makes at most 1.
RANGE = (0.0, 1.0)
# Matrices of a query are dense in its votes.
MOST_VOTES = 1_500


def call_weight(size: int | IntArray, correlation: float) -> FloatArray:
    """The weight of each preference of a call about `size` documents: 1 / (1 + (size - 2) correlation), in (0, 1]."""
    return np.asarray(1.0 / (1.0 + (np.asarray(size, dtype=np.float64) - 2.0) * correlation))


@dataclass(frozen=True, slots=True)
class CallVotes:
    """One query's votes as a fit sees them. `a`, `b` int64[m], `preference`, `weight` float64[m], `theta` float64[n].

    `call` int64[m]: equal numbers are one call of the judge that is measured; -1 for all other votes.
    """

    a: IntArray
    b: IntArray
    preference: FloatArray
    weight: FloatArray
    call: IntArray
    theta: FloatArray


@dataclass(frozen=True, slots=True)
class CallCorrelation:
    """rho of one judge with its standard error (jackknife over queries, infinite for one), the error's dispersion phi, and
    how many calls it rests on.
    """

    correlation: float
    stderr: float
    dispersion: float
    calls: int


def call_correlation(
    queries: Sequence[CallVotes], *, model: str = "thurstone", prior_precision: float = 0.1
) -> CallCorrelation | None:
    """Estimate rho over these queries; None with fewer than 30 calls that hold two preferences of one document."""
    moments, calls = [], 0
    for votes in queries:
        if len(votes.a) > MOST_VOTES or not (votes.call >= 0).any():
            continue
        moments.append(_moments(votes, model, prior_precision))
        calls += len(np.unique(votes.call[votes.call >= 0]))
    if calls < FEWEST_CALLS:
        return None
    rows = np.array(moments)
    total = rows.sum(axis=0)
    estimate, phi = _solve(total)
    if not np.isfinite(estimate):
        return None
    without = np.array([_solve(total - row)[0] for row in rows])
    without = without[np.isfinite(without)]
    count = len(without)
    stderr = float(np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum())) if count > 1 else np.inf
    return CallCorrelation(float(np.clip(estimate, *RANGE)), stderr, phi, calls)


def shared_signs(a: IntArray, b: IntArray, call: IntArray) -> FloatArray:
    """float64[m, m]: 1 where two votes of one call share a document and read it from the same side, -1 from opposite
    sides, 0 elsewhere and on the diagonal.
    """
    same = (call[:, None] == call[None, :]) & (call >= 0)[:, None]
    np.fill_diagonal(same, False)
    signs = (a[:, None] == a[None, :]).astype(np.float64) + (b[:, None] == b[None, :])
    signs -= (a[:, None] == b[None, :]).astype(np.float64) + (b[:, None] == a[None, :])
    # Two votes of one call on one pair cannot be; they would share both documents.
    return np.where(same, signs, 0.0)


def _moments(votes: CallVotes, model: str, prior_precision: float) -> FloatArray:
    """(sum of squares, sum of signed products, and what phi and rho phi contribute to either), float64[6]."""
    slope = LOGIT_SCALES[model]
    p = np.clip(probability(votes.theta[votes.a] - votes.theta[votes.b], model=model), 1e-6, 1.0 - 1e-6)
    spread = np.sqrt(p * (1.0 - p))
    root = np.sqrt(votes.weight)
    residual = root * (votes.preference - p) / np.maximum(spread, 0.1)
    size, count = len(votes.theta), len(votes.a)
    design = np.zeros((count, size))
    rows = np.arange(count)
    design[rows, votes.a] += slope * spread * root
    design[rows, votes.b] -= slope * spread * root
    hat = design @ np.linalg.solve(design.T @ design + prior_precision * np.eye(size), design.T)
    left = np.eye(count) - hat
    signs = shared_signs(votes.a, votes.b, votes.call)
    mine = np.flatnonzero(votes.call >= 0)
    alone = (left * votes.weight) @ left.T
    common = left @ (np.outer(root, root) * signs) @ left.T
    squares, products = np.square(residual[mine]).sum(), residual @ signs @ residual
    return np.array(
        [
            squares,
            products,
            alone[mine, mine].sum(),
            common[mine, mine].sum(),
            (signs * alone).sum(),
            (signs * common).sum(),
        ]
    )


def _solve(moments: FloatArray) -> tuple[float, float]:
    """(rho, phi) from summed moments; NaN where they have no solution."""
    matrix = np.array([[moments[2], moments[3]], [moments[4], moments[5]]])
    if abs(np.linalg.det(matrix)) <= 1e-12 * float(np.abs(matrix).max() ** 2 + 1e-300):
        return np.nan, np.nan
    phi, common = np.linalg.solve(matrix, moments[:2])
    return (float(common / phi), float(phi)) if phi > 0.0 else (np.nan, np.nan)
