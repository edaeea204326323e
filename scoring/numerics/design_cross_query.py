"""Pairs across queries, for calibration: a random regular graph over queries, middle candidates.

Asking only about top documents makes the biases worse, so the candidates are those of middle strength.
The graph comes from `design`; the biases are fitted elsewhere from the answers.
"""

from __future__ import annotations

import numpy as np

from labeling.records import FloatArray, IntArray
from scoring.numerics import design


class NoCandidates(design.DesignError):
    """A query that was to be joined with another has no candidates."""


def cross_query_pairs(
    edges: IntArray,
    theta: FloatArray,
    starts: IntArray,
    rng: np.random.Generator,
    *,
    middle: float = 0.5,
) -> IntArray:
    """One pair of candidates for each edge between queries, int64[m, 2], columns in the edges' order.

    `edges` int64[m, 2] of queries; query q owns theta[starts[q]:starts[q + 1]] and the result indexes
    theta. Each query offers its `middle` share (0 to 1, at least one candidate) around the median
    strength, in random order and all of them before any comes again.
    """
    counts = np.diff(starts)
    empty = np.unique(edges)[counts[np.unique(edges)] < 1]
    if len(empty):
        raise NoCandidates(f"query {empty[0]} has no candidates; leave it out of the graph")
    if not 0.0 < middle <= 1.0:
        raise design.DesignError(f"middle is {middle}; expected a share above 0 and at most 1")
    owner = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(theta)) - np.repeat(starts[:-1], counts)
    offered = np.maximum(np.rint(counts * middle).astype(np.int64), 1)
    margin = ((counts - offered) // 2)[owner]
    is_offered = (place >= margin) & (place < margin + offered[owner])
    candidates = np.lexsort((theta, owner))[is_offered]
    candidates = candidates[np.lexsort((rng.random(len(candidates)), owner[is_offered]))]
    ends = edges.ravel()
    first = np.concatenate([[0], np.cumsum(offered)])
    return candidates[first[ends] + _occurrence(ends) % offered[ends]].reshape(-1, 2).astype(np.int64)


def _occurrence(values: IntArray) -> IntArray:
    """How often each entry has come before, int64[len(values)]."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    begins = np.searchsorted(ordered, ordered, side="left")
    earlier = np.empty(len(values), dtype=np.int64)
    earlier[order] = np.arange(len(values)) - begins
    return earlier
