"""Strengths from single votes whose judges differ: P(a is preferred) = F(slope (theta_a - theta_b) + offset).

The counterpart of `fit` for `judges`, which supplies slope, offset and weight of each vote. Pair means do
not suffice here, since a judge's sharpness bends its whole curve. Newton and conjugate gradients are those
of `newton`, standard errors those of `uncertainty`, over pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from labeling.records import ComparisonColumns, Fit, FloatArray, IntArray
from scoring.numerics.fitting import newton
from scoring.numerics.fitting.comparisons import aggregate_pairs
from scoring.numerics.fitting.fit import NotConverged
from scoring.numerics.fitting.graph import describe_graph
from scoring.numerics.fitting.likelihood import LOGIT_SCALES, model_code, pair_terms
from scoring.numerics.fitting.newton import (
    GRADIENT_ROUNDING,
    MAX_HALVINGS,
    MAX_STEPS,
    IndexArray,
    conjugate_gradients,
    row_starts,
)
from scoring.numerics.fitting.uncertainty import EXACT_LIMIT, errors_from_terms


@dataclass(frozen=True, slots=True)
class VoteTerms:
    """Terms of each vote by its judge, float64[m]: F's slope and offset, and the vote's weight."""

    slope: FloatArray
    offset: FloatArray
    weight: FloatArray


def fit_votes(
    columns: ComparisonColumns,
    terms: VoteTerms,
    *,
    model: str,
    prior_precision: float,
    tolerance: float = 1e-8,
    start: FloatArray | None = None,
    standard_errors: bool = True,
) -> Fit:
    """Fit every query vote by vote; prior_precision > 0. Raises NotConverged, InvalidComparisons."""
    code = model_code(model)
    prior_precision, tolerance = float(prior_precision), float(tolerance)  # an int would compile again
    pairs = aggregate_pairs(columns)
    starts = np.concatenate([[0], np.cumsum(columns.sizes)]).astype(np.int64)
    owner = np.repeat(np.arange(columns.queries), np.diff(columns.offsets))
    turned = columns.a > columns.b
    low, high = np.minimum(columns.a, columns.b), np.maximum(columns.a, columns.b)
    order = np.lexsort((high, low, owner))
    slope = np.where(turned, -terms.slope, terms.slope)[order]
    theta = np.zeros(int(starts[-1])) if start is None else np.array(start, dtype=np.float64)
    stderr, norms = np.full(len(theta), np.nan), np.zeros(columns.queries)
    phi, steps = np.full(columns.queries, np.nan), np.zeros(columns.queries, dtype=np.int64)
    votes = (low[order], high[order], columns.preference[order], terms.weight[order], slope, terms.offset[order])
    _solve(code, *votes, columns.offsets, starts, prior_precision, tolerance, theta, norms, steps)
    _check(norms, tolerance, terms.weight, columns.offsets)
    if standard_errors:
        _errors(code, *votes, columns.offsets, starts, prior_precision, theta, stderr, phi)
    standing = describe_graph(pairs, starts)
    return Fit(
        theta=theta,
        stderr=stderr,
        starts=starts,
        dispersion=phi,
        gradient_norm=norms,
        iterations=steps,
        component=standing.component,
        comparisons=standing.comparisons,
        undefeated=standing.undefeated,
        winless=standing.winless,
        prior_precision=prior_precision,
        logit_scale=LOGIT_SCALES[model],
    )


def _check(norms: FloatArray, tolerance: float, weight: FloatArray, offsets: IntArray) -> None:
    totals = np.diff(np.concatenate([[0.0], np.cumsum(weight)])[offsets])
    failed = np.flatnonzero(~(norms <= np.maximum(tolerance, GRADIENT_ROUNDING * totals)))
    if failed.size:
        raise NotConverged(failed, norms[failed], tolerance)


@njit(cache=True, nogil=True, error_model="numpy")
def _evaluate(
    model: int,
    theta: FloatArray,
    precision: float,
    rows: IndexArray,
    b: IndexArray,
    p: FloatArray,
    m: FloatArray,
    slope: FloatArray,
    offset: FloatArray,
    edges: FloatArray,
    g: FloatArray,
) -> float:
    """As newton.evaluate, with each vote's slope and offset."""
    n = theta.size
    newton._differences(theta, rows, b, n, edges[0])
    for e in range(b.size):
        edges[0, e] = slope[e] * edges[0, e] + offset[e]
    pair_terms(model, edges[0], p, m, edges[1], edges[2], b.size)
    for e in range(b.size):
        edges[1, e] *= slope[e]
        edges[2, e] *= slope[e] * slope[e]
    return newton._gradient(theta, edges[1], precision, rows, b, n, g)


@njit(cache=True, nogil=True, error_model="numpy")
def _solve_query(
    model: int,
    rows: IndexArray,
    b: IndexArray,
    p: FloatArray,
    m: FloatArray,
    slope: FloatArray,
    offset: FloatArray,
    precision: float,
    tolerance: float,
    theta: FloatArray,
) -> tuple[float, int]:
    n = theta.size
    edges, work = np.empty((3, max(b.size, 1))), np.empty((6, n))
    g, x = work[4], work[5]
    norm = _evaluate(model, theta, precision, rows, b, p, m, slope, offset, edges, g)
    steps = 0
    while norm > tolerance and steps < MAX_STEPS:
        forcing = min(0.1, max(norm, 0.3 * tolerance / norm))
        conjugate_gradients(edges[2], precision, rows, b, n, g, forcing * norm, x, work)
        before, length = norm, 1.0
        downhill = np.dot(g, x)
        theta += x
        for _ in range(MAX_HALVINGS):
            norm = _evaluate(model, theta, precision, rows, b, p, m, slope, offset, edges, g)
            if np.dot(g, x) <= -0.5 * downhill or norm <= before:
                break
            length *= 0.5
            theta -= length * x
        steps += 1
    return norm, steps


@njit(cache=True, nogil=True, error_model="numpy")
def _solve(
    model: int,
    a: IntArray,
    b: IntArray,
    p: FloatArray,
    m: FloatArray,
    slope: FloatArray,
    offset: FloatArray,
    offsets: IntArray,
    starts: IntArray,
    precision: float,
    tolerance: float,
    theta: FloatArray,
    norms: FloatArray,
    steps: IntArray,
) -> None:
    for q in range(offsets.size - 1):
        part = slice(offsets[q], offsets[q + 1])
        strengths = theta[starts[q] : starts[q + 1]]
        rows = np.empty(strengths.size + 1, np.uint32)
        row_starts(a[part], strengths.size, rows)
        limit = max(tolerance, GRADIENT_ROUNDING * m[part].sum())
        others = b[part].astype(np.uint32)
        norms[q], steps[q] = _solve_query(
            model, rows, others, p[part], m[part], slope[part], offset[part], precision, limit, strengths
        )


@njit(cache=True, nogil=True, error_model="numpy")
def _errors(
    model: int,
    a: IntArray,
    b: IntArray,
    p: FloatArray,
    m: FloatArray,
    slope: FloatArray,
    offset: FloatArray,
    offsets: IntArray,
    starts: IntArray,
    precision: float,
    theta: FloatArray,
    stderr: FloatArray,
    phi: FloatArray,
) -> None:
    """Standard errors in place; votes on one pair are summed first, so that shared errors show in phi."""
    for q in range(offsets.size - 1):
        part = slice(offsets[q], offsets[q + 1])
        strengths, variance = theta[starts[q] : starts[q + 1]], stderr[starts[q] : starts[q + 1]]
        n = strengths.size
        if n == 1:
            variance[0], phi[q] = 0.0, 1.0
            continue
        low, high = a[part], b[part]
        rows, others = np.empty(n + 1, np.uint32), high.astype(np.uint32)
        row_starts(low, n, rows)
        edges, g = np.empty((3, max(low.size, 1))), np.empty(n)
        _evaluate(model, strengths, precision, rows, others, p[part], m[part], slope[part], offset[part], edges, g)
        pairs = 0
        for e in range(low.size):
            if e == 0 or low[e] != low[e - 1] or high[e] != high[e - 1]:
                others[pairs] = high[e]
                low_of_pair = low[e]
                edges[0, pairs] = low_of_pair
                edges[1, pairs], edges[2, pairs] = edges[1, e], edges[2, e]
                pairs += 1
            else:
                edges[1, pairs - 1] += edges[1, e]
                edges[2, pairs - 1] += edges[2, e]
        row_starts(edges[0, :pairs].astype(np.int64), n, rows)
        phi[q] = errors_from_terms(
            rows, others[:pairs], edges[1, :pairs], edges[2, :pairs], precision, EXACT_LIMIT, variance
        )
        variance[:] = np.sqrt(phi[q] * variance)
