"""The leaderboard: results of every reranker on one split of a snapshot, and the paired differences.

Everything that ranks is a `Reranker` row, including external rerankers, the first stage and the judges, so one table
compares them. Evaluations store each document's score, so a page can show which documents moved without running a model.
`trainer.evaluation.metrics` computes the metrics, `trainer.evaluation.rankers` the orders.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import pyarrow.parquet as pq
from django.db import transaction
from django.db.models.functions import Now

from labeling.models import Project
from labeling.records import FloatArray
from scoring.models import Snapshot
from scoring.numerics.measures.rankings import Measure
from scoring.numerics.measures.resampling import Interval, PairedTest
from scoring.snapshots.splits import fingerprint
from scoring.snapshots.stored_rows import opened_rows
from trainer.evaluation.dataset import (
    LISTED,
    JudgedDocuments,
    Listing,
    columns_in,
    judged_documents,
    listing_of,
    queries_of_table,
    read_queries,
)
from trainer.evaluation.matching import Matched, answered_queries, covering_first, matched_of
from trainer.evaluation.metrics import (
    METRICS,
    REFERENCES,
    EvaluationQuery,
    Measured,
    NothingToMeasure,
    Reference,
    RunRanks,
    difference,
    highest_gain,
    intervals,
    measurable,
    measure,
    with_missing,
)
from trainer.models import Evaluation, Reranker

SPLITS = ("dev", "test", "heldout")
# Kinds of baselines that each row is compared with; of the judges, only the best.
BASELINES = ("bm25", "first_stage", "base", "judge")
MOST_P = 0.05


class NotEvaluated(LookupError):
    """Nothing has been evaluated on that split yet."""


@dataclass(frozen=True, slots=True)
class Against:
    """A paired difference in the leading measure to the baseline `name`.

    `verdict`: better or worse if the interval excludes zero and the sign-flip test agrees, so that a few queries, whose
    interval may have no width, tell nothing.
    """

    name: str
    reranker_id: int
    test: PairedTest

    @property
    def verdict(self) -> str:
        interval = self.test.difference
        if self.test.p_value >= MOST_P or interval.low <= 0.0 <= interval.high:
            return "not told apart"
        return "better" if interval.low > 0.0 else "worse"


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
    def leading(self) -> Interval:
        """The measure that orders the leaderboard, the first."""
        return next(iter(self.metrics.values()))

    @property
    def by_domain(self) -> list[Interval | None]:
        """The leading measure in each domain of the leaderboard, in its order."""
        return [next(iter(self.domains[each].values())) if each in self.domains else None for each in self.all_domains]

    @property
    def matched(self) -> Matched | None:
        found = self.evaluation.metrics.get("matched")
        return Matched(**found) if found else None


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """Rows, best in the first of `measures` first, on the `queries` of one split against one reference.

    `complete`: queries that an entry lacks count as 0 (trec_eval's -c).
    """

    snapshot: Snapshot
    split: str
    reference: Reference
    queries: int
    domains: tuple[str, ...]
    rows: tuple[Row, ...]
    chosen: Reranker | None = None
    measures: tuple[str, ...] = METRICS
    complete: bool = False

    @property
    def has_tall_domains(self) -> bool:
        """True if a table by domain is narrower with a line for each domain than with one for each row."""
        return len(self.domains) > len(self.rows)

    @property
    def labels(self) -> list[str]:
        """The measures as headings."""
        return [Measure.parse(each).label for each in self.measures]


def evaluation_queries(snapshot: Snapshot, split: str) -> list[EvaluationQuery]:
    """The queries of one split with their candidates, in id order. Raises NothingToMeasure if the split is empty.

    The id of a query is its imported id, or "project/id" if two projects use the same one.
    """
    with opened_rows(snapshot) as stream:
        return read_queries(stream, split, name=snapshot.name)


def snapshot_queries(snapshot: Snapshot, split: str) -> list[EvaluationQuery]:
    """`evaluation_queries` without their texts, which take most of the time."""
    with opened_rows(snapshot) as stream:
        return read_queries(stream, split, name=snapshot.name, texts=False)


def judged_documents_of(snapshot: Snapshot, split: str) -> dict[str, JudgedDocuments]:
    """The numbers of candidates, graded ones and those with an Elo, by query of a split. Raises NothingToMeasure."""
    with opened_rows(snapshot) as stream:
        return judged_documents(stream, split, name=snapshot.name)


def evaluation_query(snapshot: Snapshot, split: str, query_id: str) -> tuple[EvaluationQuery, slice]:
    """One query of `evaluation_queries`, and the positions of its documents among those of the split.

    Reads only the row groups of the file that hold this query. Raises NothingToMeasure if the split is empty or has no
    such query.
    """
    with opened_rows(snapshot) as stream:
        ids = pq.read_table(stream, columns=LISTED, filters=[("split", "=", split)])
        listing = listing_of(ids, split, name=snapshot.name)
        if query_id not in listing.names:
            raise NothingToMeasure(f"split {split!r} of snapshot {snapshot.name!r} has no query {query_id!r}")
        place = listing.names.index(query_id)
        rows = slice(listing.bounds[place], listing.bounds[place + 1])
        number = ids.column("query_id")[rows.start].as_py()
        wanted = [("split", "=", split), ("query_id", "=", number)]
        table = pq.read_table(stream, columns=columns_in(stream), filters=wanted)
    (query,) = queries_of_table(table, Listing((query_id,), (0, table.num_rows)))
    return query, rows


def learned_queries(snapshot: Snapshot) -> set[int]:
    """Fingerprints of the queries that a model of the snapshot was trained or selected on."""
    with opened_rows(snapshot) as stream:
        table = pq.read_table(stream, columns=["query"], filters=[("split", "in", ["train", "dev"])])
    return {fingerprint(text) for text in set(table.column("query").to_pylist())}


def record_evaluation(
    reranker: Reranker,
    snapshot: Snapshot,
    split: str,
    *,
    queries: Sequence[EvaluationQuery],
    scores: Sequence[FloatArray],
    run: RunRanks | None = None,
) -> list[Evaluation]:
    """Measure scores against every usable reference and store the results, replacing earlier ones.

    `scores` float64[n] per query, in the order of its candidates. For a run file, which may rank documents that are no
    candidates, they are negated ranks, and `run` holds what it says of these. Raises NothingToMeasure if no reference is
    usable, and BadOrder.
    """
    found: list[Evaluation] = []
    rows = {query.id: own for query, own in zip(queries, scores, strict=True)}
    answered = answered_queries(rows, run)
    for reference in REFERENCES:
        try:
            judged = measurable(queries, reference)
        except NothingToMeasure:
            continue
        kept = sorted((query for query in judged if query.id in answered), key=lambda query: query.id)
        if not kept:
            continue
        own = [rows[query.id] for query in kept]
        measured = measure(kept, own, reference, run=run, highest=highest_gain(judged, reference))
        # A student's gaps are queries that it has learned from; they are withheld, not missing.
        missing = [] if reranker.training_run_id else [query for query in judged if query.id not in answered]
        matched = matched_of(kept, len(judged), rows, run)
        facts = {
            "matched": asdict(matched),
            "are_ranks": run is not None,
            "missing": {query.id: query.domain for query in missing},
        }
        beyond = [] if run is None else [run.others[query.id] for query in queries if query.id in run.others]
        blob = packed([*scores, *beyond])
        found.append(_store(reranker, snapshot, split, reference, measured=measured, scores=blob, facts=facts))
    earlier = Evaluation.objects.filter(reranker=reranker, snapshot=snapshot, split=split)
    earlier.exclude(reference__in=[each.reference for each in found]).delete()
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
    scores: bytes,
    facts: Mapping[str, Any],
) -> Evaluation:
    metrics = {
        **facts,
        "queries": len(measured.query_ids),
        "all": _plain(intervals(measured)),
        "domains": {domain: _plain(own) for domain, own in _by_domain(measured).items()},
        "values": {
            "query_ids": list(measured.query_ids),
            "domains": list(measured.domains),
            **{metric: [round(float(v), 12) for v in measured.values[metric]] for metric in METRICS},
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
                "scores": scores,
                "created_at": Now(),
            },
        )
    return evaluation


def _by_domain(measured: Measured) -> dict[str, dict[str, Interval]]:
    """Intervals by domain; empty if no query has one."""
    domains = sorted(set(measured.domains))
    return {each: intervals(measured.of_domain(each)) for each in domains} if domains != [""] else {}


def _plain(found: Mapping[str, Interval]) -> dict[str, dict[str, float]]:
    return {metric: asdict(interval) for metric, interval in found.items()}


def packed(scores: Sequence[FloatArray]) -> bytes:
    """The scores of all queries, concatenated and compressed; a run file's `RunRanks.others` follow."""
    whole = np.concatenate(scores) if scores else np.zeros(0)
    return zlib.compress(whole.astype("<f8").tobytes(), 6)


def unpacked(data: bytes) -> FloatArray:
    """The scores of `packed`, float64 over the documents of all queries."""
    return np.frombuffer(zlib.decompress(data), dtype="<f8").astype(np.float64)


def measured_of(evaluation: Evaluation, metrics: Sequence[str] = METRICS) -> Measured:
    """The values by query that an evaluation keeps, those of `metrics`."""
    values: dict[str, Any] = evaluation.metrics["values"]
    return Measured(
        query_ids=tuple(values["query_ids"]),
        domains=tuple(values["domains"]),
        values={metric: np.array(values[metric], dtype=np.float64) for metric in metrics},
    )


def leaderboard(
    project: Project,
    snapshot: Snapshot,
    split: str,
    reference: Reference,
    *,
    compared_with: int | None = None,
    measures: tuple[str, ...] = METRICS,
    complete: bool = False,
) -> Leaderboard:
    """The leaderboard of one split, with differences to the baselines and to the reranker `compared_with` (its id).

    Other `measures` than METRICS are computed from the stored scores; the first orders the rows. Raises NotEvaluated if
    nothing is evaluated there or `compared_with` is not on the leaderboard.
    """
    is_stored = set(measures) <= set(METRICS)
    stored = Evaluation.objects.filter(project=project, snapshot=snapshot, split=split, reference=reference)
    evaluations = list((stored.defer("scores") if is_stored else stored).select_related("reranker__training_run"))
    if not evaluations:
        raise NotEvaluated(
            f"nothing is evaluated on split {split!r} of snapshot {snapshot.name!r} against {reference}; "
            "start an evaluation first"
        )
    values = _values_of(evaluations, measures, complete=complete)
    found = {pk: _figures(own, each.metrics, is_stored and not complete, measures)
             for (pk, own), each in zip(values.items(), evaluations, strict=True)}  # fmt: skip
    lead = measures[0]
    ranked = sorted(evaluations, key=lambda each: (-found[each.pk][0][lead].estimate, each.reranker.name))
    of_kind = {kind: [each for each in ranked if each.reranker.kind == kind] for kind in BASELINES}
    baselines = {
        kind: covering_first(rows, lambda row: len(values[row.pk].query_ids)) for kind, rows in of_kind.items()
    }
    chosen = _chosen(evaluations, compared_with)
    domains = tuple(sorted({domain for _, by_domain in found.values() for domain in by_domain}))
    board = [
        Row(
            evaluation=each,
            name=each.reranker.name,
            kind=each.reranker.kind,
            metrics=found[each.pk][0],
            domains=found[each.pk][1],
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
        queries=max(len(own.query_ids) for own in values.values()),
        domains=domains,
        rows=tuple(board),
        chosen=chosen.reranker if chosen else None,
        measures=measures,
        complete=complete,
    )


def values_by_reranker(
    project: Project, snapshot: Snapshot, split: str, reference: Reference, measures: tuple[str, ...]
) -> dict[Reranker, Measured]:
    """The values by query of everything evaluated on one split. Raises NotEvaluated."""
    rows = Evaluation.objects.filter(project=project, snapshot=snapshot, split=split, reference=reference)
    evaluations = list((rows.defer("scores") if set(measures) <= set(METRICS) else rows).select_related("reranker"))
    if not evaluations:
        raise NotEvaluated(f"nothing is evaluated on split {split!r} against {reference}; start an evaluation first")
    values = _values_of(evaluations, measures, complete=False)
    return {each.reranker: values[each.pk] for each in evaluations}


def _values_of(evaluations: Sequence[Evaluation], measures: Sequence[str], *, complete: bool) -> dict[int, Measured]:
    """Values by query of each evaluation, stored ones or computed from the stored scores."""
    if set(measures) <= set(METRICS):
        found = {each.pk: measured_of(each, measures) for each in evaluations}
    else:
        first = evaluations[0]
        with opened_rows(first.snapshot) as stream:
            queries = read_queries(stream, first.split, name=first.snapshot.name, texts=False)
        found = {each.pk: _measured_again(each, queries, measures) for each in evaluations}
    if complete:
        return {each.pk: with_missing(found[each.pk], each.metrics.get("missing", {})) for each in evaluations}
    return found


def stored_scores(evaluation: Evaluation, queries: Sequence[EvaluationQuery]) -> dict[str, FloatArray]:
    """Return the evaluated scores by query id, float64[candidates]; `queries`: those of `snapshot_queries`."""
    return stored_run(evaluation, queries)[0]


def stored_run(
    evaluation: Evaluation, queries: Sequence[EvaluationQuery]
) -> tuple[dict[str, FloatArray], RunRanks | None]:
    """Return `stored_scores`, and the ranks of `other_documents` if the scores are the ranks of a run file."""
    sizes = {query.id: len(query.document_ids) for query in queries}
    scores, rest = _split(unpacked(bytes(evaluation.scores)), sizes)
    if not evaluation.metrics.get("are_ranks", False):
        return scores, None
    # Evaluations of earlier versions end with the candidates.
    others = {query.id: len(query.other_documents) for query in queries if query.other_documents and len(rest)}
    return scores, RunRanks(named={}, others=_split(rest, others)[0])


def _measured_again(evaluation: Evaluation, queries: Sequence[EvaluationQuery], measures: Sequence[str]) -> Measured:
    reference = cast(Reference, evaluation.reference)
    scores, run = stored_run(evaluation, queries)
    answered = set(evaluation.metrics["values"]["query_ids"])
    kept = [query for query in queries if query.id in answered]
    return measure(
        kept,
        [scores[query.id] for query in kept],
        reference,
        measures,
        run=run,
        highest=highest_gain(queries, reference),
    )


def _split(stored: FloatArray, sizes: Mapping[str, int]) -> tuple[dict[str, FloatArray], FloatArray]:
    """The first values by query, as many as `sizes` says, and the rest."""
    *parts, rest = np.split(stored, np.cumsum(list(sizes.values()))) if sizes else [stored]
    return dict(zip(sizes, parts, strict=True)), rest


def _figures(
    own: Measured, stored: Mapping[str, Any], use_stored: bool, measures: Sequence[str]
) -> tuple[dict[str, Interval], dict[str, dict[str, Interval]]]:
    """Intervals over all queries and by domain."""
    if not use_stored:
        return intervals(own), _by_domain(own)
    by_domain = {domain: _intervals(each, measures) for domain, each in stored["domains"].items()}
    if "" in by_domain:  # earlier versions stored the figures of all queries there
        by_domain[""] = intervals(own.of_domain(""))
    return _intervals(stored["all"], measures), by_domain


def _chosen(evaluations: Sequence[Evaluation], reranker_id: int | None) -> Evaluation | None:
    if reranker_id is None:
        return None
    found = next((each for each in evaluations if each.reranker_id == reranker_id), None)
    if found is None:
        there = ", ".join(f"{each.reranker_id} ({each.reranker.name})" for each in evaluations)
        raise NotEvaluated(f"reranker {reranker_id} is not on this leaderboard; choose one of {there}")
    return found


def _intervals(plain: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, Interval]:
    # In our order: the database does not keep the order of JSON keys.
    return {metric: Interval(**plain[metric]) for metric in metrics}


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
    own = values[evaluation.pk]
    test = difference(own, values[baseline.pk], next(iter(own.values)))
    return None if test is None else Against(baseline.reranker.name, baseline.reranker_id, test)
