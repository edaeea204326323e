"""The weight of a student's votes beside those of its panel, by cross-validated log-loss on the panel's pairs.

A student answers many pairs of a document with the same error, so that its votes are worth less than their number. Each fold
hides a fifth of the panel's pairs and predicts them from the rest and from all of the student's votes, whose weight walks
downhill in factors of two. `scoring.annotators.student_weights` stores the choice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from labeling.records import BoolArray, ComparisonColumns, FloatArray
from scoring.numerics.fitting.comparisons import aggregate_pairs
from scoring.numerics.fitting.prior import MINIMUM_PAIRS, held_out_loss

FOLDS = 5
START = 2.0**-4
LIMITS = (2.0**-12, 1.0)


@dataclass(frozen=True, slots=True)
class StudentWeight:
    """The chosen `weight` of one vote; `grid` float64[k] ascending weights that were tried, `losses` float64[k] their
    log-loss on hidden pairs of the panel. Empty with fewer than 50 pairs of the panel: then the weight is 1/16.
    """

    weight: float
    grid: FloatArray
    losses: FloatArray
    pairs: int


def choose_student_weight(
    columns: ComparisonColumns,
    is_student: BoolArray,
    *,
    model: str,
    prior_precision: float,
    rng: np.random.Generator,
    threads: int | None = None,
) -> StudentWeight:
    """`is_student` bool[m] marks the student's votes; `prior_precision` is that of the panel's votes alone."""
    panel = _rows(columns, ~is_student)
    key = _pair_keys(columns)
    hidden_pairs = np.unique(key[~is_student])
    nothing = np.zeros(0)
    if len(hidden_pairs) < MINIMUM_PAIRS or not is_student.any():
        return StudentWeight(START, nothing, nothing, len(hidden_pairs))
    fold_of_pair = rng.permutation(np.arange(len(hidden_pairs)) % FOLDS)
    fold = np.full(len(key), -1, dtype=np.int64)
    fold[~is_student] = fold_of_pair[np.searchsorted(hidden_pairs, key[~is_student])]
    hidden = [aggregate_pairs(_rows(panel, fold[~is_student] == number)) for number in range(FOLDS)]

    def loss(weight: float) -> float:
        weighted = replace(columns, weight=np.where(is_student, weight, columns.weight))
        parts = [(aggregate_pairs(_rows(weighted, fold != number)), hidden[number]) for number in range(FOLDS)]
        return held_out_loss(parts, model=model, prior_precision=prior_precision, threads=threads)

    losses = {START: loss(START)}
    while (following := _next(losses)) is not None:
        losses[following] = loss(following)
    grid = np.array(sorted(losses))
    values = np.array([losses[weight] for weight in grid])
    return StudentWeight(float(grid[np.argmin(values)]), grid, values, len(hidden_pairs))


def _next(losses: dict[float, float]) -> float | None:
    """Twice or half the best weight so far, whichever is still untried and allowed; None to stop."""
    best = min(losses, key=lambda weight: losses[weight])
    for neighbour in (best / 2.0, best * 2.0):
        if neighbour not in losses and LIMITS[0] <= neighbour <= LIMITS[1]:
            return neighbour
    return None


def _pair_keys(columns: ComparisonColumns) -> FloatArray:
    """One number for each distinct pair of each query, float64[m]."""
    owner = np.repeat(np.arange(columns.queries), np.diff(columns.offsets))
    low, high = np.minimum(columns.a, columns.b), np.maximum(columns.a, columns.b)
    size = int(columns.sizes.max(initial=1))
    return np.asarray((owner * size + low) * size + high, dtype=np.float64)


def _rows(columns: ComparisonColumns, kept: BoolArray) -> ComparisonColumns:
    """The votes where `kept` is true, of all queries."""
    owner = np.repeat(np.arange(columns.queries), np.diff(columns.offsets))[kept]
    counts = np.bincount(owner, minlength=columns.queries)
    parts = {name: getattr(columns, name)[kept] for name in ("a", "b", "preference", "weight", "judge", "swapped")}
    return ComparisonColumns(
        **parts, offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), sizes=columns.sizes
    )
