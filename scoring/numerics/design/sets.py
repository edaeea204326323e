"""Choice of the sets of documents for one call, for judges that read more than two at once.

A call over k documents answers pairs among them. `greedy_sets` grows sets around the pairs that
`adaptive.choose_pairs` would take first; `pack_sets` joins the pairs of any design into sets. Arrays in, arrays out.
"""

from __future__ import annotations

import numba
import numpy as np

from labeling.records import BoolArray, FloatArray, IntArray
from scoring.numerics.design import kernels, static
from scoring.numerics.design.adaptive import ChosenPairs, Posterior

FEWEST = 3


class BadSetSize(static.DesignError):
    """A set of fewer than three documents: two make a pair."""


def check_set_size(set_size: int) -> int:
    """Return `set_size`, or raise BadSetSize below 3."""
    if set_size < FEWEST:
        raise BadSetSize(f"set size is {set_size}; expected {FEWEST} or more documents; two documents make a pair")
    return set_size


def pack_sets(pairs: IntArray, set_size: int) -> IntArray:
    """Join pairs into sets of up to `set_size` documents, so that each pair lies within a set.

    int64[sets, set_size], -1 behind the last document of a smaller set; the pairs come in their order, and each set
    grows along pairs that share a document with it. The pairs of one cycle become sets that follow each other around
    it: n / (set_size - 1) calls instead of n.
    """
    check_set_size(set_size)
    near: dict[int, dict[int, None]] = {}
    for a, b in pairs.tolist():
        near.setdefault(a, {})[b] = None
        near.setdefault(b, {})[a] = None
    sets = []
    for a, b in pairs.tolist():
        if b not in near[a]:
            continue
        members = [a, b]
        while len(members) < set_size and (found := _next_member(members, near)) is not None:
            members.append(found)
        for place, one in enumerate(members):
            for other in members[:place]:
                near[one].pop(other, None)
                near[other].pop(one, None)
        sets.append(members + [-1] * (set_size - len(members)))
    return np.array(sets, dtype=np.int64).reshape(-1, set_size)


def _next_member(members: list[int], near: dict[int, dict[int, None]]) -> int | None:
    """The document outside with the most open pairs to the set, the earliest found first; None without any."""
    counts: dict[int, int] = {}
    for one in reversed(members):
        for other in near[one]:
            if other not in members:
                counts[other] = counts.get(other, 0) + 1
    return max(counts, key=lambda other: counts[other]) if counts else None


def within_budget(sets: IntArray, budget: int) -> IntArray:
    """The first sets that a budget pays for, k - 1 for a set of k documents; the last one may become smaller."""
    static.check_budget(budget)
    price = (sets >= 0).sum(axis=1) - 1
    spent = np.cumsum(price)
    kept = sets[: int(np.searchsorted(spent, budget, side="right")) + 1].copy()
    over = int(price[: len(kept)].sum()) - budget
    if over <= 0:
        return kept
    last = int(price[len(kept) - 1]) - over
    if last < 1:
        return kept[:-1]
    kept[-1, last + 1 :] = -1
    return kept


def pairs_of_set(members: IntArray) -> IntArray:
    """All pairs of one set, int64[k (k - 1) / 2, 2] with a < b; entries of -1 are no documents."""
    present = np.sort(members[members >= 0])
    first, second = np.triu_indices(len(present), k=1)
    return np.stack([present[first], present[second]], axis=1)


def pairs_of_sets(sets: IntArray) -> IntArray:
    """The distinct pairs within any of the sets, int64[m, 2] with a < b, in order."""
    if not len(sets):
        return np.empty((0, 2), dtype=np.int64)
    return np.unique(np.concatenate([pairs_of_set(members) for members in sets]), axis=0)


def choose_sets(
    posterior: Posterior, drawn: IntArray, count: int, importance: FloatArray, *, set_size: int
) -> tuple[IntArray, ChosenPairs]:
    """Up to `count` sets whose new pairs together lower trace(importance covariance) most, chosen greedily.

    Each set starts with the best pair and takes in the document whose new pairs with it gain most. A call counts as
    set_size - 1 answers, spread evenly over the pairs of its set. Returns int64[sets, set_size] and the pairs with the
    covariance that is expected after them.
    """
    static.check_budget(count)
    size = min(check_set_size(set_size), posterior.size)
    taken = static.check_pairs(posterior.size, drawn)
    free = ~np.eye(posterior.size, dtype=np.bool_)
    free[taken[:, 0], taken[:, 1]] = free[taken[:, 1], taken[:, 0]] = False
    expected = kernels.expected_curvature(posterior.theta, posterior.covariance, posterior.dispersion, posterior.slope)
    covariance = posterior.covariance.copy()
    sets = _greedy_sets(covariance, expected, importance, free, count, size)
    if size < set_size:
        sets = np.concatenate([sets, np.full((len(sets), set_size - size), -1, dtype=np.int64)], axis=1)
    pairs = pairs_of_sets(sets)
    return sets, ChosenPairs(pairs, np.zeros(len(pairs)), covariance)


@numba.njit(cache=True)
def _gain(covariance: FloatArray, spread: FloatArray, h: float, i: int, j: int) -> float:
    """The amount by which an answer of curvature h on (i, j) lowers trace(W C); `spread` is C W C."""
    v = covariance[i, i] + covariance[j, j] - 2.0 * covariance[i, j]
    return h * (spread[i, i] + spread[j, j] - 2.0 * spread[i, j]) / (1.0 + h * v)


@numba.njit(cache=True)
def _greedy_sets(
    covariance: FloatArray, expected: FloatArray, importance: FloatArray, free: BoolArray, count: int, size: int
) -> IntArray:
    """Up to `count` sets of `size` candidates; changes all but `expected` and `importance`."""
    n = len(covariance)
    spread = covariance @ importance @ covariance
    sets = np.empty((count, size), dtype=np.int64)
    is_in = np.zeros(n, dtype=np.bool_)
    for row in range(count):
        best, first, second = -1.0, -1, -1
        for i in range(n):
            for j in range(i + 1, n):
                if free[i, j]:
                    gain = _gain(covariance, spread, expected[i, j], i, j)
                    if gain > best:
                        best, first, second = gain, i, j
        if first < 0:
            return sets[:row]
        is_in[:] = False
        is_in[first] = is_in[second] = True
        sets[row, 0], sets[row, 1] = first, second
        for place in range(2, size):
            best, chosen = -1.0, -1
            for j in range(n):
                if is_in[j]:
                    continue
                gain = 0.0
                for other in range(place):
                    i = sets[row, other]
                    if free[i, j]:
                        gain += _gain(covariance, spread, expected[i, j], i, j)
                if gain > best:
                    best, chosen = gain, j
            sets[row, place] = chosen
            is_in[chosen] = True
        share = 2.0 / size
        for x in range(size):
            for y in range(x):
                i, j = sets[row, x], sets[row, y]
                kernels.enter_answer(covariance, spread, share * expected[i, j], i, j)
                free[i, j] = free[j, i] = False
    return sets
