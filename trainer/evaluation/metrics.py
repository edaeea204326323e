"""Stage 8: ranking metrics of an order of documents against human grades and against Elo.

Pure functions: values by query, their means with bootstrap intervals, and paired differences.
`trainer.evaluation.rankers` provides the orders, `trainer.evaluation.leaderboard` stores and compares the results.
Imports no Django.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from labeling.records import FloatArray, IntArray
from scoring.numerics.measures.metrics import ndcg, recall, reciprocal_rank
from scoring.numerics.measures.resampling import Interval, PairedTest, bootstrap_interval, paired_test

Reference = Literal["grades", "elo"]
REFERENCES: tuple[Reference, ...] = get_args(Reference)
METRICS = ("ndcg@10", "recall@10", "mrr")
DEPTH = 10
ALL_DOMAINS = ""
RESAMPLES = 2_000


class NothingToMeasure(ValueError):
    """No query has a usable reference."""


class BadOrder(ValueError):
    """An order that does not match the queries or holds a value that is not a number."""


@dataclass(frozen=True, slots=True)
class EvaluationQuery:
    """One query with its candidates, arrays over the candidates in id order.

    `grades` float64[n], NaN where a person gave none; `relevance` in [0, 1] and `elo` float64[n], NaN where never
    compared; `first_stage_rank` float64[n] from 1, NaN where unknown.
    """

    id: str
    text: str
    domain: str
    candidate_ids: IntArray
    document_ids: tuple[str, ...]
    documents: tuple[str, ...]
    grades: FloatArray
    relevance: FloatArray
    elo: FloatArray
    first_stage_rank: FloatArray

    def says(self, reference: Reference) -> bool:
        """Whether an order can be measured: some documents are relevant, and not all equally."""
        if reference == "grades":
            return bool(np.nanmax(self.grades, initial=0.0) > 0.0)
        known = self.relevance[np.isfinite(self.elo)]
        return len(known) > 1 and bool(np.ptp(known) > 0.0)


@dataclass(frozen=True, slots=True)
class Measured:
    """Values of one order by query: `values[metric]` float64[q] in the order of `query_ids`."""

    query_ids: tuple[str, ...]
    domains: tuple[str, ...]
    values: Mapping[str, FloatArray]

    def of_domain(self, domain: str) -> Measured:
        """The values of one domain; all values for ''."""
        if domain == ALL_DOMAINS:
            return self
        rows = [row for row, each in enumerate(self.domains) if each == domain]
        return Measured(
            query_ids=tuple(self.query_ids[row] for row in rows),
            domains=tuple(self.domains[row] for row in rows),
            values={metric: values[rows] for metric, values in self.values.items()},
        )


def measurable(queries: Iterable[EvaluationQuery], reference: Reference) -> list[EvaluationQuery]:
    """The queries with a usable reference. Raises NothingToMeasure."""
    found = [query for query in queries if query.says(reference)]
    if not found:
        wanted = "a positive human grade" if reference == "grades" else "two documents of different Elo"
        raise NothingToMeasure(
            f"no query of this split has {wanted}; choose another split or reference, or import grades"
        )
    return found


def measure(queries: Sequence[EvaluationQuery], scores: Sequence[FloatArray], reference: Reference) -> Measured:
    """NDCG@10, Recall@10 and MRR of `scores`, one array per query, higher is better, NaN ranks last.

    Against grades: linear gain, relevant from grade 1, an ungraded document counts as 0. Against Elo: gain is the
    relevance, relevant are the ten documents of highest Elo (half of them where there are fewer than twenty), MRR
    looks for the best one. Ties go by candidate id as in trec_eval. Raises BadOrder.
    """
    rows = [_values(query, own, reference) for query, own in zip(queries, _checked(queries, scores), strict=True)]
    columns = np.array(rows, dtype=np.float64).reshape(len(rows), len(METRICS))
    return Measured(
        query_ids=tuple(query.id for query in queries),
        domains=tuple(query.domain for query in queries),
        values={metric: columns[:, position] for position, metric in enumerate(METRICS)},
    )


def _checked(queries: Sequence[EvaluationQuery], scores: Sequence[FloatArray]) -> Iterator[FloatArray]:
    if len(scores) != len(queries):
        raise BadOrder(f"{len(scores)} lists of scores for {len(queries)} queries; expected one per query")
    for query, own in zip(queries, scores, strict=True):
        values = np.asarray(own, dtype=np.float64)
        if values.shape != query.candidate_ids.shape or np.isinf(values).any():
            raise BadOrder(
                f"query {query.id}: scores of shape {values.shape} for {len(query.candidate_ids)} documents; "
                "expected one finite number per document, or NaN for none"
            )
        yield values


def _values(query: EvaluationQuery, scores: FloatArray, reference: Reference) -> tuple[float, float, float]:
    ranked = _ranked_last(scores)
    ids = [str(each) for each in query.candidate_ids.tolist()]
    if reference == "grades":
        grades = np.nan_to_num(query.grades, nan=0.0)
        return (
            ndcg(ranked, grades, DEPTH, ids=ids),
            recall(ranked, grades, DEPTH, ids=ids),
            reciprocal_rank(ranked, grades, ids=ids),
        )
    gains = np.where(np.isfinite(query.elo), np.nan_to_num(query.relevance, nan=0.0), 0.0)
    places = np.empty(len(ids), dtype=np.int64)
    places[np.argsort(-np.nan_to_num(query.elo, nan=-np.inf), kind="stable")] = np.arange(len(ids))
    top = (places < min(DEPTH, max(1, len(ids) // 2))).astype(np.int64)
    return (
        ndcg(ranked, gains, DEPTH, ids=ids),
        recall(ranked, top, DEPTH, ids=ids),
        reciprocal_rank(ranked, (places == 0).astype(np.int64), ids=ids),
    )


def _ranked_last(scores: FloatArray) -> FloatArray:
    """The scores with every NaN replaced by a value below the lowest score."""
    known = scores[np.isfinite(scores)]
    return np.where(np.isfinite(scores), scores, (known.min() if known.size else 0.0) - 1.0)


def intervals(measured: Measured, *, seed: int = 0) -> dict[str, Interval]:
    """Mean and 95 % bootstrap interval over queries of every metric."""
    return {
        metric: bootstrap_interval(values, rng=np.random.default_rng(seed), resamples=RESAMPLES)
        for metric, values in measured.values.items()
    }


def difference(first: Measured, second: Measured, metric: str = "ndcg@10", *, seed: int = 0) -> PairedTest | None:
    """first - second over the queries that both were measured on; None if there are none."""
    rows = {query: row for row, query in enumerate(second.query_ids)}
    shared = [(row, rows[query]) for row, query in enumerate(first.query_ids) if query in rows]
    if not shared:
        return None
    left, right = np.array(shared).T
    return paired_test(
        first.values[metric][left],
        second.values[metric][right],
        rng=np.random.default_rng(seed),
        resamples=RESAMPLES,
    )
