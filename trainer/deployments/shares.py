"""Pure functions that choose the keys of a share and measure the agreement of two orders. Imports no Django."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

BEST = 10


def in_share(key: str, percent: int, *, of: str) -> bool:
    """Whether `key` is among `percent` of the keys of the deployment `of`.

    The answer depends on nothing else, so a key stays where it is, and a larger share holds the smaller one.
    """
    digest = hashlib.sha256(f"{of}\n{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 10_000 < percent * 100


def agreement(first: Mapping[int, float], second: Mapping[int, float]) -> tuple[float | None, float]:
    """Kendall's tau-a of two scorings over the documents that both have, and the part of the ten best that they share.

    Tau is None for fewer than two documents. Ties count as neither agreement nor disagreement.
    """
    both = sorted(first.keys() & second.keys())
    tau = None
    if len(both) > 1:
        signs = [np.sign(np.subtract.outer(values, values)) for values in (_values(first, both), _values(second, both))]
        tau = float((signs[0] * signs[1]).sum() / (len(both) * (len(both) - 1)))
    depth = min(BEST, len(both))
    best = [set(sorted(both, key=lambda row: (-scores[row], row))[:depth]) for scores in (first, second)]
    return tau, len(best[0] & best[1]) / depth if depth else 1.0


def _values(scores: Mapping[int, float], rows: list[int]) -> np.ndarray:
    return np.array([scores[row] for row in rows])
