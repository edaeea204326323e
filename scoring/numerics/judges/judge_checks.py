"""Checks of one judge from its answers: shares with intervals, biases, intransitive triples.

Pure: arrays in, frozen results out. `scoring.annotators.known_answers` reads the arrays, `workers.monitoring.scorecard` puts the figures of a
judge together. Preferences are P(a is the more relevant) everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labeling.records import BoolArray, FloatArray, IntArray
from scoring.numerics.measures.sides import agreement, by_order, flips, side

Z95 = 1.959964
LEAST_ROWS = 30
# A preference of exactly 0 or 1 has no logit; this is as sure as any judge is taken to be.
SUREST = 0.005


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval from `count` observations."""

    value: float
    low: float
    high: float
    count: int

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0.0 or self.high < 0.0


def share(hits: float, count: int) -> Estimate | None:
    """A share in [0, 1] with Wilson's interval; ties may count half a hit. None where nothing was observed."""
    if not count:
        return None
    p, z2 = hits / count, Z95**2
    middle = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = Z95 / (1 + z2 / count) * float(np.sqrt(p * (1 - p) / count + z2 / (4 * count**2)))
    # At either end the interval reaches it; rounding alone would stop short of it.
    low, high = (0.0 if p == 0.0 else max(0.0, middle - half)), (1.0 if p == 1.0 else min(1.0, middle + half))
    return Estimate(p, low, high, count)


def same_side(preference: FloatArray, truth: FloatArray) -> Estimate | None:
    """Share of pairs, float64[n] each, on which the answer takes the side of the truth (`sides.agreement`)."""
    same = agreement(preference, truth)
    return share(same.hits, same.count)


def mean(values: FloatArray) -> Estimate | None:
    """The mean of float64[n] with the interval that its standard error gives; None below two values."""
    if len(values) < 2:
        return None
    half = Z95 * float(values.std(ddof=1)) / float(np.sqrt(len(values)))
    centre = float(values.mean())
    return Estimate(centre, centre - half, centre + half, len(values))


def order_flips(pair: IntArray, swapped: BoolArray, preference: FloatArray) -> Estimate | None:
    """Of the pairs asked in both orders, the share whose side changed with the order (`sides.flips`)."""
    flipped = flips(*by_order(pair, swapped, preference))
    return share(flipped.hits, flipped.count)


def length_bias(preference: FloatArray, control: FloatArray, longer: FloatArray, first: FloatArray) -> Estimate | None:
    """Logits that a judge adds for each factor e in length, what the pair deserves held fixed.

    `control` float64[n]: what the pair deserves (in logits, or the sign of the truth), NaN where unknown;
    `longer` = log(length of a / length of b); `first` = 1 where a was shown first, -1 where b was. Least squares of
    logit(preference) on the three, with standard errors that allow unequal spread (HC1). None below 30 rows.
    """
    known = np.isfinite(control) & np.isfinite(longer)
    if known.sum() < LEAST_ROWS or np.ptp(longer[known]) == 0.0:
        return None
    x = np.stack([longer[known], control[known], first[known]], axis=1)
    y = logit(preference[known])
    bread = np.linalg.pinv(x.T @ x)
    coefficients = bread @ x.T @ y
    scores = x * (y - x @ coefficients)[:, None]
    rows = len(y)
    variance = bread @ (scores.T @ scores) @ bread * rows / (rows - x.shape[1])
    half = Z95 * float(np.sqrt(variance[0, 0]))
    value = float(coefficients[0])
    return Estimate(value, value - half, value + half, rows)


def logit(preference: FloatArray) -> FloatArray:
    """log(p / (1 - p)), with certainty cut to 0.005 from either end."""
    cut = np.clip(preference, SUREST, 1.0 - SUREST)
    return np.log(cut) - np.log1p(-cut)


def intransitive_triples(a: IntArray, b: IntArray, preference: FloatArray, size: int) -> tuple[int, int]:
    """(cycles, triples) of one query: candidates 0 .. size - 1, a pair once; a triple counts where all three
    pairs were answered and none is a tie, as a cycle where each beats the next.
    """
    beats = np.zeros((size, size))
    wins, losses = side(preference) > 0, side(preference) < 0
    beats[a[wins], b[wins]] = 1.0
    beats[b[losses], a[losses]] = 1.0
    met = beats + beats.T
    cycles = float(np.sum((beats @ beats) * beats.T)) / 3.0
    triples = float(np.sum((met @ met) * met)) / 6.0
    return round(cycles), round(triples)


Triple = tuple[int, int, int]


def cycles_of(
    a: IntArray, b: IntArray, preference: FloatArray, size: int
) -> list[tuple[Triple, tuple[float, float, float]]]:
    """The cycles of `intransitive_triples`: each candidate beats the next and the last the first, with P(it does).

    Each cycle once, its smallest index first.
    """
    p = np.full((size, size), 0.5)
    p[a, b], p[b, a] = preference, 1.0 - preference
    beats = side(p) > 0
    found = []
    for i in range(size):
        later = np.arange(i + 1, size)
        after, before = later[beats[i, later]], later[beats[later, i]]
        for j, k in zip(*np.nonzero(beats[np.ix_(after, before)]), strict=True):
            first, last = int(after[j]), int(before[k])
            found.append(((i, first, last), (float(p[i, first]), float(p[first, last]), float(p[last, i]))))
    return found


def ratio(parts: IntArray, wholes: IntArray, rng: np.random.Generator, *, resamples: int = 2000) -> Estimate | None:
    """sum(parts) / sum(wholes) over queries, with a bootstrap interval over them.

    Wilson's interval with one query, and where the share is the same in all queries: none of 15 is not surely 0.
    """
    parts, wholes = parts[wholes > 0], wholes[wholes > 0]
    if len(wholes) < 2 or (parts * wholes[0] == wholes * parts[0]).all():
        return share(float(parts.sum()), int(wholes.sum()))
    order = np.lexsort((wholes, parts))  # so that the order of import has no say in the interval
    parts, wholes = parts[order], wholes[order]
    draws = rng.integers(0, len(wholes), (resamples, len(wholes)))
    ratios = parts[draws].sum(axis=1) / wholes[draws].sum(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Estimate(float(parts.sum() / wholes.sum()), float(low), float(high), int(wholes.sum()))
