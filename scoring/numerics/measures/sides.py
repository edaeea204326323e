"""The one definition of tie, agreement and flip: the side of an answer, and the share of answers with the same side.

Pure. Pages, REST, scorecards and the project's figures all count with these; `SIDE_SQL` is the same rule for the
database, which counts where there are too many answers to read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labeling.records import BoolArray, FloatArray, IntArray

# A preference within .05 of 1/2 takes no side: the middle of the five answers, and a model that hesitates. With room for
# rounding, because .45 and .55 are not equally far from 1/2 as floats, and an answer must not depend on which document is a.
TIE = 0.05 + 1e-9

# The side of the SQL expression `{0}`; NULL stays NULL.
SIDE_SQL = f"(CASE WHEN abs({{0}} - 0.5) <= {TIE} THEN 0 ELSE sign({{0}} - 0.5) END)"
# The agreement of the sides of the SQL expressions `{0}` and `{1}`: 1, 1/2 where one is a tie, 0.
SAME_SQL = f"(1 - abs({SIDE_SQL} - {SIDE_SQL.replace('{0}', '{1}')}) / 2.0)"


@dataclass(frozen=True, slots=True)
class Share:
    """`hits` of `count`; half a hit where one of two answers is a tie. The value is None where nothing was counted."""

    hits: float
    count: int

    @property
    def value(self) -> float | None:
        return self.hits / self.count if self.count else None


def side(preference: FloatArray) -> FloatArray:
    """1 for a, -1 for b, 0 for a tie (within TIE of 1/2), float64 of any shape; NaN stays."""
    apart = np.where(np.abs(preference - 0.5) <= TIE, 0.0, preference - 0.5)
    return np.asarray(np.sign(apart))


def turned(label: FloatArray) -> FloatArray:
    """The sides of `side` with a and b exchanged; another label, such as "neither", stays."""
    return np.asarray(np.where(np.abs(label) == 1.0, -label, label))


def agreement(first: FloatArray, second: FloatArray) -> Share:
    """The share of preferences in two rows, float64[n], that take the same side, where both are there.

    Two ties are the same side; a tie against a side is half a hit.
    """
    both = ~(np.isnan(first) | np.isnan(second))
    apart = np.abs(side(first[both]) - side(second[both])) / 2.0
    return Share(float(len(apart) - apart.sum()), len(apart))


def flips(in_order: FloatArray, turned: FloatArray) -> Share:
    """The share of sides that change with the order of presentation: the reverse of `agreement`, over pairs asked in both.

    Both float64[n] hold P(a is the more relevant), NaN where the pair was not asked in that order.
    """
    same = agreement(in_order, turned)
    return Share(same.count - same.hits, same.count)


def by_order(pair: IntArray, swapped: BoolArray, preference: FloatArray) -> tuple[FloatArray, FloatArray]:
    """One judge's answers as two rows over its distinct pairs: in order, and turned; NaN where not asked so."""
    distinct, of_pair = np.unique(pair, return_inverse=True)
    rows = np.full((2, len(distinct)), np.nan)
    rows[swapped.astype(np.int64), of_pair] = preference
    return rows[0], rows[1]
