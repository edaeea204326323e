"""The graph of judged pairs: islands, candidates that won or lost everything, and whether the
unpenalised estimate exists. `fit` puts these beside the strengths, so that a page can say what
a number rests on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from labeling.records import BoolArray, FloatArray, IntArray
from scoring.numerics.fitting.comparisons import PairMeans


@dataclass(frozen=True, slots=True)
class Standing:
    """Facts of the graph about each candidate, all of length sum(sizes), queries end to end.

    `component` int64 numbers the islands of each query from 0; `comparisons` int64 counts distinct
    pairs; `undefeated`: won at least one pair and lost none; `winless` the reverse.
    """

    component: IntArray
    comparisons: IntArray
    undefeated: BoolArray
    winless: BoolArray


def describe_graph(pairs: PairMeans, starts: IntArray) -> Standing:
    """Islands, counts and flags of every candidate; query q owns starts[q] .. starts[q + 1]."""
    return Standing(*_describe(pairs.a, pairs.b, pairs.preference, pairs.offsets, starts))


def islands_of(component: IntArray) -> list[list[int]]:
    """The candidates of each island of one query, largest island first."""
    order = np.argsort(component, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(component[order])) + 1)
    return sorted((island.tolist() for island in members), key=lambda island: (-len(island), island))


def unbounded_queries(pairs: PairMeans, starts: IntArray, component: IntArray) -> IntArray:
    """Queries whose estimate without a prior runs to infinity.

    It is finite exactly where every island is strongly connected by "was preferred at least a little
    to" (Ford 1957).
    """
    swept = (pairs.preference <= 0.0) | (pairs.preference >= 1.0)
    if not swept.any():  # every pair goes both ways: connected is strongly connected
        return np.empty(0, dtype=np.int64)
    shift = np.repeat(starts[:-1], np.diff(pairs.offsets))
    a, b = pairs.a + shift, pairs.b + shift
    total = int(starts[-1])
    heads = np.concatenate([a[pairs.preference > 0.0], b[pairs.preference < 1.0]])
    tails = np.concatenate([b[pairs.preference > 0.0], a[pairs.preference < 1.0]])
    wins = coo_array((np.ones(len(heads)), (heads, tails)), shape=(total, total))
    groups, strong = connected_components(wins.tocsr(), directed=True, connection="strong")
    query = np.repeat(np.arange(pairs.queries), np.diff(starts))
    first = np.empty(groups, dtype=np.int64)
    first[strong] = query
    strongly = np.bincount(first, minlength=pairs.queries)
    weakly = np.zeros(pairs.queries, dtype=np.int64)
    np.maximum.at(weakly, query, component + 1)
    return np.flatnonzero(strongly != weakly)


@njit(cache=True, nogil=True)
def _root(parent: IntArray, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def _describe(
    a: IntArray, b: IntArray, preference: FloatArray, offsets: IntArray, starts: IntArray
) -> tuple[IntArray, IntArray, BoolArray, BoolArray]:
    total = starts[-1]
    parent, component = np.arange(total), np.empty(total, np.int64)
    comparisons = np.zeros(total, np.int64)
    wins, losses = np.zeros(total, np.int64), np.zeros(total, np.int64)
    for q in range(starts.size - 1):
        for e in range(offsets[q], offsets[q + 1]):
            i, j = starts[q] + a[e], starts[q] + b[e]
            comparisons[i] += 1
            comparisons[j] += 1
            if preference[e] > 0.5:
                wins[i] += 1
                losses[j] += 1
            elif preference[e] < 0.5:
                losses[i] += 1
                wins[j] += 1
            first, second = _root(parent, i), _root(parent, j)
            parent[max(first, second)] = min(first, second)
        islands = 0
        for i in range(starts[q], starts[q + 1]):
            root = _root(parent, i)
            if root == i:  # the lowest index of an island is its root
                component[i] = islands
                islands += 1
            else:
                component[i] = component[root]
    return component, comparisons, (wins > 0) & (losses == 0), (losses > 0) & (wins == 0)
