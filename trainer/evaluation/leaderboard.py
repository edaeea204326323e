"""The leaderboard: results of every reranker on one split of a snapshot, and the paired differences.

Everything that ranks is a `Reranker` row, including external rerankers, the first stage and the judges, so one table
compares them. Evaluations store each document's score, so a page can show which documents moved without running a model.
`trainer.evaluation.metrics` computes the metrics, `trainer.evaluation.rankers` the orders.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from django.db import transaction
from django.db.models.functions import Now

from labeling.models import Project
from labeling.records import FloatArray, IntArray
from scoring.models import Snapshot
from scoring.numerics.measures.resampling import Interval, PairedTest
from scoring.snapshots.freeze import ROWS_FILE
from scoring.snapshots.splits import fingerprint
from scoring.storage.files import storage
from trainer.evaluation.dataset import LISTED, READ, Listing, listing_of, queries_of_table, read_queries
from trainer.evaluation.metrics import (
    METRICS,
    REFERENCES,
    EvaluationQuery,
    Measured,
    NothingToMeasure,
    Reference,
    difference,
    intervals,
    measurable,
    measure,
)
from trainer.models import Evaluation, Reranker

SPLITS = ("dev", "test", "heldout")
# Kinds of baselines that each row is compared with; of the judges, only the best.
BASELINES = ("bm25", "first_stage", "base", "judge")


class NotEvaluated(LookupError):
    """Nothing has been evaluated on that split yet."""


@dataclass(frozen=True, slots=True)
class Against:
    """A paired difference in NDCG@10 to the baseline `name`; `verdict` says it in words."""

    name: str
    reranker_id: int
    test: PairedTest

    @property
    def verdict(self) -> str:
        interval = self.test.difference
        if interval.low > 0.0:
            return "better"
        return "worse" if interval.high < 0.0 else "not told apart"


@dataclass(frozen=True, slots=True)
class Row:
    """One reranker on the leaderboard: intervals by metric and domain, differences by kind of baseline.

    `to_chosen` is the difference to the row that the reader selected, None for that row itself.
    """

    evaluation: Evaluation
    name: str
    kind: str
    metrics: Mapping[str, Interval]
    domains: Mapping[str, Mapping[str, Interval]]
    against: Mapping[str, Against]
    all_domains: tuple[str, ...] = ()
    to_chosen: Against | None = None

    @property
    def queries(self) -> int:
        """Number of queries that it was measured on; a judge answers only the queries of its own project."""
        return int(self.evaluation.metrics["queries"])

    @property
    def differences(self) -> list[Against | None]:
        """One difference per baseline, in the order of `BASELINES`."""
        return [self.against.get(kind) for kind in BASELINES]

    @property
    def by_domain(self) -> list[Interval | None]:
        """NDCG@10 in each domain of the leaderboard, in its order."""
        return [self.domains[each]["ndcg@10"] if each in self.domains else None for each in self.all_domains]


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Rows, best NDCG@10 first, on the `queries` of one split against one reference."""

    snapshot: Snapshot
    split: str
    reference: Reference
    queries: int
    domains: tuple[str, ...]
    rows: tuple[Row, ...]
    chosen: Reranker | None = None


def evaluation_queries(snapshot: Snapshot, split: str) -> list[EvaluationQuery]:
    """The queries of one split with their candidates, in id order. Raises NothingToMeasure if the split is empty.

    The id of a query is its imported id, or "project/id" if two projects use the same one.
    """
    with _rows_file(snapshot) as stream:
        return read_queries(stream, split, name=snapshot.name)


def evaluation_query(snapshot: Snapshot, split: str, query_id: str) -> tuple[EvaluationQuery, slice]:
    """One query of `evaluation_queries`, and the positions of its documents among those of the split.

    Reads only the row groups of the file that hold this query. Raises NothingToMeasure if the split is empty or has no
    such query.
    """
    with _rows_file(snapshot) as stream:
        ids = pq.read_table(stream, columns=LISTED, filters=[("split", "=", split)])
        listing = listing_of(ids, split, name=snapshot.name)
        if query_id not in listing.names:
            raise NothingToMeasure(f"split {split!r} of snapshot {snapshot.name!r} has no query {query_id!r}")
        place = listing.names.index(query_id)
        rows = slice(listing.bounds[place], listing.bounds[place + 1])
        number = ids.column("query_id")[rows.start].as_py()
        table = pq.read_table(stream, columns=list(READ), filters=[("split", "=", split), ("query_id", "=", number)])
    (query,) = queries_of_table(table, Listing((query_id,), (0, table.num_rows)))
    return query, rows


def _rows_file(snapshot: Snapshot) -> Any:
    return storage().opened(f"{snapshot.location}/{ROWS_FILE}")


def learned_queries(snapshot: Snapshot) -> set[int]:
    """Fingerprints of the queries that a model of the snapshot was trained or selected on."""
    with _rows_file(snapshot) as stream:
        table = pq.read_table(stream, columns=["query"], filters=[("split", "in", ["train", "dev"])])
    return {fingerprint(text) for text in set(table.column("query").to_pylist())}


def record_evaluation(
    reranker: Reranker,
    snapshot: Snapshot,
    split: str,
    *,
    queries: Sequence[EvaluationQuery],
    scores: Sequence[FloatArray],
) -> list[Evaluation]:
    """Measure scores against every usable reference and store the results, replacing earlier ones.

    `scores` float64[n] per query, in the order of its candidates. Raises NothingToMeasure if no reference is usable, and
    BadOrder.
    """
    found: list[Evaluation] = []
    rows = {query.id: own for query, own in zip(queries, scores, strict=True)}
    # Skip queries without any score: ordering them by id would measure an order that the reranker did not give.
    scored = {query for query, own in rows.items() if np.isfinite(own).any()}
    for reference in REFERENCES:
        try:
            kept = [query for query in measurable(queries, reference) if query.id in scored]
        except NothingToMeasure:
            continue
        if not kept:
            continue
        measured = measure(kept, [rows[query.id] for query in kept], reference)
        found.append(_store(reranker, snapshot, split, reference, measured=measured, scores=scores))
    if not found:
        raise NothingToMeasure(
            f"{reranker.name!r} scored no query of split {split!r} of snapshot {snapshot.name!r} that has human grades or "
            "two documents of different Elo; choose another split, or collect more judgments"
        )
    return found


def _store(
    reranker: Reranker,
    snapshot: Snapshot,
    split: str,
    reference: Reference,
    *,
    measured: Measured,
    scores: Sequence[FloatArray],
) -> Evaluation:
    domains = sorted(set(measured.domains))
    metrics = {
        "queries": len(measured.query_ids),
        "all": _plain(intervals(measured)),
        "domains": {each: _plain(intervals(measured.of_domain(each))) for each in domains} if domains != [""] else {},
        "values": {
            "query_ids": list(measured.query_ids),
            "domains": list(measured.domains),
            **{metric: [round(float(v), 6) for v in measured.values[metric]] for metric in METRICS},
        },
    }
    with transaction.atomic():
        evaluation, _ = Evaluation.objects.update_or_create(
            reranker=reranker,
            snapshot=snapshot,
            split=split,
            reference=reference,
            defaults={
                "project": reranker.project,
                "metrics": metrics,
                "scores": packed(scores),
                "created_at": Now(),
            },
        )
    return evaluation


def _plain(found: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {metric: asdict(interval) for metric, interval in found.items()}


def packed(scores: Sequence[FloatArray]) -> bytes:
    """The scores of all queries, concatenated and compressed."""
    whole = np.concatenate(scores) if scores else np.zeros(0)
    return zlib.compress(whole.astype("<f8").tobytes(), 6)


def unpacked(data: bytes) -> FloatArray:
    """The scores of `packed`, float64 over the documents of all queries."""
    return np.frombuffer(zlib.decompress(data), dtype="<f8").astype(np.float64)


def measured_of(evaluation: Evaluation) -> Measured:
    """The values by query that an evaluation keeps."""
    values: dict[str, Any] = evaluation.metrics["values"]
    return Measured(
        query_ids=tuple(values["query_ids"]),
        domains=tuple(values["domains"]),
        values={metric: np.array(values[metric], dtype=np.float64) for metric in METRICS},
    )


def leaderboard(
    project: Project, snapshot: Snapshot, split: str, reference: Reference, *, compared_with: int | None = None
) -> Leaderboard:
    """The leaderboard of one split, with differences to the baselines and to the reranker `compared_with` (its id).

    Raises NotEvaluated if nothing is evaluated there or `compared_with` is not on the leaderboard.
    """
    evaluations = list(
        Evaluation.objects.filter(project=project, snapshot=snapshot, split=split, reference=reference)
        .defer("scores")
        .select_related("reranker__training_run")
    )
    if not evaluations:
        raise NotEvaluated(
            f"nothing is evaluated on split {split!r} of snapshot {snapshot.name!r} against {reference}; "
            "start an evaluation first"
        )
    values = {each.pk: measured_of(each) for each in evaluations}
    ranked = sorted(evaluations, key=lambda each: (-_ndcg(each), each.reranker.name))
    baselines = {kind: [each for each in ranked if each.reranker.kind == kind] for kind in BASELINES}
    chosen = _chosen(evaluations, compared_with)
    domains = tuple(sorted({domain for each in evaluations for domain in each.metrics["domains"]}))
    rows = [
        Row(
            evaluation=each,
            name=each.reranker.name,
            kind=each.reranker.kind,
            metrics=_intervals(each.metrics["all"]),
            domains={domain: _intervals(own) for domain, own in each.metrics["domains"].items()},
            against=_against(each, baselines, values),
            all_domains=domains,
            to_chosen=_to(chosen, each, values),
        )
        for each in ranked
    ]
    return Leaderboard(
        snapshot=snapshot,
        split=split,
        reference=reference,
        queries=max(row.queries for row in rows),
        domains=domains,
        rows=tuple(rows),
        chosen=chosen.reranker if chosen else None,
    )


def _chosen(evaluations: Sequence[Evaluation], reranker_id: int | None) -> Evaluation | None:
    if reranker_id is None:
        return None
    found = next((each for each in evaluations if each.reranker_id == reranker_id), None)
    if found is None:
        there = ", ".join(f"{each.reranker_id} ({each.reranker.name})" for each in evaluations)
        raise NotEvaluated(f"reranker {reranker_id} is not on this leaderboard; choose one of {there}")
    return found


def _ndcg(evaluation: Evaluation) -> float:
    return float(evaluation.metrics["all"]["ndcg@10"]["estimate"])


def _intervals(plain: Mapping[str, Mapping[str, Any]]) -> dict[str, Interval]:
    # In our order: the database does not keep the order of JSON keys.
    return {metric: Interval(**plain[metric]) for metric in METRICS}


def _against(
    evaluation: Evaluation, baselines: Mapping[str, list[Evaluation]], values: Mapping[int, Measured]
) -> dict[str, Against]:
    """Differences to the best baseline of each kind; of the bases, to the one that the reranker was trained from."""
    found = {}
    run = evaluation.reranker.training_run
    base = run.options.get("base", "") if run is not None else ""
    for kind, rivals in baselines.items():
        own = [each for each in rivals if kind == "base" and each.reranker.location == base]
        difference_to = _to(next(iter(own or rivals), None), evaluation, values)
        if difference_to is not None:
            found[kind] = difference_to
    return found


def _to(baseline: Evaluation | None, evaluation: Evaluation, values: Mapping[int, Measured]) -> Against | None:
    """The paired difference to another row; None to itself, or if no query was measured on both."""
    if baseline is None or baseline.pk == evaluation.pk:
        return None
    test = difference(values[evaluation.pk], values[baseline.pk])
    return None if test is None else Against(baseline.reranker.name, baseline.reranker_id, test)


@dataclass(frozen=True, slots=True)
class Moved:
    """NDCG@10 of one query under two orders, `before` and `after`."""

    query_id: str
    domain: str
    before: float
    after: float

    @property
    def change(self) -> float:
        return self.after - self.before


def what_moved(first: Evaluation, second: Evaluation) -> list[Moved]:
    """Queries that both evaluations measured, the largest loss first."""
    before = dict(zip(first.metrics["values"]["query_ids"], first.metrics["values"]["ndcg@10"], strict=True))
    values = second.metrics["values"]
    rows = zip(values["query_ids"], values["domains"], values["ndcg@10"], strict=True)
    found = [Moved(query, domain, before[query], after) for query, domain, after in rows if query in before]
    return sorted(found, key=lambda each: (each.change, each.query_id))


@dataclass(frozen=True, slots=True)
class MovedDocument:
    """A document's ranks, from 1, under two orders."""

    document_id: str
    text: str
    grade: float | None
    elo: float | None
    before: int
    after: int


def moved_documents(query: EvaluationQuery, before: FloatArray, after: FloatArray) -> list[MovedDocument]:
    """The documents of one query in the later order, with the rank that each had before."""
    earlier, later = _ranks(before), _ranks(after)
    rows = [
        MovedDocument(
            document_id=query.document_ids[i],
            text=query.documents[i],
            grade=_known(query.grades[i]),
            elo=_known(query.elo[i]),
            before=int(earlier[i]),
            after=int(later[i]),
        )
        for i in range(len(query.documents))
    ]
    return sorted(rows, key=lambda row: row.after)


def _ranks(scores: FloatArray) -> IntArray:
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[np.argsort(-np.nan_to_num(scores, nan=-np.inf), kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
