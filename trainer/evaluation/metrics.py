"""Stage 8: ranking metrics of an order of documents against human grades and against Elo.

Pure functions: values by query, their means with bootstrap intervals, and paired differences.
`trainer.evaluation.rankers` provides the orders, `trainer.evaluation.leaderboard` stores and compares the results.
Imports no Django.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

from labeling.records import FloatArray, IntArray
from labeling.stored_texts import counted
from scoring.numerics.measures.rankings import Measure, Ranked, ranks_of
from scoring.numerics.measures.resampling import Interval, PairedTest, bootstrap_interval, paired_test

Reference = Literal["grades", "elo"]
REFERENCES: tuple[Reference, ...] = get_args(Reference)
METRICS = ("ndcg@10", "recall@10", "mrr")
DEPTH = 10
RESAMPLES = 2_000


class NothingToMeasure(ValueError):
    """No query has a usable reference."""


class BadOrder(ValueError):
    """An order that does not match the queries or holds a value that is not a number."""


@dataclass(frozen=True, slots=True)
class EvaluationQuery:
    """One query with its candidates, arrays over the candidates in id order.

    `grades` float64[n], NaN where a person gave none; `relevance` in [0, 1] and `elo` float64[n], NaN where never
    compared; `first_stage_rank` float64[n] from 1, NaN where unknown. `other_grades` float64[m]: grades of documents that
    are no candidates, so that no order can retrieve them. `imported_id`: the id within the query's `project`.
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
    other_grades: FloatArray = field(default_factory=lambda: np.zeros(0))
    other_documents: tuple[str, ...] = ()
    instruction: str = ""
    project: str = ""
    imported_id: str = ""

    @property
    def all_grades(self) -> FloatArray:
        """The grades of the candidates, then those of other documents, float64[n + m]."""
        return np.append(self.grades, self.other_grades)

    def says(self, reference: Reference) -> bool:
        """Whether the reference prefers some documents to others."""
        if reference == "grades":
            return bool(np.nanmax(self.all_grades, initial=0.0) > 0.0)
        known = self.relevance[np.isfinite(self.elo)]
        return len(known) > 1 and bool(np.ptp(known) > 0.0)

    def counts(self, reference: Reference) -> bool:
        """Whether the query enters the means: as in trec_eval, any grade suffices, even if nothing is relevant."""
        return bool(np.isfinite(self.all_grades).any()) if reference == "grades" else self.says(reference)


@dataclass(frozen=True, slots=True)
class RunRanks:
    """Contents of a run file beyond the candidates, by query id.

    `named`: how many documents it names. `others`: negated ranks float64[m] of the graded documents that are no
    candidates, in the order of `EvaluationQuery.other_grades`, NaN where it does not name them; no entry where m is 0.
    `equal`: queries of which it gives several documents the same score, and no other one.
    """

    named: Mapping[str, int]
    others: Mapping[str, FloatArray]
    equal: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Measured:
    """Values of one order by query: `values[metric]` float64[q] in the order of `query_ids`."""

    query_ids: tuple[str, ...]
    domains: tuple[str, ...]
    values: Mapping[str, FloatArray]

    def of_domain(self, domain: str) -> Measured:
        """The values of one domain; '' is that of the queries without one."""
        rows = [row for row, each in enumerate(self.domains) if each == domain]
        return Measured(
            query_ids=tuple(self.query_ids[row] for row in rows),
            domains=tuple(self.domains[row] for row in rows),
            values={metric: values[rows] for metric, values in self.values.items()},
        )


def measurable(queries: Iterable[EvaluationQuery], reference: Reference) -> list[EvaluationQuery]:
    """The queries that count against the reference. Raises NothingToMeasure if it prefers no document of any query."""
    found = [query for query in queries if query.counts(reference)]
    if not any(query.says(reference) for query in found):
        wanted = "a positive human grade" if reference == "grades" else "two documents of different Elo"
        raise NothingToMeasure(
            f"no query of this split has {wanted}; choose another split or reference, or import grades"
        )
    return found


def parse_measures(text: str) -> tuple[str, ...]:
    """Measures in their one spelling from names separated by commas; METRICS if empty. Raises UnknownMetric."""
    names = [each for each in text.split(",") if each.strip()]
    return tuple(dict.fromkeys(str(Measure.parse(each)) for each in names)) or METRICS


def highest_gain(queries: Iterable[EvaluationQuery], reference: Reference) -> float:
    """The top of the reference's scale, for ERR: the highest grade of these queries, at least 1; 1 for relevance."""
    if reference == "elo":
        return 1.0
    return max((float(np.nanmax(query.all_grades, initial=1.0)) for query in queries), default=1.0)


def measure(
    queries: Sequence[EvaluationQuery],
    scores: Sequence[FloatArray],
    reference: Reference,
    metrics: Sequence[str] = METRICS,
    *,
    run: RunRanks | None = None,
    highest: float | None = None,
) -> Measured:
    """Values of `metrics` for `scores`, one array per query, higher is better; NaN is a document that is not retrieved.

    Ties go by the imported document id as in trec_eval. With `run`, a score is a rank from 1, negated, in a ranking
    that may name documents which are no candidates. Against grades: relevant from grade 1, an ungraded document counts as
    0. Against Elo: gain is the relevance, relevant are the documents of the ten highest Elo (half of those with an Elo where
    they are fewer than twenty), MRR looks for the best; equal Elo is equally relevant. `highest`: see `highest_gain`, by
    default that of `queries`. Raises BadOrder, UnknownMetric.
    """
    measures = [Measure.parse(each) for each in metrics]
    top = highest_gain(queries, reference) if highest is None else highest
    rows = []
    for query, own in zip(queries, _checked(queries, scores), strict=True):
        ranks = ranks_of(own, query.document_ids) if run is None else given_ranks(own)
        others = np.zeros(len(query.other_grades), dtype=np.int64)
        if run is not None and query.id in run.others:
            others = given_ranks(run.others[query.id])
        rows.append(_values(measures, query, ranks, others, reference, top))
    columns = np.array(rows, dtype=np.float64).reshape(len(rows), len(measures))
    return Measured(
        query_ids=tuple(query.id for query in queries),
        domains=tuple(query.domain for query in queries),
        values={metric: columns[:, position] for position, metric in enumerate(metrics)},
    )


def given_ranks(scores: FloatArray) -> IntArray:
    """Ranks from 1 of negated ranks float64[n], 0 where NaN."""
    return np.nan_to_num(-scores, nan=0.0).astype(np.int64)


def _checked(queries: Sequence[EvaluationQuery], scores: Sequence[FloatArray]) -> Iterator[FloatArray]:
    if len(scores) != len(queries):
        raise BadOrder(
            f"{counted(len(scores), 'list')} of scores for {counted(len(queries), 'query', 'queries')}; expected one per query"
        )
    for query, own in zip(queries, scores, strict=True):
        values = np.asarray(own, dtype=np.float64)
        if values.shape != query.candidate_ids.shape or np.isinf(values).any():
            raise BadOrder(
                f"query {query.id}: scores of shape {values.shape} for {counted(len(query.candidate_ids), 'document')}; "
                "expected one finite number per document, or NaN for none"
            )
        yield values


def _values(
    measures: Sequence[Measure],
    query: EvaluationQuery,
    ranks: IntArray,
    others: IntArray,
    reference: Reference,
    highest: float,
) -> list[float]:
    if reference == "grades":
        ranked = Ranked.of_grades(np.append(ranks, others), query.all_grades, highest=highest)
        return [each.of(ranked) for each in measures]
    known = np.isfinite(query.elo)
    gains = np.where(known, np.nan_to_num(query.relevance, nan=0.0), 0.0)
    place = min(DEPTH, max(1, int(known.sum()) // 2))  # documents that nobody judged do not widen it
    bar = np.sort(query.elo[known])[::-1][place - 1]
    ranked = Ranked(ranks, gains, known & (query.elo >= bar), highest)
    best = replace(ranked, relevant=known & (query.elo >= query.elo[known].max()))
    return [each.of(best if each.name == "mrr" else ranked) for each in measures]


def with_missing(measured: Measured, missing: Mapping[str, str]) -> Measured:
    """The values with 0 for the queries that the order lacks, {query id: domain}: trec_eval's -c."""
    return Measured(
        query_ids=(*measured.query_ids, *missing),
        domains=(*measured.domains, *missing.values()),
        values={metric: np.append(own, np.zeros(len(missing))) for metric, own in measured.values.items()},
    )


def intervals(measured: Measured, *, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Interval]:
    """Mean and 95 % bootstrap interval over queries of every metric."""
    return {
        metric: bootstrap_interval(values, rng=np.random.default_rng(seed), resamples=resamples)
        for metric, values in measured.values.items()
    }


def difference(
    first: Measured, second: Measured, metric: str = "ndcg@10", *, seed: int = 0, resamples: int = RESAMPLES
) -> PairedTest | None:
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
        resamples=resamples,
    )
