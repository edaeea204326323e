"""Standard errors of fitted strengths: phi J (H + lambda I)^-1 J, with J = I - 11'/n.

Up to EXACT_LIMIT candidates from a dense Cholesky factor; above it from local conductances
(Gaussian belief propagation), which is exact on trees and within half a percent on average on unions of random
cycles (single candidates within 7 % at degree 4, 1 % at degree 8), and is to be labelled approximate. phi is the dispersion of *pair means*, so that errors that judges share on
a pair widen the intervals. Called by `fit` on each query's optimum.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from labeling.records import FloatArray, IntArray
from scoring.numerics.fitting.newton import IndexArray, evaluate, row_starts

EXACT_LIMIT = 1000

# Dispersion starts from this many pairs' worth of plain Bernoulli noise (phi = 1), so that
# three agreeing answers do not claim to be exact.
PSEUDO_PAIRS = 1.0

# Belief propagation: at most so many sweeps, until precisions change by less than this share.
_SWEEPS, _SETTLED = 60, 1e-4


@njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"}, error_model="numpy")
def _dot(x: FloatArray, y: FloatArray, first: int, last: int) -> float:
    total = 0.0
    for k in range(first, last):
        total += x[k] * y[k]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _inverse_factor(matrix: FloatArray, factor: FloatArray) -> None:
    """Rows T[i, i:] with inverse(matrix) = T T'. Overwrites the lower half of `matrix` by its Cholesky factor."""
    n = matrix.shape[0]
    for i in range(n):
        for j in range(i):
            matrix[i, j] = (matrix[i, j] - _dot(matrix[i], matrix[j], 0, j)) / matrix[j, j]
        matrix[i, i] = math.sqrt(matrix[i, i] - _dot(matrix[i], matrix[i], 0, i))
    for i in range(n):
        row = factor[i]
        row[i] = 1.0 / matrix[i, i]
        for k in range(i + 1, n):
            row[k] = -_dot(matrix[k], row, i, k) / matrix[k, k]


@njit(cache=True, nogil=True, error_model="numpy")
def _exact(rows: IndexArray, b: IndexArray, h: FloatArray, precision: float, variance: FloatArray) -> float:
    """Diagonal of J (L_h + lambda I)^-1 J into `variance`; sum of h times leverage returned.

    11'/n times the mean diagonal is added before and taken out after, which changes nothing under J
    and keeps the matrix invertible at lambda = 0.
    """
    n = variance.size
    matrix, factor = np.zeros((n, n)), np.empty((n, n))
    total = 0.0
    for i in range(n):
        matrix[i, i] += precision
        for e in range(rows[i], rows[i + 1]):
            j = int(b[e])
            matrix[i, i] += h[e]
            matrix[j, j] += h[e]
            matrix[j, i] -= h[e]
            total += 2.0 * h[e]
    level = max(total / n, precision, 1e-12)
    for i in range(n):
        for j in range(i + 1):
            matrix[i, j] += level / n
    _inverse_factor(matrix, factor)
    for i in range(n):
        variance[i] = _dot(factor[i], factor[i], i, n)
    leveraged = 0.0
    for i in range(n):
        for e in range(rows[i], rows[i + 1]):
            j = int(b[e])
            leveraged += h[e] * h[e] * (variance[i] + variance[j] - 2.0 * _dot(factor[i], factor[j], j, n))
    for i in range(n):
        variance[i] = max(variance[i] - 1.0 / (n * (precision + level)), 0.0)
    return leveraged


@njit(cache=True, nogil=True, error_model="numpy")
def _local(rows: IndexArray, b: IndexArray, h: FloatArray, precision: float, variance: FloatArray) -> float:
    """As _exact, by belief propagation: `into[i]` sums what i's neighbours carry to the ground.

    Each pair is a resistor of conductance h, the prior one of conductance lambda to the ground.
    """
    n = variance.size
    forth, back = h.copy(), h.copy()  # conductance through a pair seen from b (beyond a), and from a (beyond b)
    into = np.empty(n)
    before = np.zeros(n)
    for _ in range(_SWEEPS):
        into[:] = precision
        for i in range(n):
            for e in range(rows[i], rows[i + 1]):
                into[i] += back[e]
                into[b[e]] += forth[e]
        change = 0.0
        for i in range(n):
            change = max(change, abs(into[i] - before[i]) / max(into[i], 1e-300))
            before[i] = into[i]
        if change < _SETTLED:
            break
        for i in range(n):
            for e in range(rows[i], rows[i + 1]):
                beyond_a = max(into[i] - back[e], 0.0)
                beyond_b = max(into[b[e]] - forth[e], 0.0)
                forth[e] = h[e] * beyond_a / (h[e] + beyond_a) if h[e] > 0.0 else 0.0
                back[e] = h[e] * beyond_b / (h[e] + beyond_b) if h[e] > 0.0 else 0.0
    for i in range(n):
        variance[i] = 1.0 / into[i] if into[i] > 0.0 else np.inf
    leveraged = 0.0
    for i in range(n):
        for e in range(rows[i], rows[i + 1]):
            x, y = max(into[i] - back[e], 0.0), max(into[b[e]] - forth[e], 0.0)
            detour = x * y / (x + y) if x + y > 0.0 else 0.0
            leveraged += h[e] * h[e] / (h[e] + detour) if h[e] > 0.0 else 0.0
    return leveraged


@njit(cache=True, nogil=True, error_model="numpy")
def errors_from_terms(
    rows: IndexArray,
    b: IndexArray,
    score: FloatArray,
    h: FloatArray,
    precision: float,
    limit: int,
    variance: FloatArray,
) -> float:
    """Fill `variance` with J (H + lambda I)^-1 J's diagonal; the dispersion phi is returned.

    phi = sum r^2 / sum h (1 - leverage) over pairs, r their scores and h their curvatures. Exact where there
    are at most `limit` candidates.
    """
    exact = variance.size <= limit
    leveraged = _exact(rows, b, h, precision, variance) if exact else _local(rows, b, h, precision, variance)
    squares, information = 0.0, 0.0
    for e in range(b.size):
        squares += score[e] * score[e]
        information += h[e]
    if not information > 0.0:
        return 1.0
    pseudo = PSEUDO_PAIRS * information / b.size
    return (squares + pseudo) / (max(information - leveraged, 0.0) + pseudo)


@njit(cache=True, nogil=True, error_model="numpy")
def query_errors(
    model: int,
    rows: IndexArray,
    b: IndexArray,
    p: FloatArray,
    m: FloatArray,
    precision: float,
    limit: int,
    theta: FloatArray,
    variance: FloatArray,
) -> float:
    """As errors_from_terms, at the strengths of one query."""
    n = theta.size
    if n == 1:
        variance[0] = 0.0
        return 1.0
    edges, gradient = np.empty((3, max(b.size, 1))), np.empty(n)
    evaluate(model, theta, precision, rows, b, p, m, n, edges, gradient)
    return errors_from_terms(rows, b, edges[1, : b.size], edges[2, : b.size], precision, limit, variance)


@njit(cache=True, nogil=True, error_model="numpy")
def errors_of_queries(
    model: int,
    a: IntArray,
    b: IntArray,
    p: FloatArray,
    m: FloatArray,
    offsets: IntArray,
    starts: IntArray,
    first: int,
    last: int,
    precision: float,
    limit: int,
    theta: FloatArray,
    stderr: FloatArray,
    phi: FloatArray,
) -> None:
    """Standard errors and dispersion of queries first .. last - 1, in place; layout as in newton.solve_queries."""
    for q in range(first, last):
        head, tail = offsets[q], offsets[q + 1]
        n = starts[q + 1] - starts[q]
        rows = np.empty(n + 1, np.uint32)
        row_starts(a[head:tail], n, rows)
        others = b[head:tail].astype(np.uint32)
        variance = stderr[starts[q] : starts[q + 1]]
        phi[q] = query_errors(
            model,
            rows,
            others,
            p[head:tail],
            m[head:tail],
            precision,
            limit,
            theta[starts[q] : starts[q + 1]],
            variance,
        )
        for i in range(n):
            variance[i] = math.sqrt(phi[q] * variance[i])
