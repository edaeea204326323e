"""Candidates of one query with the same text: no judge is asked about them, and they share one score.

Their order would be pure position bias. `merged` makes them one item before a fit and `expanded` gives its result to each of
them; `scoring.sampling.draw` shows samplers only the first of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from labeling.records import ComparisonColumns, Fit, IntArray
from scoring.columns import ProjectColumns, copy_columns
from scoring.numerics.fitting.outside_option import means_of_compared

_SAME = """
SELECT query_id, id, first FROM (
    SELECT candidate.query_id, candidate.id,
           min(candidate.id) OVER (PARTITION BY candidate.query_id, document.text_hash) AS first
    FROM labeling_candidate candidate JOIN labeling_document document ON document.id = candidate.document_id
    WHERE candidate.query_id = ANY(%s)
) same WHERE id <> first ORDER BY query_id, id
"""


def same_texts(query_ids: Sequence[int]) -> IntArray:
    """(query, candidate, first candidate of the same text) of each repeated text, int64[r, 3], in candidate order."""
    rows = copy_columns(_SAME, [list(query_ids)], [("query", "i8"), ("id", "i8"), ("first", "i8")])
    return np.stack([rows[name].astype(np.int64) for name in ("query", "id", "first")], axis=1).reshape(-1, 3)


@dataclass(frozen=True, slots=True)
class Merged:
    """Columns over distinct texts; `item` int64[candidates] is the item of each candidate."""

    read: ProjectColumns
    item: IntArray


def merged(read: ProjectColumns, repeated: IntArray) -> Merged:
    """The columns with each repeated text as one item, without votes between equal texts."""
    count = len(read.candidate_ids)
    columns = read.columns
    if not len(repeated):
        return Merged(read, np.arange(count))
    kept, item = np.unique(representatives(read.candidate_ids, repeated), return_inverse=True)
    owner = np.repeat(np.arange(columns.queries), columns.sizes)
    sizes = np.bincount(owner[kept], minlength=columns.queries).astype(np.int64)
    before, after = (np.cumsum(each) - each for each in (columns.sizes, sizes))
    of_vote = np.repeat(np.arange(columns.queries), np.diff(columns.offsets))
    a, b = (item[column + before[of_vote]] - after[of_vote] for column in (columns.a, columns.b))
    votes = np.flatnonzero(a != b)
    fewer = ComparisonColumns(
        a=a[votes],
        b=b[votes],
        preference=columns.preference[votes],
        weight=columns.weight[votes],
        judge=columns.judge[votes],
        swapped=columns.swapped[votes],
        offsets=np.searchsorted(of_vote[votes], np.arange(columns.queries + 1)).astype(np.int64),
        sizes=sizes,
    )
    whole = replace(
        read,
        candidate_ids=read.candidate_ids[kept],
        pair_ids=read.pair_ids[votes],
        calls=read.calls[votes],
        columns=fewer,
    )
    return Merged(whole, item)


def representatives(candidate_ids: IntArray, repeated: IntArray) -> IntArray:
    """The place of the first candidate with the text of each candidate, int64[candidates]."""
    order = np.argsort(candidate_ids, kind="stable")
    first = np.arange(len(candidate_ids))
    places = [order[np.searchsorted(candidate_ids, repeated[:, column], sorter=order)] for column in (1, 2)]
    first[places[0]] = places[1]
    return first


def distinct(read: ProjectColumns) -> Merged:
    """The columns over distinct texts, as every fit of some votes alone reads them: `merged` with the texts of today."""
    return merged(read, same_texts(read.query_ids.tolist()))


def expanded(fit: Fit, one: Merged, read: ProjectColumns) -> Fit:
    """The fit of `one` over the candidates of `read`: each has the values of its item, and strengths have mean zero again.

    The mean is over the candidates that were compared.
    """
    if one.read is read:
        return fit
    names = ("theta", "stderr", "comparisons", "component", "undefeated", "winless")
    values = {name: getattr(fit, name)[one.item] for name in names}
    sizes = read.columns.sizes
    owner = np.repeat(np.arange(len(sizes)), sizes)
    means = means_of_compared(values["theta"], values["comparisons"], owner, len(sizes))
    values["theta"] = values["theta"] - means[owner]
    return replace(fit, starts=np.append(0, np.cumsum(sizes)).astype(np.int64), **values)
