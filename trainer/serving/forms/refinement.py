"""Chooses the documents of a list that are computed again in float32 after bfloat16, by distances that it derives. Pure.

Rounding turns only documents whose logits are close. Among the first places all documents closer than nearly every error are
computed again. Below them a list has many more close pairs, and a pair that is turned there is one of thousands: documents are
computed again, the closest first, until Kendall's tau of the list is expected to be SURE_TAU. Rejected: one distance for all lists,
found on short ones, which computes nearly all documents of a list of hundreds again; choosing documents one by one by what each
adds to tau, or one of each close pair, which kept tau with as many documents.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from labeling.records import FloatArray
from trainer.serving.forms.order_gate import TOP

# Nearer to 1 than the gate asks, because it is reached on average only, and errors elsewhere may be larger than where their spread was
# measured.
SURE_TAU = 0.9993
LEAST_LISTS = 5
# Pairs further apart than so many spreads keep their order.
FAR = 8.0
# Of a longer list, pairs of so many documents with all others stand for all pairs.
MOST_SAMPLED = 1000


def close_rows(logits: Sequence[float], close: float, *, spread: float = 0.0, top_n: int | None = None) -> list[int]:
    """The rows to compute again: neighbours in the order that are closer than `close`, after the first TOP places those closer than
    the list's own distance for errors of this `spread` (0: than `close`).

    `top_n`: places after it are left as they are.
    """
    values = np.asarray(logits, dtype=np.float64)
    if len(values) < 2 or not np.isfinite(values).all():  # the ranking says what is wrong with such logits
        return []
    order = np.argsort(-values, kind="stable")
    gaps = -np.diff(values[order])
    near = gaps < close
    if spread:
        near[TOP:] &= gaps[TOP:] < distance_within(values[order], close, spread)
    if top_n:
        near[top_n - 1 + _true_at_start(near[top_n - 1 :]) :] = False
    found: list[int] = np.sort(order[_ends(near)]).tolist()
    return found


def spread_of(found: Sequence[FloatArray], exact: Sequence[FloatArray]) -> float:
    """The spread of a document's error within its list, enlarged by its standard error; 0 for too few lists to say.

    `found`, `exact`: the first logits and those of float32, of each list.
    """
    errors = [own - true for own, true in zip(found, exact, strict=True)]
    free = sum(len(each) - 1 for each in errors)
    if len(errors) < LEAST_LISTS or not free:
        return 0.0
    spread = math.sqrt(sum(float(np.sum((each - each.mean()) ** 2)) for each in errors) / free)
    return spread * (1.0 + 1.0 / math.sqrt(2.0 * free))


def distance_within(falling: FloatArray, close: float, spread: float) -> float:
    """The smallest distance, at most `close`, at which the tau of a list is expected to be SURE_TAU if all closer documents are exact.

    `falling`: its logits, the largest first. The first TOP places are exact where they are closer than `close`.
    """
    gaps = -np.diff(falling)
    sure = np.append(gaps[:TOP] < close, np.zeros(max(0, len(gaps) - TOP), bool))[: len(gaps)]
    pairs = _Pairs(falling, spread)
    tried = np.append(0.0, np.unique(gaps[gaps < close]))
    least, most = 0, len(tried) - 1
    while least < most:
        middle = (least + most) // 2
        if pairs.expected_loss(_ends(sure | (gaps <= tried[middle]))) <= 1.0 - SURE_TAU:
            most = middle
        else:
            least = middle + 1
    return float(np.nextafter(tried[least], math.inf)) if least else 0.0


class _Pairs:
    """The pairs of a list that errors may turn, with the chance of that for two rounded logits and for a rounded and an exact one."""

    def __init__(self, falling: FloatArray, spread: float) -> None:
        self._number = len(falling)
        sampled = np.arange(0, self._number, -(-self._number // MOST_SAMPLED))
        rows, others, apart = [], [], []
        for places in range(1, self._number):
            own = sampled[sampled + places < self._number]
            gaps = falling[own] - falling[own + places]
            if not len(own) or gaps.min() > FAR * spread:
                break
            rows.append(own)
            others.append(own + places)
            apart.append(gaps)
        self._rows, self._others = _joined(rows), _joined(others)
        gaps = np.concatenate([np.zeros(0), *apart])
        self._two = ndtr(-gaps / (spread * math.sqrt(2.0)))
        self._one = np.interp(gaps / spread, *_turned_by_one())
        self._all = self._number * (self._number - 1) / 2 * len(sampled) / self._number

    def expected_loss(self, exact: np.ndarray) -> float:
        """Kendall's tau that the order is expected to lose; `exact`: bool of each place."""
        one, other = exact[self._rows], exact[self._others]
        turned = np.where(one | other, self._one, self._two)
        return 2.0 * float(np.sum(turned[~(one & other)])) / self._all


@functools.cache
def _turned_by_one() -> tuple[FloatArray, FloatArray]:
    """Gaps of two rounded logits in spreads, and the chance that they are in the wrong order once one of them is exact.

    That one moves by its error first, so that a gap may be smaller afterwards than it looked.
    """
    gaps, moves = np.linspace(0.0, FAR, 401), np.linspace(-6.0, 6.0, 241)
    weights = np.exp(-(moves**2) / 2)
    return gaps, ndtr(-np.abs(gaps[:, None] - moves)) @ (weights / weights.sum())


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, int), *parts])


def _ends(near: np.ndarray) -> np.ndarray:
    """bool of each place: whether the gap before or behind it is near."""
    return np.append(near, False) | np.insert(near, 0, False)


def _true_at_start(values: np.ndarray) -> int:
    """The number of values that are true before the first that is not."""
    return len(values) if values.all() else int(np.argmin(values))
