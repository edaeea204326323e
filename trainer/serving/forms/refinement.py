"""Chooses the documents of a list that are computed again in float32 after bfloat16, by distances that it derives. Pure.

Rounding turns only documents whose logits are close. Among the first places all documents closer than nearly every error are
computed again. Below them a list has many more close pairs, and a pair that is turned there is one of thousands: documents are
computed again until Kendall's tau of the list is expected to be SURE_TAU.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr

from labeling.records import FloatArray
from trainer.serving.forms.order_gate import TOP

# Nearer to 1 than the gate asks, because it is reached on average only, and lists elsewhere may be closer.
SURE_TAU = 0.9993
LEAST_LISTS = 5
_STEPS = 50


def close_rows(
    logits: Sequence[float], close: float, *, below: float = math.inf, top_n: int | None = None
) -> list[int]:
    """The rows to compute again: neighbours in the order that are closer than `close`, after the first TOP places than `below`.

    `top_n`: places after it are left as they are.
    """
    order = sorted(range(len(logits)), key=lambda row: -logits[row])
    found: set[int] = set()
    for place, (row, following) in enumerate(itertools.pairwise(order), start=1):
        if logits[row] - logits[following] < (close if place <= TOP else min(close, below)):
            found |= {row, following}
        elif top_n and place >= top_n:
            break
    return sorted(found)


def distance_below(found: Sequence[FloatArray], exact: Sequence[FloatArray], close: float) -> float:
    """The distance for the places below the first ones, at most `close`: the smallest with an expected tau of SURE_TAU.

    `found`, `exact`: the first logits and those of float32, of each list. The spread of the errors is estimated from all lists
    together and enlarged by the standard error of such an estimate, as is the loss.
    Fewer than LEAST_LISTS say too little about how close documents are.
    """
    errors = [own - true for own, true in zip(found, exact, strict=True)]
    free = max(1, sum(len(each) - 1 for each in errors))
    if len(errors) < LEAST_LISTS:
        return close
    spread = math.sqrt(sum(float(np.sum((each - each.mean()) ** 2)) for each in errors) / free)
    spread *= 1.0 + 1.0 / math.sqrt(2.0 * free)
    for distance in np.linspace(0.0, close, _STEPS, endpoint=False):
        losses = [_expected_loss(each, spread, float(distance)) for each in found]
        if np.mean(losses) + np.std(losses, ddof=1) / math.sqrt(len(losses)) <= 1.0 - SURE_TAU:
            return float(distance)
    return close


def _expected_loss(logits: FloatArray, spread: float, distance: float) -> float:
    """Kendall's tau that the order of a list is expected to lose if documents within the distance are computed again."""
    rows, columns = np.triu_indices(len(logits), k=1)
    if not len(rows) or not spread:
        return 0.0
    rounded = np.ones(len(logits))
    # All places count here: a longer list has most of its documents below the first ones.
    rounded[_chained(logits, distance)] = 0.0
    errors = spread * np.sqrt(rounded[rows] + rounded[columns])
    gaps = np.abs(logits[rows] - logits[columns])
    uncertain = errors > 0  # two exact logits keep their order
    return 2.0 * float(np.sum(ndtr(-gaps[uncertain] / errors[uncertain]))) / len(rows)


def _chained(logits: FloatArray, distance: float) -> list[int]:
    """The rows that are closer to a neighbour in the order than the distance."""
    order = np.argsort(-logits, kind="stable")
    near = -np.diff(logits[order]) < distance
    return order[np.append(near, False) | np.insert(near, 0, False)].tolist()
