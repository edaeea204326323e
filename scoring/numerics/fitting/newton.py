"""The compiled solver of one query: inexact Newton, each step by preconditioned conjugate gradients.

Works on the edge list alone, so that a query costs O(pairs) memory regardless of its size. `fit` calls
`solve_queries` from several threads; every query is solved by the same arithmetic in the same
order, so that results do not depend on the number of threads.

    minimise  (lambda / 2) |theta|^2 - sum_e m_e [p_e log F(d_e) + (1 - p_e) log F(-d_e)]
    step      (lambda I + L_h) x = -g,    L_h the Laplacian of the pair curvatures h
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from labeling.records import FloatArray, IntArray
from scoring.numerics.fitting.likelihood import pair_terms

# Candidates and row ends inside compiled loops: unsigned, so that no wrap-around is checked for.
IndexArray = npt.NDArray[np.uint32]

MAX_STEPS = 200
MAX_HALVINGS = 40

# Rounding of a gradient whose terms sum to the total weight W is about W * 1e-16.
GRADIENT_ROUNDING = 1e-14


@njit(cache=True, nogil=True, error_model="numpy")
def row_starts(a: IntArray, n: int, starts: IndexArray) -> None:
    """starts[i] .. starts[i + 1]: the pairs whose first candidate is i; `a` ascends."""
    starts[: n + 1] = 0
    for e in range(a.size):
        starts[a[e] + 1] += 1
    for i in range(n):
        starts[i + 1] += starts[i]


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def _differences(theta: FloatArray, starts: IndexArray, b: IndexArray, n: int, d: FloatArray) -> None:
    for i in range(np.uint32(n)):
        own = theta[i]
        for e in range(starts[i], starts[i + np.uint32(1)]):
            d[e] = own - theta[b[e]]


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def _gradient(
    theta: FloatArray, score: FloatArray, precision: float, starts: IndexArray, b: IndexArray, n: int, g: FloatArray
) -> float:
    """g = lambda theta - sum of scores; its Euclidean norm."""
    for i in range(np.uint32(n)):
        g[i] = precision * theta[i]
    for i in range(np.uint32(n)):
        own = 0.0
        for e in range(starts[i], starts[i + np.uint32(1)]):
            own += score[e]
            g[b[e]] += score[e]
        g[i] -= own
    total = 0.0
    for i in range(np.uint32(n)):
        total += g[i] * g[i]
    return math.sqrt(total)


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def conjugate_gradients(
    h: FloatArray,
    precision: float,
    starts: IndexArray,
    b: IndexArray,
    n: int,
    g: FloatArray,
    limit: float,
    x: FloatArray,
    work: FloatArray,
) -> None:
    """Fill x so that |(lambda I + L_h) x + g| <= limit; `work` float64[4, >= n]. Jacobi preconditioner."""
    r, s, y, inverse = work[0], work[1], work[2], work[3]
    for i in range(n):
        inverse[i] = precision
    for i in range(np.uint32(n)):
        own = 0.0
        for e in range(starts[i], starts[i + np.uint32(1)]):
            own += h[e]
            inverse[b[e]] += h[e]
        inverse[i] += own
    rho = 0.0
    for i in range(n):
        inverse[i] = 1.0 / inverse[i] if inverse[i] > 0.0 else 0.0
        x[i] = 0.0
        r[i] = -g[i]
        s[i] = inverse[i] * r[i]
        rho += r[i] * s[i]
    target = limit * limit
    for _ in range(10 * n + 50):
        for i in range(n):
            y[i] = precision * s[i]
        for i in range(np.uint32(n)):
            own, here = 0.0, s[i]
            for e in range(starts[i], starts[i + np.uint32(1)]):
                flow = h[e] * (here - s[b[e]])
                own += flow
                y[b[e]] -= flow
            y[i] += own
        curvature = 0.0
        for i in range(n):
            curvature += s[i] * y[i]
        if not curvature > 0.0:
            return
        alpha, residual, following = rho / curvature, 0.0, 0.0
        for i in range(n):
            x[i] += alpha * s[i]
            r[i] -= alpha * y[i]
            residual += r[i] * r[i]
            following += r[i] * r[i] * inverse[i]
        if residual <= target:
            return
        beta = following / rho
        rho = following
        for i in range(n):
            s[i] = inverse[i] * r[i] + beta * s[i]


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def evaluate(
    model: int,
    theta: FloatArray,
    precision: float,
    starts: IndexArray,
    b: IndexArray,
    p: FloatArray,
    m: FloatArray,
    n: int,
    edges: FloatArray,
    g: FloatArray,
) -> float:
    """Gradient into g and scores and curvatures into edges[1], edges[2]; the gradient's norm."""
    _differences(theta, starts, b, n, edges[0])
    pair_terms(model, edges[0], p, m, edges[1], edges[2], b.size)
    return _gradient(theta, edges[1], precision, starts, b, n, g)


@njit(cache=True, nogil=True, error_model="numpy")
def solve_query(
    model: int,
    starts: IndexArray,
    b: IndexArray,
    p: FloatArray,
    m: FloatArray,
    precision: float,
    tolerance: float,
    theta: FloatArray,
    edges: FloatArray,
    work: FloatArray,
) -> tuple[float, int]:
    """Minimise from the given theta, in place; (gradient norm, steps taken).

    Takes the full step unless the slope along it comes out steeper upwards than half of what it
    was downwards: the function is convex, so that slopes alone tell an overshoot and no
    logarithm is needed. `edges` float64[3, >= pairs], `work` float64[6, >= n].
    """
    n = theta.size
    g, x = work[4], work[5]
    norm = evaluate(model, theta, precision, starts, b, p, m, n, edges, g)
    steps = 0
    while norm > tolerance and steps < MAX_STEPS:
        forcing = min(0.1, max(norm, 0.3 * tolerance / norm))
        conjugate_gradients(edges[2], precision, starts, b, n, g, forcing * norm, x, work)
        before = norm
        slope, length = 0.0, 1.0
        for i in range(n):
            slope += g[i] * x[i]
            theta[i] += x[i]
        for _ in range(MAX_HALVINGS):
            norm = evaluate(model, theta, precision, starts, b, p, m, n, edges, g)
            ahead = 0.0
            for i in range(n):
                ahead += g[i] * x[i]
            if ahead <= -0.5 * slope or norm <= before:
                break
            length *= 0.5
            for i in range(n):
                theta[i] -= length * x[i]
        steps += 1
    return norm, steps


@njit(cache=True, nogil=True, error_model="numpy")
def solve_queries(
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
    tolerance: float,
    theta: FloatArray,
    norms: FloatArray,
    steps: IntArray,
) -> None:
    """Solve queries first .. last - 1 in place. Query q: pairs offsets[q] .., candidates starts[q] .. ."""
    pairs, widest = 1, 1
    for q in range(first, last):
        pairs = max(pairs, offsets[q + 1] - offsets[q])
        widest = max(widest, starts[q + 1] - starts[q])
    edges, work = np.empty((3, pairs)), np.empty((6, widest))
    rows, others = np.empty(widest + 1, np.uint32), np.empty(pairs, np.uint32)
    for q in range(first, last):
        head, tail = offsets[q], offsets[q + 1]
        strengths = theta[starts[q] : starts[q + 1]]
        total = 0.0
        for e in range(tail - head):
            others[e] = b[head + e]
            total += m[head + e]
        row_starts(a[head:tail], strengths.size, rows)
        strengths -= strengths.mean()
        limit = max(tolerance, GRADIENT_ROUNDING * total)
        norms[q], steps[q] = solve_query(
            model, rows, others[: tail - head], p[head:tail], m[head:tail], precision, limit, strengths, edges, work
        )
        strengths -= strengths.mean()
