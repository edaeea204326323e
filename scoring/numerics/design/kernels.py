"""Compiled inner loops of the adaptive designs: working posterior, expected curvature, greedy choice.

Dense in the candidates of one query, so time goes as size^3 for the posterior and size^2 for each pair
chosen. `design_adaptive` holds the mathematics and the frozen results; nothing else calls these.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from labeling.records import BoolArray, FloatArray, IntArray

# Gauss-Hermite, five nodes: sum of w f(m + sd x) is E f over a normal with mean m and deviation sd.
_NODES = np.array([-2.856970013872805, -1.355626179974265, 0.0, 1.355626179974265, 2.856970013872805])
_NODE_WEIGHTS = np.array(
    [0.011257411327720, 0.222075922005613, 0.533333333333333, 0.222075922005613, 0.011257411327720]
)

DISPERSION_RANGE = (0.003, 2.0)
PRECISION_RANGE = (1e-3, 1e3)


@numba.njit(cache=True)
def _expit(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-x))


@numba.njit(cache=True)
def curvature(d: float, slope: float) -> float:
    """-d2/dd2 of the log-likelihood of one vote under P = expit(slope d)."""
    p = _expit(slope * d)
    return slope * slope * p * (1.0 - p)


@numba.njit(cache=True)
def _maximise(
    a: IntArray,
    b: IntArray,
    preference: FloatArray,
    weight: FloatArray,
    slope: float,
    precision: float,
    mean: FloatArray,
    theta: FloatArray,
) -> FloatArray:
    """The penalised maximum near `theta` under a N(mean, 1 / precision) prior; returns the Hessian.

    Steps are capped at one logit: the logistic likelihood is concave, so that capped Newton settles.
    """
    n = len(theta)
    hessian = np.zeros((n, n))
    for _ in range(25):
        gradient = precision * (mean - theta)
        hessian[:] = 0.0
        for i in range(n):
            hessian[i, i] = precision
        for e in range(len(a)):
            i, j = a[e], b[e]
            p = _expit(slope * (theta[i] - theta[j]))
            r = weight[e] * slope * (preference[e] - p)
            h = weight[e] * slope * slope * p * (1.0 - p)
            gradient[i] += r
            gradient[j] -= r
            hessian[i, i] += h
            hessian[j, j] += h
            hessian[i, j] -= h
            hessian[j, i] -= h
        step = np.linalg.solve(hessian, gradient)
        largest = np.abs(step).max() * slope
        if largest > 1.0:
            step /= largest
        theta += step
        if largest < 1e-4:
            break
    return hessian


@numba.njit(cache=True)
def empirical_posterior(
    a: IntArray,
    b: IntArray,
    preference: FloatArray,
    weight: FloatArray,
    slope: float,
    precision: float,
    basis: FloatArray,
    theta: FloatArray,
    passes: int,
) -> tuple[FloatArray, float, float, float]:
    """Empirical Bayes by EM: prior N(beta basis, tau^2), dispersion phi of the votes.

    `theta` is changed in place. Returns (covariance without dispersion, phi, precision = phi / tau^2, beta).
    """
    n = len(theta)
    scale = (basis * basis).sum()
    beta, phi = 0.0, 1.0
    covariance = np.zeros((n, n))
    for done in range(passes + 1):
        hessian = _maximise(a, b, preference, weight, slope, precision, beta * basis, theta)
        covariance[:] = np.linalg.inv(hessian)
        squares, leverage = 0.0, 0.0
        for e in range(len(a)):
            i, j = a[e], b[e]
            p = _expit(slope * (theta[i] - theta[j]))
            squares += weight[e] * (preference[e] - p) ** 2 / max(p * (1.0 - p), 0.01)
            v = covariance[i, i] + covariance[j, j] - 2.0 * covariance[i, j]
            leverage += weight[e] * slope * slope * p * (1.0 - p) * v
        # Two pseudo-residuals of variance one keep phi sane while there are few spare pairs.
        phi = (squares + 2.0) / (max(len(a) - leverage, 0.0) + 2.0)
        phi = min(max(phi, DISPERSION_RANGE[0]), DISPERSION_RANGE[1])
        if done == passes:
            break
        if scale > 0.0:
            beta = max((basis * theta).sum() / scale, 0.0)
        common = covariance.sum() / (n * n)
        spread = 0.0
        for i in range(n):
            spread += (theta[i] - beta * basis[i]) ** 2 + phi * (covariance[i, i] - common)
        precision = min(max(phi * n / max(spread, 1e-12), PRECISION_RANGE[0]), PRECISION_RANGE[1])
    return covariance, phi, precision, beta


@numba.njit(cache=True)
def add_pending(covariance: FloatArray, a: IntArray, b: IntArray, theta: FloatArray, slope: float) -> None:
    """Shrink the covariance, in place, as if each pair (a, b) had one answer."""
    for e in range(len(a)):
        i, j = a[e], b[e]
        h = curvature(theta[i] - theta[j], slope)
        u = covariance[:, i] - covariance[:, j]
        g = h / (1.0 + h * (u[i] - u[j]))
        for r in range(len(u)):
            for c in range(len(u)):
                covariance[r, c] -= g * u[r] * u[c]


@numba.njit(cache=True)
def expected_curvature(theta: FloatArray, covariance: FloatArray, phi: float, slope: float) -> FloatArray:
    """E h(d) of every pair over its posterior difference d, float64[n, n]."""
    n = len(theta)
    expected = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1, n):
            v = max(covariance[i, i] + covariance[j, j] - 2.0 * covariance[i, j], 0.0)
            deviation = math.sqrt(phi * v)
            total = 0.0
            for k in range(len(_NODES)):
                total += _NODE_WEIGHTS[k] * curvature(theta[i] - theta[j] + deviation * _NODES[k], slope)
            expected[i, j] = expected[j, i] = total
    return expected


@numba.njit(cache=True)
def confusion(theta: FloatArray, covariance: FloatArray, phi: float, discount: FloatArray) -> FloatArray:
    """The value of a falling variance of each difference, float64[n, n], up to a factor.

    The expected loss of putting i and j in the wrong order by a posterior N(m, v) of their difference grows
    with v at the rate N(0; m, v) / 2; it costs the mean difference of their discounts.
    `discount` float64[n, draws]: rank discount of each candidate in each posterior draw.
    """
    n, draws = discount.shape
    worth = np.zeros((n, n))
    for i in range(n):
        for j in range(i):
            v = max(phi * (covariance[i, i] + covariance[j, j] - 2.0 * covariance[i, j]), 1e-12)
            density = math.exp(-0.5 * (theta[i] - theta[j]) ** 2 / v) / math.sqrt(v)
            total = 0.0
            if density > 1e-9:
                for r in range(draws):
                    total += abs(discount[i, r] - discount[j, r])
            worth[i, j] = worth[j, i] = density * total / draws
    return worth


@numba.njit(cache=True)
def greedy_pairs(
    covariance: FloatArray, expected: FloatArray, importance: FloatArray, free: BoolArray, count: int
) -> tuple[IntArray, FloatArray]:
    """Up to `count` free pairs, each the one that most lowers trace(importance covariance).

    The gain of a pair is h u'Wu / (1 + h v). With G = C W C kept beside C, u'Wu of every pair is a sum of
    three entries, and both follow a pick by rank-one updates. Changes all but `expected` and
    `importance`. Returns int64[m, 2] with a < b and the gains float64[m].
    """
    n = len(covariance)
    spread = covariance @ importance @ covariance
    chosen = np.empty((count, 2), dtype=np.int64)
    gains = np.empty(count)
    for pick in range(count):
        best, first, second = -1.0, -1, -1
        for i in range(n):
            for j in range(i + 1, n):
                if free[i, j]:
                    h = expected[i, j]
                    v = covariance[i, i] + covariance[j, j] - 2.0 * covariance[i, j]
                    gain = h * (spread[i, i] + spread[j, j] - 2.0 * spread[i, j]) / (1.0 + h * v)
                    if gain > best:
                        best, first, second = gain, i, j
        if first < 0:
            return chosen[:pick], gains[:pick]
        enter_answer(covariance, spread, expected[first, second], first, second)
        free[first, second] = free[second, first] = False
        chosen[pick, 0], chosen[pick, 1], gains[pick] = first, second, best
    return chosen, gains


@numba.njit(cache=True)
def enter_answer(covariance: FloatArray, spread: FloatArray, h: float, i: int, j: int) -> None:
    """Enter one answer of curvature h on (i, j) into C and into G = C W C."""
    u = covariance[:, i] - covariance[:, j]
    z = spread[:, i] - spread[:, j]
    g = h / (1.0 + h * (u[i] - u[j]))
    s = g * g * (z[i] - z[j])
    for r in range(len(u)):
        for c in range(len(u)):
            covariance[r, c] -= g * u[r] * u[c]
            spread[r, c] += s * u[r] * u[c] - g * (u[r] * z[c] + z[r] * u[c])
