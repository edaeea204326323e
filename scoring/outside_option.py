"""Reads the answers "neither is relevant" and fits them as an outside option of each query.

An annotator who has answered "neither" in the project would have done so elsewhere, so all of that annotator's preferences are
evidence too; `scoring.project_fits` stores who they are, so that one fit depends on one query's answers.
`scoring.numerics.fitting.outside_option` is the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from django.db import connection

from labeling.records import BoolArray, Fit, FloatArray, IntArray
from scoring.columns import ProjectColumns, copy_columns
from scoring.numerics.fitting.outside_option import (
    NeitherAnswers,
    WithOption,
    option_items,
    with_outside_option,
    without_outside_option,
)
from scoring.same_texts import representatives

# The annotator of comparisons with the option: without weights or biases of its own.
NOBODY = 0

_NEITHER = """
SELECT pair.query_id, pair.a_id, pair.b_id, answer.annotator_id
FROM labeling_pair pair JOIN labeling_live_judgment answer ON answer.pair_id = pair.id
WHERE pair.query_id = ANY(%s) AND answer.kind = 'both_irrelevant' ORDER BY pair.query_id, pair.id, answer.id
"""

_SAYERS = """
SELECT annotator.id FROM labeling_annotator annotator
WHERE annotator.project_id = %s AND EXISTS (
    SELECT 1 FROM labeling_live_judgment answer JOIN labeling_pair pair ON pair.id = answer.pair_id
    WHERE answer.annotator_id = annotator.id AND answer.kind = 'both_irrelevant' AND pair.query_id IS NOT NULL
) ORDER BY annotator.id
"""


def who_says_neither(project_id: int) -> list[int]:
    """The annotators of the project with at least one live answer "neither" about documents of one query."""
    with connection.cursor() as cursor:
        cursor.execute(_SAYERS, [project_id])
        return [row[0] for row in cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class Read:
    """Columns with outside options as candidates of negative ids (`read`), and how they were made (`one`)."""

    read: ProjectColumns
    one: WithOption | None

    def stripped(self, fit: Fit, original: ProjectColumns, repeated: IntArray) -> tuple[Fit, FloatArray]:
        """The fit over the original candidates, and the threshold of each query in theta's units, NaN for none.

        `repeated`: those of `scoring.same_texts.same_texts`; an answer about one of equal texts is about each of them.
        """
        sizes = original.columns.sizes
        if self.one is None:
            return fit, np.full(len(sizes), np.nan)
        item = representatives(original.candidate_ids, repeated)
        touched = np.bincount(item, weights=self.one.touched, minlength=len(item))[item] > 0.0
        return without_outside_option(fit, replace(self.one, touched=touched), sizes)


def with_neither(
    read: ProjectColumns,
    *,
    says: Sequence[int],
    counted: set[int] | None = None,
    odds: Mapping[int, float] = MappingProxyType({}),
) -> Read:
    """Add the answers "neither" of the queries, as of now, to their votes.

    `says`: annotators who are known to use the answer; those of these queries are found here. `counted`: the annotators
    whose answers count, None for all. `odds`: see `scoring.raters.odds_of_first`; a preference is divided between its documents
    without the bias, as the scores leave it out.
    """
    rows = copy_columns(
        _NEITHER, [read.query_ids.tolist()], [(name, "i8") for name in ("query", "a", "b", "annotator")]
    )
    given = {name: rows[name].astype(np.int64) for name in ("query", "a", "b", "annotator")}
    if counted is not None:
        kept = np.isin(given["annotator"], sorted(counted))
        given = {name: column[kept] for name, column in given.items()}
    columns = read.columns
    known = _would_say(read, given, says)
    if not known.any() and not len(given["query"]):
        return Read(read, None)
    one = with_outside_option(
        columns, _local(read, given), known, judge=len(read.annotator_ids), preference=_without_bias(read, odds)
    )
    return Read(_whole(read, one), one)


def _would_say(read: ProjectColumns, given: dict[str, IntArray], says: Sequence[int]) -> BoolArray:
    """bool[votes]: whether the annotator is known to say "neither", or does so in the query; other queries do not matter."""
    columns = read.columns
    annotators, number = np.unique(np.append(read.annotator_ids, given["annotator"]), return_inverse=True)
    voter, sayer = number[: len(read.annotator_ids)][columns.judge], number[len(read.annotator_ids) :]
    owner = np.repeat(np.arange(columns.queries), np.diff(columns.offsets))
    here = np.searchsorted(read.query_ids, given["query"]) * len(annotators) + sayer
    return np.isin(annotators[voter], list(says)) | np.isin(owner * len(annotators) + voter, here)


def _without_bias(read: ProjectColumns, odds: Mapping[int, float]) -> FloatArray:
    """The preference of each vote without its annotator's position bias, float64[votes]."""
    preference, columns = read.columns.preference, read.columns
    first = np.array([odds.get(each, 1.0) for each in read.annotator_ids.tolist()], dtype=np.float64)[columns.judge]
    for_a = np.where(columns.swapped, 1.0 / first, first)
    return np.where(for_a == 1.0, preference, preference / (preference + (1.0 - preference) * for_a))


def _local(read: ProjectColumns, given: dict[str, IntArray]) -> NeitherAnswers:
    query = np.searchsorted(read.query_ids, given["query"])
    starts = np.cumsum(read.columns.sizes) - read.columns.sizes
    order = np.argsort(read.candidate_ids, kind="stable")

    def local(ids: IntArray) -> IntArray:
        return order[np.searchsorted(read.candidate_ids, ids, sorter=order)] - starts[query]

    return NeitherAnswers(query, local(given["a"]), local(given["b"]))


def _whole(read: ProjectColumns, one: WithOption) -> ProjectColumns:
    is_option = option_items(one.has, read.columns.sizes)
    ids = np.zeros(len(is_option), dtype=np.int64)
    ids[~is_option], ids[is_option] = read.candidate_ids, -read.query_ids[one.has]
    known = one.vote >= 0

    def spread(column: IntArray) -> IntArray:
        return np.where(known, column[one.vote], 0) if len(column) else np.zeros(len(known), dtype=np.int64)

    return replace(
        read,
        candidate_ids=ids,
        annotator_ids=np.append(read.annotator_ids, NOBODY),
        pair_ids=spread(read.pair_ids),
        calls=spread(read.calls),
        columns=one.columns,
    )
