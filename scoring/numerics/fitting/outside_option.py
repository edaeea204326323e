"""The outside option: "neither is relevant" as evidence about strengths, and a threshold of relevance for each query.

An annotator who may answer "neither" chooses among a, b and an outside option of strength t (Luce 1959, the null item):

    P(a) : P(b) : P(neither) = e^theta_a : e^theta_b : e^t

so that P(a | a or b) is the pair's preference as before, and the odds of a against "neither" are those of a comparison with
an item of strength t. The answers are broken into such comparisons, the chosen against both others, which is consistent for
Luce's model (Azari Soufiani et al. 2013, position-1 breaking). The two comparisons with t that an answer gives are one
opinion, so each has half a vote's weight. `scoring.outside_option` reads the answers; any rater fits the result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from labeling.records import BoolArray, ComparisonColumns, Fit, FloatArray, IntArray

VOTE = 0.5
Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class NeitherAnswers:
    """Answers "neither": `query` int64[m] is a query's place in the columns, `a` and `b` int64[m] its candidates."""

    query: IntArray
    a: IntArray
    b: IntArray


@dataclass(frozen=True, slots=True)
class WithOption:
    """Columns in which the queries of `has` bool[Q] have one item more, the last: the outside option.

    `vote` int64[votes]: the row of the original columns that each row came from, -1 for a comparison with the option.
    `touched` bool[sum of the original sizes]: candidates that were compared with the option.
    """

    columns: ComparisonColumns
    has: BoolArray
    vote: IntArray
    touched: BoolArray


def with_outside_option(
    columns: ComparisonColumns,
    neither: NeitherAnswers,
    says: BoolArray,
    *,
    judge: int,
    preference: FloatArray | None = None,
) -> WithOption:
    """Add the outside option to the queries with such answers.

    `says` bool[votes]: the vote is of an annotator who would have answered "neither"; then its preference is also evidence
    that one of the two is above the threshold. The comparisons with the option are those of `judge`, a new number, without
    position bias: `preference` float64[votes] are the votes' preferences without theirs, None where they have none.
    """
    of_vote = np.repeat(np.arange(columns.queries), np.diff(columns.offsets))
    has = np.zeros(columns.queries, dtype=np.bool_)
    has[of_vote[says]] = has[neither.query] = True
    chosen = np.flatnonzero(says)
    # (query, candidate, P(the candidate is chosen rather than the option), weight) of each new comparison
    query = np.concatenate([of_vote[chosen], of_vote[chosen], neither.query, neither.query])
    item = np.concatenate([columns.a[chosen], columns.b[chosen], neither.a, neither.b])
    for_a = (columns.preference if preference is None else preference)[chosen]
    share = np.concatenate([for_a, 1.0 - for_a])
    lost = np.ones(2 * len(neither.query))
    won = np.concatenate([np.ones(len(share)), np.zeros(len(lost))])
    weight = VOTE * np.concatenate([share * np.tile(columns.weight[chosen], 2), lost])
    kept = np.flatnonzero(weight > 0.0)
    owner = np.concatenate([of_vote, query[kept]])
    order = np.argsort(owner, kind="stable")

    def joined(first: npt.NDArray[Number], second: npt.ArrayLike) -> npt.NDArray[Number]:
        return np.concatenate([first, np.asarray(second, dtype=first.dtype)])[order]

    whole = ComparisonColumns(
        a=joined(columns.a, item[kept]),
        b=joined(columns.b, columns.sizes[query[kept]]),
        preference=joined(columns.preference, won[kept]),
        weight=joined(columns.weight, weight[kept]),
        judge=joined(columns.judge, np.full(len(kept), judge)),
        swapped=joined(columns.swapped, np.zeros(len(kept))),
        offsets=np.searchsorted(owner[order], np.arange(columns.queries + 1)).astype(np.int64),
        sizes=columns.sizes + has,
    )
    touched = np.zeros(int(columns.sizes.sum()), dtype=np.bool_)
    touched[(np.cumsum(columns.sizes) - columns.sizes)[query[kept]] + item[kept]] = True
    return WithOption(whole, has, joined(np.arange(len(of_vote)), np.full(len(kept), -1)), touched)


def option_items(has: BoolArray, sizes: IntArray) -> BoolArray:
    """bool[sum of sizes + options]: which items are outside options, by the original sizes of the queries."""
    found = np.zeros(int(sizes.sum() + has.sum()), dtype=np.bool_)
    found[(np.cumsum(sizes + has) - 1)[has]] = True
    return found


def without_outside_option(fit: Fit, one: WithOption, sizes: IntArray) -> tuple[Fit, FloatArray]:
    """The fit over the candidates alone, and the threshold of each query, NaN for none.

    Strengths have mean zero again over the candidates that were compared, so that others do not move them. A candidate that
    was compared with the option alone counts one comparison.
    """
    is_option = option_items(one.has, sizes)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    theta = fit.theta[~is_option]
    comparisons = fit.comparisons[~is_option]
    comparisons = np.where(one.touched, np.maximum(comparisons - 1, 1), comparisons)
    means = means_of_compared(theta, comparisons, owner, len(sizes))
    thresholds = np.full(len(sizes), np.nan)
    thresholds[one.has] = fit.theta[is_option] - means[one.has]
    shift = np.where(one.has, means, 0.0)  # the other queries keep every bit
    fewer = {name: getattr(fit, name)[~is_option] for name in ("stderr", "component", "undefeated", "winless")}
    whole = replace(
        fit,
        theta=theta - shift[owner],
        starts=np.append(0, np.cumsum(sizes)).astype(np.int64),
        comparisons=comparisons,
        **fewer,
    )
    return whole, thresholds


def means_of_compared(theta: FloatArray, comparisons: IntArray, owner: IntArray, queries: int) -> FloatArray:
    """The mean strength of each query's compared items, float64[queries]; 0 where there are none."""
    compared = comparisons > 0
    sums = np.bincount(owner[compared], weights=theta[compared], minlength=queries)
    return np.asarray(sums / np.maximum(np.bincount(owner[compared], minlength=queries), 1))
