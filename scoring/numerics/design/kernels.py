"""Compiled inner loops of the adaptive designs: working posterior, expected curvature, greedy choice.

Dense in the candidates of one query, so time goes as size^3 for the posterior and size^2 for each pair
chosen. `adaptive` holds the mathematics and the frozen results; nothing else calls these.
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

LEAST_PLACE_VARIANCE = 0.05
"""Of the place at which two documents meet, so that a sure place is smooth in the strength too."""

FARTHEST = 12.0
"""Differences of which zero is exp(-12) times less likely than their mean have no weight."""

SURE = 4.0
"""So many standard deviations from 0 a difference has a sure sign."""

_ROOT_HALF = math.sqrt(0.5)

# Gauss-Hermite, four nodes: those of five but the one at 0, where an answer changes nothing.
_MOVES = np.array([-2.856970013872805, -1.355626179974265, 1.355626179974265, 2.856970013872805])
_MOVE_WEIGHTS = np.array([0.011257411327720, 0.222075922005613, 0.222075922005613, 0.011257411327720])


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
def _normal_below(z: float) -> float:
    """P(a standard normal is below z)."""
    return 0.5 * math.erfc(-z * _ROOT_HALF)


@numba.njit(cache=True)
def swap_costs(at: FloatArray, theta: FloatArray, variance: FloatArray, discount: FloatArray) -> FloatArray:
    """The cost of a swap of two neighbours where both have the strength `at`, float64[len(at)].

    Where r others are expected above that strength, the two take places r + 1 and r + 2, and the swap costs the difference of
    their discounts: much at the end of the top and between the first two, little between places 5 and 6, nothing below.
    The number of others above is about normal. `variance` float64[n] > 0 of `theta`; `discount` float64[top] by place.
    """
    cost = np.zeros(len(at))
    precise = 1.0 / np.sqrt(variance)
    for g in range(len(at)):
        mean, spread = 0.0, 0.0
        for k in range(len(theta)):
            z = (theta[k] - at[g]) * precise[k]
            if z > SURE:
                mean += 1.0
            elif z > -SURE:
                p = _normal_below(z)
                mean += p
                spread += p * (1.0 - p)
        # The two themselves are in these sums, each above the strength in half of the cases.
        mean, deviation = max(mean - 1.0, 0.0), math.sqrt(max(spread - 0.5, LEAST_PLACE_VARIANCE))
        if mean - SURE * deviation > len(discount):
            continue
        before = 0.0
        for r in range(len(discount)):
            below = discount[r + 1] if r + 1 < len(discount) else 0.0
            up_to = _normal_below((r + 0.5 - mean) / deviation)
            cost[g] += (up_to - before) * (discount[r] - below)
            before = up_to
    return cost


@numba.njit(cache=True)
def inversion_worth(theta: FloatArray, covariance: FloatArray, phi: float, discount: FloatArray) -> FloatArray:
    """The value of a falling variance of each difference, float64[n, n], up to a factor.

    The discounted gain that a wrong order loses is a sum over inverted pairs: the difference in strength, times the cost of a
    swap where the two meet. By a posterior N(m, v) of a difference its expected size while inverted grows with v at the rate
    N(0; m, v) / 2. `discount` float64[top]: the discount of each place.
    """
    n = len(theta)
    variance = np.empty(n)
    for i in range(n):
        variance[i] = max(phi * covariance[i, i], 1e-12)
    known = np.sort(theta)
    costs = swap_costs(known, theta, variance, discount)
    worth = np.zeros((n, n))
    for i in range(n):
        for j in range(i):
            v = max(variance[i] + variance[j] - 2.0 * phi * covariance[i, j], 1e-12)
            m = theta[i] - theta[j]
            far = 0.5 * m * m / v
            if far < FARTHEST:
                meeting = theta[i] - (variance[i] - phi * covariance[i, j]) / v * m
                above = min(max(np.searchsorted(known, meeting), 1), n - 1)
                width = max(known[above] - known[above - 1], 1e-12)
                share = min(max((meeting - known[above - 1]) / width, 0.0), 1.0)
                cost = (1.0 - share) * costs[above - 1] + share * costs[above]
                worth[i, j] = worth[j, i] = math.exp(-far) / math.sqrt(v) * cost
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


@numba.njit(cache=True)
def rise_of_top(
    pairs: IntArray,
    contenders: IntArray,
    theta: FloatArray,
    covariance: FloatArray,
    phi: float,
    expected: FloatArray,
    discount: FloatArray,
    ahead: FloatArray,
) -> FloatArray:
    """The expected rise of the best places' discounted strengths by each pair, per answer, float64[m].

    r answers on a pair move the posterior means along its column difference u, by a normal of variance phi r h / (1 + r h v);
    whatever passes a better one rises. The largest of the rises by `ahead` answers, each over its number, counts: one answer
    may turn no order where a few would (KG(*), Frazier and Powell, Decision Analysis 2010). `contenders` int64[c], best
    first, are all that may be among the best; `discount` float64[top], top <= c; `pairs` int64[m, 2].
    """
    top, count = len(discount), len(contenders)
    best = np.empty(top)
    now = 0.0
    for place in range(top):
        now += discount[place] * theta[contenders[place]]
    rise = np.zeros(len(pairs))
    for e in range(len(pairs)):
        i, j = pairs[e, 0], pairs[e, 1]
        h = expected[i, j]
        v = max(covariance[i, i] + covariance[j, j] - 2.0 * covariance[i, j], 0.0)
        for r in ahead:
            scale = math.sqrt(phi * r * h / (1.0 + r * h * v))
            after = 0.0
            for k in range(len(_MOVES)):
                best[:] = -np.inf
                for c in range(count):
                    t = contenders[c]
                    x = theta[t] + scale * (covariance[t, i] - covariance[t, j]) * _MOVES[k]
                    if x > best[top - 1]:
                        place = top - 1
                        while place > 0 and best[place - 1] < x:
                            best[place] = best[place - 1]
                            place -= 1
                        best[place] = x
                for place in range(top):
                    after += _MOVE_WEIGHTS[k] * discount[place] * best[place]
            rise[e] = max(rise[e], (after - 2.0 * _MOVE_WEIGHTS[:2].sum() * now) / r)
    return rise
