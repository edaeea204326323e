"""The part of a split that an evaluation was measured on: queries and documents that matched. Imports no Django."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from labeling.records import FloatArray
from trainer.evaluation.metrics import EvaluationQuery, RunRanks

COVERED = (
    0.9  # a row with a smaller share of the queries, such as the run of a part of them, is not compared with others
)
Of = TypeVar("Of")


@dataclass(frozen=True, slots=True)
class Matched:
    """The part of a split that a row was measured on; None where an evaluation of an earlier version did not count it.

    `queries` of the `of_queries` that the reference judges; of their `of_documents` candidates, `documents` have a score;
    `others` are documents that a run file names for these queries and that are no candidates, `others_graded` those of
    them with a grade. `equal`: queries with several documents of which all have the same score, which ranks nothing.
    """

    queries: int
    of_queries: int
    documents: int
    of_documents: int
    others: int = 0
    others_graded: int = 0
    equal: int = 0


def answered_queries(rows: Mapping[str, FloatArray], run: RunRanks | None) -> set[str]:
    """Queries with a ranking; one that names only other documents counts."""
    if run is not None:
        return {query for query, number in run.named.items() if number}
    return {query for query, own in rows.items() if np.isfinite(own).any()}


def matched_of(
    kept: Sequence[EvaluationQuery], judged: int, rows: Mapping[str, FloatArray], run: RunRanks | None
) -> Matched:
    """The coverage of the scores of the queries `kept`, among the `judged` that the reference judges."""
    documents = sum(int(np.isfinite(rows[query.id]).sum()) for query in kept)
    counts = {
        "queries": len(kept),
        "of_queries": judged,
        "documents": documents,
        "of_documents": sum(len(query.document_ids) for query in kept),
        "equal": sum(is_all_equal(rows[query.id]) if run is None else query.id in run.equal for query in kept),
    }
    if run is None:
        return Matched(**counts)
    graded = (run.others[query.id] for query in kept if query.id in run.others)
    return Matched(
        **counts,
        others=sum(run.named[query.id] for query in kept) - documents,
        others_graded=sum(int(np.isfinite(own).sum()) for own in graded),
    )


def is_all_equal(scores: FloatArray) -> bool:
    """Whether several documents have a score and all the same one, so that only ties order them."""
    known = scores[np.isfinite(scores)]
    return len(known) > 1 and bool(np.ptp(known) == 0.0)


def covering_first(ranked: Sequence[Of], queries: Callable[[Of], int]) -> list[Of]:
    """The rows in their order, but last those that lack many of the queries of the row with the most.

    The first is the best one: a mean over a few queries, such as those that a judge was asked about, may be high by chance.
    """
    most = max(map(queries, ranked), default=0)
    return sorted(ranked, key=lambda row: queries(row) < COVERED * most)
