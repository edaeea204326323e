"""Did the newer data help? Two snapshots on the same queries: their Elo against human grades, and their students.

Only queries that stand in an evaluation split of both snapshots count, because filters never apply to those splits.
Evaluations keep the values by query, so nothing here calls a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from labeling.models import Project
from labeling.records import FloatArray
from scoring.models import Snapshot
from scoring.numerics.measures.resampling import Interval, PairedTest
from trainer.evaluation.leaderboard import measured_of, snapshot_queries
from trainer.evaluation.metrics import (
    EvaluationQuery,
    Measured,
    NothingToMeasure,
    difference,
    highest_gain,
    intervals,
    measure,
)
from trainer.models import Evaluation

EVALUATED = ("test", "heldout")
METRIC = "ndcg@10"


@dataclass(frozen=True, slots=True)
class Change:
    """NDCG@10 before and after on the same queries, all (None) or those of one domain; `test` is after - before."""

    domain: str | None
    before: Interval
    after: Interval
    test: PairedTest


@dataclass(frozen=True, slots=True)
class StudentChange:
    """The latest student of each snapshot, both measured on one split of the snapshot `measured_on`."""

    before_name: str
    after_name: str
    measured_on: Snapshot
    split: str
    reference: str
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class SnapshotComparison:
    """`elo`: changes of the Elo order against the newer grades, empty without graded queries in both snapshots."""

    before: Snapshot
    after: Snapshot
    elo: tuple[Change, ...]
    students: tuple[StudentChange, ...]


def compare_snapshots(project: Project, before: Snapshot, after: Snapshot, *, resamples: int) -> SnapshotComparison:
    """Compare two snapshots of a project; `resamples` for intervals and tests."""
    return SnapshotComparison(
        before, after, _elo_changes(before, after, resamples), _student_changes(project, before, after, resamples)
    )


def _elo_changes(before: Snapshot, after: Snapshot, resamples: int) -> tuple[Change, ...]:
    are_mixed = any(each.projects.count() > 1 for each in (before, after))
    earlier, later = (_evaluated(each, are_mixed=are_mixed) for each in (before, after))
    shared = [
        query
        for name, query in later.items()
        if name in earlier
        and query.counts("grades")
        and np.isfinite(query.elo).any()
        and np.isfinite(earlier[name].elo).any()
    ]
    if not any(query.says("grades") for query in shared):
        return ()
    orders = ([_elo_for(query, earlier[query.id]) for query in shared], [query.elo for query in shared])
    top = highest_gain(shared, "grades")
    first, second = (measure(shared, own, "grades", (METRIC,), highest=top) for own in orders)
    return _changes(first, second, resamples)


def _evaluated(snapshot: Snapshot, *, are_mixed: bool) -> dict[str, EvaluationQuery]:
    """The queries by imported id; where snapshots mix projects, which may share ids, with the project before it."""
    found: dict[str, EvaluationQuery] = {}
    for split in EVALUATED:
        try:
            queries = snapshot_queries(snapshot, split)
        except NothingToMeasure:
            continue
        if are_mixed:
            own = (f"{query.project}/{query.imported_id}" for query in queries)
            queries = [replace(query, id=name) for query, name in zip(queries, own, strict=True)]
        found |= {query.id: query for query in queries}
    return found


def _elo_for(query: EvaluationQuery, earlier: EvaluationQuery) -> FloatArray:
    """The earlier Elo of the query's documents, float64[n]; NaN, not retrieved, where there was none."""
    known = dict(zip(earlier.document_ids, earlier.elo.tolist(), strict=True))
    return np.array([known.get(each, np.nan) for each in query.document_ids], dtype=np.float64)


def _student_changes(project: Project, before: Snapshot, after: Snapshot, resamples: int) -> tuple[StudentChange, ...]:
    found = []
    rows = Evaluation.objects.filter(
        project=project, snapshot__in=[before, after], split__in=EVALUATED, reranker__training_run__isnull=False
    ).select_related("reranker__training_run", "snapshot")
    places: dict[tuple[int, str, str], list[Evaluation]] = {}
    for each in rows.defer("scores").order_by("-snapshot", "split", "-reference", "-reranker"):
        places.setdefault((each.snapshot_id, each.split, each.reference), []).append(each)
    for own in places.values():
        old, new = (_latest(own, snapshot) for snapshot in (before, after))
        if old is None or new is None:
            continue
        changes = _changes(measured_of(old, (METRIC,)), measured_of(new, (METRIC,)), resamples)
        if changes:
            names = (old.reranker.name, new.reranker.name)
            found.append(StudentChange(*names, old.snapshot, old.split, old.reference, changes))
    return tuple(found)


def _latest(evaluations: list[Evaluation], snapshot: Snapshot) -> Evaluation | None:
    """The evaluation of the newest student that learned from the snapshot."""
    for each in evaluations:
        run = each.reranker.training_run
        if run is not None and run.snapshot_id == snapshot.pk:
            return each
    return None


def _changes(before: Measured, after: Measured, resamples: int) -> tuple[Change, ...]:
    """The change over all shared queries, then by domain where there are several."""
    first, second = _on_shared(before, after), _on_shared(after, before)
    if not first.query_ids:
        return ()
    domains = sorted(set(second.domains))
    parts = [(None, second), *((each, second.of_domain(each)) for each in domains if len(domains) > 1)]
    return tuple(
        Change(
            domain,
            intervals(_on_shared(first, own), resamples=resamples)[METRIC],
            intervals(own, resamples=resamples)[METRIC],
            _tested(own, first, resamples),
        )
        for domain, own in parts
    )


def _tested(after: Measured, before: Measured, resamples: int) -> PairedTest:
    found = difference(after, before, METRIC, resamples=resamples)
    assert found is not None, "both hold the same queries"
    return found


def _on_shared(own: Measured, other: Measured) -> Measured:
    """The values of `own` on the queries of `other`, in that order."""
    place: Mapping[str, int] = {query: row for row, query in enumerate(own.query_ids)}
    rows = [place[query] for query in sorted(other.query_ids) if query in place]
    return Measured(
        query_ids=tuple(own.query_ids[row] for row in rows),
        domains=tuple(own.domains[row] for row in rows),
        values={metric: values[rows] for metric, values in own.values.items()},
    )
