"""Who ranks best: what every reranker reached on one split of a snapshot, and the paired differences.

Everything that ranks is a `Reranker` row, ours and others', the first stage and the judges included, so that one
table compares them. Evaluations keep each document's score, so that a page can show what moved without asking a
model again. `trainer.evaluation` has the figures, `trainer.orders` the orders.
"""

from __future__ import annotations

import io
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from django.db import transaction

from labeling.models import Project
from labeling.records import FloatArray, IntArray
from scoring.models import Snapshot
from scoring.numerics.resampling import Interval, PairedTest
from scoring.snapshots import ROWS_FILE
from scoring.splits import fingerprint
from scoring.storage import storage
from trainer.evaluation import (
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
# What a row is compared with, by the kind of its reranker: the best of the judges, whatever is there of the others.
BASELINES = ("bm25", "first_stage", "base", "judge")


class NotEvaluated(LookupError):
    """Nothing has been evaluated on that split yet."""


@dataclass(frozen=True, slots=True)
class Against:
    """A paired difference in NDCG@10 to the baseline `name`; `verdict` in a reader's words."""

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
    """One reranker's place: intervals by metric, the same by domain, differences by kind of baseline."""

    evaluation: Evaluation
    name: str
    kind: str
    metrics: Mapping[str, Interval]
    domains: Mapping[str, Mapping[str, Interval]]
    against: Mapping[str, Against]
    all_domains: tuple[str, ...] = ()

    @property
    def differences(self) -> list[Against | None]:
        """One a baseline, in the order of `BASELINES`."""
        return [self.against.get(kind) for kind in BASELINES]

    @property
    def by_domain(self) -> list[Interval | None]:
        """NDCG@10 in each domain of the board, in its order."""
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


_READ = (
    "project", "domain", "query_external_id", "query_id", "query", "candidate_id", "document_external_id", "document",
    "relevance", "elo", "comparisons", "grade", "first_stage_rank",
)  # fmt: skip


def evaluation_queries(snapshot: Snapshot, split: str) -> list[EvaluationQuery]:
    """The queries of one split with their candidates, in id order. Raises NothingToMeasure where it is empty.

    A query goes by the id that was imported, or by "project/id" where two projects use the same.
    """
    content = io.BytesIO(storage().read_bytes(f"{snapshot.location}/{ROWS_FILE}"))
    table = pq.read_table(content, columns=list(_READ), filters=[("split", "=", split)])
    if not table.num_rows:
        raise NothingToMeasure(f"split {split!r} of snapshot {snapshot.name!r} is empty; choose another split")
    columns = {name: table.column(name).to_pylist() for name in _READ}
    starts = np.flatnonzero(np.diff(np.array(columns["query_id"]), prepend=-1))
    projects = Counter(columns["query_external_id"][start] for start in starts)
    return list(_queries(columns, starts.tolist(), {name for name, times in projects.items() if times > 1}))


def _queries(columns: Mapping[str, list[Any]], starts: Sequence[int], ambiguous: set[str]) -> Iterator[EvaluationQuery]:
    ends = [*starts[1:], len(columns["query_id"])]
    for start, end in zip(starts, ends, strict=True):
        rows = slice(start, end)
        name = columns["query_external_id"][start]
        compared = np.array(columns["comparisons"][rows]) > 0
        yield EvaluationQuery(
            id=f"{columns['project'][start]}/{name}" if name in ambiguous else name,
            text=columns["query"][start],
            domain=columns["domain"][start] or "",
            candidate_ids=np.array(columns["candidate_id"][rows], dtype=np.int64),
            document_ids=tuple(columns["document_external_id"][rows]),
            documents=tuple(columns["document"][rows]),
            grades=_floats(columns["grade"][rows]),
            relevance=_floats(columns["relevance"][rows]),
            elo=np.where(compared, _floats(columns["elo"][rows]), np.nan),
            first_stage_rank=_floats(columns["first_stage_rank"][rows]),
        )


def _floats(values: Sequence[float | None]) -> FloatArray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def learned_queries(snapshot: Snapshot) -> set[int]:
    """Fingerprints of the queries that a student of the snapshot has learned from, or was chosen on."""
    content = io.BytesIO(storage().read_bytes(f"{snapshot.location}/{ROWS_FILE}"))
    table = pq.read_table(content, columns=["query"], filters=[("split", "in", ["train", "dev"])])
    return {fingerprint(text) for text in set(table.column("query").to_pylist())}


def record_evaluation(
    reranker: Reranker,
    snapshot: Snapshot,
    split: str,
    *,
    queries: Sequence[EvaluationQuery],
    scores: Sequence[FloatArray],
) -> list[Evaluation]:
    """Measure scores against every reference that says something and store them, in the place of earlier ones.

    `scores` float64[n] a query, in the order of its candidates. Raises NothingToMeasure where no reference says
    anything, BadOrder.
    """
    found: list[Evaluation] = []
    rows = {query.id: own for query, own in zip(queries, scores, strict=True)}
    # A query without any score says nothing of the order: ties by id would be an order that nobody gave.
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
            "two documents of different Elo; choose another split, or judge more"
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
            defaults={"project": reranker.project, "metrics": metrics, "scores": packed(scores)},
        )
    return evaluation


def _plain(found: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {metric: asdict(interval) for metric, interval in found.items()}


def packed(scores: Sequence[FloatArray]) -> bytes:
    """Scores of all queries, one after the other, compressed."""
    whole = np.concatenate(scores) if scores else np.zeros(0)
    return zlib.compress(whole.astype("<f8").tobytes(), 6)


def unpacked(data: bytes, sizes: Sequence[int]) -> list[FloatArray]:
    """The scores of `packed`, with so many documents a query."""
    whole = np.frombuffer(zlib.decompress(data), dtype="<f8").astype(np.float64)
    return np.split(whole, np.cumsum(sizes)[:-1]) if sizes else []


def measured_of(evaluation: Evaluation) -> Measured:
    """The values by query that an evaluation keeps."""
    values: dict[str, Any] = evaluation.metrics["values"]
    return Measured(
        query_ids=tuple(values["query_ids"]),
        domains=tuple(values["domains"]),
        values={metric: np.array(values[metric], dtype=np.float64) for metric in METRICS},
    )


def leaderboard(project: Project, snapshot: Snapshot, split: str, reference: Reference) -> Leaderboard:
    """Everything evaluated there, with differences to the baselines. Raises NotEvaluated."""
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
        )
        for each in ranked
    ]
    return Leaderboard(
        snapshot=snapshot,
        split=split,
        reference=reference,
        queries=max(row.evaluation.metrics["queries"] for row in rows),
        domains=domains,
        rows=tuple(rows),
    )


def _ndcg(evaluation: Evaluation) -> float:
    return float(evaluation.metrics["all"]["ndcg@10"]["estimate"])


def _intervals(plain: Mapping[str, Mapping[str, Any]]) -> dict[str, Interval]:
    # In our order: the database keeps the keys of JSON in one of its own.
    return {metric: Interval(**plain[metric]) for metric in METRICS}


def _against(
    evaluation: Evaluation, baselines: Mapping[str, list[Evaluation]], values: Mapping[int, Measured]
) -> dict[str, Against]:
    """Differences to the best of each kind; of the bases, to the one that a student has grown from."""
    found = {}
    run = evaluation.reranker.training_run
    base = run.options.get("base", "") if run is not None else ""
    for kind, rivals in baselines.items():
        own = [each for each in rivals if kind == "base" and each.reranker.location == base]
        baseline = next(iter(own or rivals), None)
        if baseline is None or baseline.pk == evaluation.pk:
            continue
        test = difference(values[evaluation.pk], values[baseline.pk])
        if test is not None:
            found[kind] = Against(baseline.reranker.name, baseline.reranker_id, test)
    return found


@dataclass(frozen=True, slots=True)
class Moved:
    """One query under two orders: how NDCG@10 changed, from `before` to `after`."""

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
