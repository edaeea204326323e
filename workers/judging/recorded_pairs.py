"""The pairs that the judges of a run can answer, where some of them replay recorded answers.

The design `recorded` draws only these pairs, asks each judge only what it has, and shows the documents in the recorded order.
`workers.runs.planning` calls this; judges say what they have by `Judge.recorded_pairs`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from django.db.models import Count

from labeling.collection import ProjectCollection
from labeling.models import Candidate, Project
from labeling.plugins import Judge
from labeling.records import BoolArray, IntArray

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class RecordedPairs:
    """Recorded pairs of some queries as candidate ids with a < b.

    `by_query` int64[m, 2] by query, each pair once, in the order of the files. `swapped`: for each judge (in the order given)
    whether b was shown first, by pair; None for a judge that can answer any pair.
    """

    by_query: dict[int, IntArray] = field(default_factory=dict)
    swapped: tuple[dict[Pair, bool] | None, ...] = ()

    def able(self, pairs: IntArray) -> BoolArray:
        """A mask of the judges that can answer each pair, bool[m, judges]."""
        rows = [tuple(pair) for pair in pairs.tolist()]
        columns = [[own is None or row in own for row in rows] for own in self.swapped]
        return np.array(columns, dtype=np.bool_).reshape(len(self.swapped), len(rows)).T

    def sides(self, pairs: IntArray, judge: IntArray, drawn: BoolArray) -> BoolArray:
        """The side of each question (a row of `pairs` to a judge): as it was recorded, otherwise as drawn."""
        found = drawn.copy()
        for row, (pair, who) in enumerate(zip(pairs.tolist(), judge.tolist(), strict=True)):
            own = self.swapped[who]
            if own is not None:
                found[row] = own[tuple(pair)]
        return found

    def only(self, pairs: IntArray, query: int) -> IntArray:
        """Those of a query's pairs that are recorded."""
        known = {tuple(pair) for pair in self.by_query.get(query, np.zeros((0, 2))).tolist()}
        kept = [pair for pair in pairs.tolist() if tuple(pair) in known]
        return np.array(kept, dtype=np.int64).reshape(-1, 2)


def recorded_pairs(judges: Sequence[Judge], query_ids: Sequence[int]) -> RecordedPairs:
    """The recorded pairs of these queries whose documents are candidates; the judges are prepared."""
    candidates: dict[int, dict[int, int]] = {query: {} for query in query_ids}
    rows = Candidate.objects.filter(query__in=list(query_ids)).values_list("query_id", "document_id", "id")
    for query, document, candidate in rows:
        candidates[query][document] = candidate
    found: dict[int, dict[Pair, None]] = {}
    swapped: list[dict[Pair, bool] | None] = []
    for judge in judges:
        own: dict[Pair, bool] = {}
        is_free = not has_recordings(judge)
        for query, places in [] if is_free else candidates.items():
            for first, second in judge.recorded_pairs(query) or ():
                if first in places and second in places:
                    one, other = places[first], places[second]
                    pair = (min(one, other), max(one, other))
                    own.setdefault(pair, one > other)
                    found.setdefault(query, {})[pair] = None
        swapped.append(None if is_free else own)
    by_query = {query: np.array(list(pairs), dtype=np.int64) for query, pairs in found.items()}
    return RecordedPairs(by_query, tuple(swapped))


def has_recordings(judge: Judge) -> bool:
    """Whether a judge answers recorded pairs only."""
    return type(judge).recorded_pairs is not Judge.recorded_pairs


def recorded_by_size(project: Project, judges: Sequence[Judge], query_ids: Sequence[int] | None) -> dict[int, int]:
    """The mean number of recorded pairs of a query, rounded up, by the query's number of candidates.

    Prepares the judges that have recordings. Raises what that raises.
    """
    rows = Candidate.objects.filter(query__project=project)
    if query_ids is not None:
        rows = rows.filter(query__in=list(query_ids))
    sizes = dict(rows.order_by().values_list("query_id").annotate(n=Count("pk")))
    recording = [judge for judge in judges if has_recordings(judge)]
    for judge in recording:
        judge.prepare(ProjectCollection(project.pk))
    known = recorded_pairs(recording, list(sizes)).by_query
    totals: dict[int, list[int]] = {}
    for query, size in sizes.items():
        totals.setdefault(size, []).append(len(known.get(query, ())))
    return {size: math.ceil(sum(counts) / len(counts)) for size, counts in totals.items()}
