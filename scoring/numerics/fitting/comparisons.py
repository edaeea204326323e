"""From single votes to one mean preference a pair, which is all that a fit needs to know.

`aggregate_pairs` checks the `ComparisonColumns` that the database hands over (every defect has a
named error) and merges votes: both orders of presentation of one judge count as one vote. `fit`,
`prior` and the samplers start from its `PairMeans`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numba import njit

from labeling.records import BoolArray, ComparisonColumns, FloatArray, IntArray

# A probability this close to 0 or 1 says no more than "certain" when logits are averaged.
LOGIT_CLIP = 1e-4


class InvalidComparisons(ValueError):
    """Votes that cannot enter a fit; the subclasses name the defect."""


class MalformedColumns(InvalidComparisons):
    """Columns that do not fit together: lengths, offsets or sizes."""


class PreferenceOutOfRange(InvalidComparisons):
    """A preference outside [0, 1], NaN included."""


class InvalidWeight(InvalidComparisons):
    """A vote's weight that is negative or not finite."""


class SelfPair(InvalidComparisons):
    """A candidate compared with itself."""


class UnknownCandidate(InvalidComparisons):
    """An index that belongs to no candidate of its query."""


class EmptyQuery(InvalidComparisons):
    """A query without candidates. One with a single candidate is fine: its strength is 0."""


class InvalidJudge(InvalidComparisons):
    """A judge's index that is negative."""


@dataclass(frozen=True, slots=True)
class PairMeans:
    """Judged pairs of Q queries, query after query, ordered by (a, b) within a query.

    Rows offsets[q] .. offsets[q + 1] belong to query q. `a` < `b` int64[m] are local indices below
    sizes[q]; `preference` float64[m] the weighted mean P(a is the more relevant); `weight`
    float64[m] > 0 the summed weight of the pair's votes.
    """

    a: IntArray
    b: IntArray
    preference: FloatArray
    weight: FloatArray
    offsets: IntArray
    sizes: IntArray

    @property
    def queries(self) -> int:
        return len(self.sizes)

    def of_query(self, query: int) -> PairMeans:
        """The pairs of one query."""
        rows = slice(self.offsets[query], self.offsets[query + 1])
        ends = np.array([0, self.offsets[query + 1] - self.offsets[query]])
        columns = (self.a[rows], self.b[rows], self.preference[rows], self.weight[rows])
        return PairMeans(*columns, offsets=ends, sizes=self.sizes[query : query + 1])


def votes_of_query(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    preference: npt.ArrayLike,
    *,
    size: int,
    weight: npt.ArrayLike | None = None,
    judge: npt.ArrayLike | None = None,
    swapped: npt.ArrayLike | None = None,
) -> ComparisonColumns:
    """Columns of a single query of `size` candidates; weight 1, judge 0, not swapped unless given."""
    votes = len(np.asarray(a))
    return ComparisonColumns(
        a=np.asarray(a, dtype=np.int64),
        b=np.asarray(b, dtype=np.int64),
        preference=np.asarray(preference, dtype=np.float64),
        weight=np.ones(votes) if weight is None else np.asarray(weight, dtype=np.float64),
        judge=np.zeros(votes, dtype=np.int64) if judge is None else np.asarray(judge, dtype=np.int64),
        swapped=np.zeros(votes, dtype=np.bool_) if swapped is None else np.asarray(swapped, dtype=np.bool_),
        offsets=np.array([0, votes], dtype=np.int64),
        sizes=np.array([size], dtype=np.int64),
    )


def check_columns(columns: ComparisonColumns) -> None:
    """Raise the InvalidComparisons that names the first defect, its query, row and value."""
    _check_shape(columns)
    defect, row, query = _first_defect(*_arrays(columns))
    if defect:
        _raise_defect(defect, row, query, columns)


def aggregate_pairs(columns: ComparisonColumns) -> PairMeans:
    """Check the votes and merge them into one mean preference a pair.

    1. Votes of one judge on one pair in one order: weighted mean, weights added.
    2. The two orders of one judge: one vote of the larger weight. Probabilities are averaged as logits
       (clipped at 1e-4), which cancels a position bias; where an answer is exactly 0 or 1 the
       judge stated a choice and not a probability, and the answers themselves are averaged.
    3. Judges: weighted mean, weights added.

    Pairs whose votes all weigh nothing are dropped: they were not judged.
    """
    check_columns(columns)
    a, b, p, w, judge, swapped, offsets, sizes = _arrays(columns)
    judge, judges = _compact(judge)
    a, b, p, w, offsets = _merge(a, b, p, w, judge, swapped, offsets, sizes, judges)
    return PairMeans(a=a, b=b, preference=p, weight=w, offsets=offsets, sizes=sizes)


def _arrays(columns: ComparisonColumns) -> tuple[Any, ...]:
    """The columns as compiled code expects them; copies only what differs.

    Writable as well as contiguous: numba would compile everything again, for seconds, for the
    read-only arrays that buffers and database drivers hand out.
    """
    layout: list[Literal["C", "A", "W"]] = ["C", "A", "W"]
    a, b, judge, offsets, sizes = (
        np.require(column, np.int64, layout)
        for column in (columns.a, columns.b, columns.judge, columns.offsets, columns.sizes)
    )
    preference, weight = (np.require(column, np.float64, layout) for column in (columns.preference, columns.weight))
    return a, b, preference, weight, judge, np.require(columns.swapped, np.bool_, layout), offsets, sizes


def _compact(judge: IntArray) -> tuple[IntArray, int]:
    """Judges renumbered from 0 where their numbers are too large to index a small table."""
    judges = int(judge.max(initial=0)) + 1
    if judges <= 256:
        return judge, judges
    distinct, compact = np.unique(judge, return_inverse=True)
    return compact.astype(np.int64), len(distinct)


def _check_shape(columns: ComparisonColumns) -> None:
    votes = len(columns.a)
    for name in ("b", "preference", "weight", "judge", "swapped"):
        if len(getattr(columns, name)) != votes:
            raise MalformedColumns(f"{name} has {len(getattr(columns, name))} rows, a has {votes}; expected the same")
    offsets = columns.offsets
    if len(offsets) != len(columns.sizes) + 1:
        raise MalformedColumns(
            f"{len(offsets)} offsets for {len(columns.sizes)} queries; expected one more offset than queries"
        )
    if offsets[0] != 0 or offsets[-1] != votes or (len(offsets) > 1 and (np.diff(offsets) < 0).any()):
        raise MalformedColumns(f"offsets must rise from 0 to the {votes} rows; got {offsets[0]} .. {offsets[-1]}")


_OUT_OF_RANGE, _WEIGHT, _SELF, _UNKNOWN, _EMPTY, _JUDGE = 1, 2, 3, 4, 5, 6


@njit(cache=True, nogil=True)
def _first_defect(
    a: IntArray,
    b: IntArray,
    preference: FloatArray,
    weight: FloatArray,
    judge: IntArray,
    swapped: BoolArray,
    offsets: IntArray,
    sizes: IntArray,
) -> tuple[int, int, int]:
    """(defect, row, query) of the first defect in row order; (0, 0, 0) where all is well."""
    for q in range(sizes.size):
        n = sizes[q]
        if n < 1:
            return _EMPTY, offsets[q], q
        for row in range(offsets[q], offsets[q + 1]):
            if not (preference[row] >= 0.0 and preference[row] <= 1.0):
                return _OUT_OF_RANGE, row, q
            if not (weight[row] >= 0.0 and weight[row] < np.inf):
                return _WEIGHT, row, q
            if a[row] < 0 or a[row] >= n or b[row] < 0 or b[row] >= n:
                return _UNKNOWN, row, q
            if a[row] == b[row]:
                return _SELF, row, q
            if judge[row] < 0:
                return _JUDGE, row, q
    return 0, 0, 0


def _raise_defect(defect: int, row: int, query: int, columns: ComparisonColumns) -> None:
    where = f"row {row} of query {query}"
    if defect == _EMPTY:
        raise EmptyQuery(f"query {query} has {columns.sizes[query]} candidates; expected at least 1; leave it out")
    if defect == _OUT_OF_RANGE:
        raise PreferenceOutOfRange(
            f"{where}: preference is {columns.preference[row]}; expected P(a is the more relevant) in [0, 1]; "
            "leave missing answers out"
        )
    if defect == _WEIGHT:
        raise InvalidWeight(f"{where}: weight is {columns.weight[row]}; expected a finite number >= 0")
    if defect == _UNKNOWN:
        raise UnknownCandidate(
            f"{where}: pair ({columns.a[row]}, {columns.b[row]}); expected indices below {columns.sizes[query]}, "
            "the query's number of candidates"
        )
    if defect == _JUDGE:
        raise InvalidJudge(f"{where}: judge is {columns.judge[row]}; expected an index >= 0")
    raise SelfPair(f"{where}: candidate {columns.a[row]} is compared with itself; leave such rows out")


@njit(cache=True, nogil=True, error_model="numpy")
def _combine_orders(p: float, w: float, q: float, v: float) -> float:
    """One preference from the answers p, q (weights w, v) of one judge in the two orders."""
    if v == 0.0 or p == q:
        return p
    if w == 0.0:
        return q
    share = w / (w + v)
    if p == 0.0 or p == 1.0 or q == 0.0 or q == 1.0:
        return share * p + (1.0 - share) * q
    p = min(max(p, LOGIT_CLIP), 1.0 - LOGIT_CLIP)
    q = min(max(q, LOGIT_CLIP), 1.0 - LOGIT_CLIP)
    logit = share * math.log(p / (1.0 - p)) + (1.0 - share) * math.log(q / (1.0 - q))
    return 1.0 / (1.0 + math.exp(-logit))


@njit(cache=True, nogil=True)
def _stable_order(keys: IntArray, base: int, rows: int, order: IntArray, spare: IntArray, counts: IntArray) -> None:
    """Reorder order[0:rows] by keys[order] in 0 .. base - 1, keeping ties: one counting pass."""
    counts[: base + 1] = 0
    for i in range(rows):
        counts[keys[order[i]] + 1] += 1
    for k in range(base):
        counts[k + 1] += counts[k]
    for i in range(rows):
        key = keys[order[i]]
        spare[counts[key]] = order[i]
        counts[key] += 1
    order[:rows] = spare[:rows]


@njit(cache=True, nogil=True, error_model="numpy")
def _merge_query(
    low: IntArray,
    high: IntArray,
    preference: FloatArray,
    weight: FloatArray,
    judge: IntArray,
    swapped: BoolArray,
    order: IntArray,
    merged: tuple[IntArray, IntArray, FloatArray, FloatArray],
    filled: int,
) -> int:
    """Reduce one query's votes, sorted by (low, high, judge) through `order`, into `merged` from row `filled`.

    Preferences are those of `low`, and `swapped` says whether `high` was presented first.
    """
    out_a, out_b, out_p, out_w = merged
    rows, i = order.size, 0
    while i < rows:
        x, y = low[order[i]], high[order[i]]
        pair_p, pair_w = 0.0, 0.0
        while i < rows and low[order[i]] == x and high[order[i]] == y:
            who = judge[order[i]]
            p0, w0, p1, w1 = 0.0, 0.0, 0.0, 0.0
            while i < rows and judge[order[i]] == who and low[order[i]] == x and high[order[i]] == y:
                row = order[i]
                if swapped[row]:
                    p1 += weight[row] * preference[row]
                    w1 += weight[row]
                else:
                    p0 += weight[row] * preference[row]
                    w0 += weight[row]
                i += 1
            w = max(w0, w1)
            if w > 0.0:
                p0, p1 = p0 / w0 if w0 > 0.0 else 0.0, p1 / w1 if w1 > 0.0 else 0.0
                pair_p += w * min(max(_combine_orders(p0, w0, p1, w1), 0.0), 1.0)
                pair_w += w
        if pair_w > 0.0:
            out_a[filled], out_b[filled] = x, y
            out_p[filled], out_w[filled] = min(pair_p / pair_w, 1.0), pair_w
            filled += 1
    return filled


@njit(cache=True, nogil=True, error_model="numpy")
def _merge(
    a: IntArray,
    b: IntArray,
    preference: FloatArray,
    weight: FloatArray,
    judge: IntArray,
    swapped: BoolArray,
    offsets: IntArray,
    sizes: IntArray,
    judges: int,
) -> tuple[IntArray, IntArray, FloatArray, FloatArray, IntArray]:
    """Turn each vote so that a < b, radix-sort each query's votes by (a, b, judge), reduce; see aggregate_pairs."""
    total, queries = a.size, sizes.size
    turned = a > b
    low, high = np.minimum(a, b), np.maximum(a, b)
    preference = np.where(turned, 1.0 - preference, preference)
    swapped = swapped != turned
    most, widest = 0, judges
    for q in range(queries):
        most = max(most, offsets[q + 1] - offsets[q])
        widest = max(widest, sizes[q])
    order, spare = np.empty(most, np.int64), np.empty(most, np.int64)
    counts = np.zeros(widest + 1, np.int64)
    merged = (np.empty(total, np.int64), np.empty(total, np.int64), np.empty(total), np.empty(total))
    ends = np.zeros(queries + 1, np.int64)
    for q in range(queries):
        rows = offsets[q + 1] - offsets[q]
        for i in range(rows):
            order[i] = offsets[q] + i
        if judges > 1:
            _stable_order(judge, judges, rows, order, spare, counts)
        _stable_order(high, sizes[q], rows, order, spare, counts)
        _stable_order(low, sizes[q], rows, order, spare, counts)
        ends[q + 1] = _merge_query(low, high, preference, weight, judge, swapped, order[:rows], merged, ends[q])
    filled = ends[queries]
    return (
        merged[0][:filled].copy(),
        merged[1][:filled].copy(),
        merged[2][:filled].copy(),
        merged[3][:filled].copy(),
        ends,
    )
