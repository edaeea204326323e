"""Rankings of one query: the best of many scores, and the fusion of several rankings. Imports no Django."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from labeling.records import IntArray

Ranking = list[tuple[int, float]]


def best(scores: npt.NDArray[np.floating[Any]], ids: IntArray, k: int) -> Ranking:
    """Return the k highest of `scores`[n] as (id, score), best first, ties by id; fewer if n < k."""
    if k <= 0 or not len(scores):
        return []
    rows = np.arange(len(scores))
    if k < len(scores):
        threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
        rows = np.flatnonzero(scores >= threshold)
    order = rows[np.lexsort((ids[rows], -scores[rows]))][:k]
    return [(int(ids[row]), float(scores[row])) for row in order]


def fuse(rankings: Iterable[Ranking], k: int, *, rrf_k: float = 60.0) -> Ranking:
    """Return the reciprocal rank fusion of several rankings of one query; ties by document id."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, (document_id, _) in enumerate(ranking, start=1):
            scores[document_id] = scores.get(document_id, 0.0) + 1.0 / (rrf_k + rank)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:k]
