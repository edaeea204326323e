"""Changes between two evaluations: queries that gained or lost, and the documents that moved within one.

Evaluations keep every document's score, so nothing here calls a model. `trainer.evaluation.leaderboard` stores them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labeling.models import Project
from labeling.records import FloatArray
from scoring.numerics.measures.rankings import ranks_of
from scoring.storage.files import StoredFileUnusable
from trainer.evaluation.leaderboard import snapshot_queries
from trainer.evaluation.metrics import EvaluationQuery, NothingToMeasure, given_ranks
from trainer.models import Evaluation


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


def student_gains(project: Project) -> dict[str, float]:
    """NDCG@10 of the latest evaluated student minus that of its untrained base, by the imported id of the project's queries.

    Against people's grades where there are some. Empty without a student, or if its base was not measured beside it.
    """
    found = Evaluation.objects.filter(project=project).defer("scores").select_related("reranker__training_run")
    newest = found.filter(reranker__kind="trained").order_by("-created_at", "-id")
    for student in (newest.filter(reference="grades").first(), newest.first()):
        if student is None:
            continue
        same = found.filter(snapshot=student.snapshot_id, split=student.split, reference=student.reference)
        bases = same.filter(reranker__kind="base")
        run = student.reranker.training_run
        if run is not None and run.options.get("base"):
            bases = bases.filter(reranker__location=run.options["base"])
        if (base := bases.first()) is not None:
            return _of_own_queries(project, student, what_moved(base, student))
    return {}


def _of_own_queries(project: Project, evaluation: Evaluation, moved: list[Moved]) -> dict[str, float]:
    """The changes by imported id; a snapshot of several projects may hold the same id in another one."""
    origins = origins_of(evaluation, [each.query_id for each in moved])
    own = {name: imported for name, (slug, imported) in origins.items() if slug == project.slug}
    return {own[each.query_id]: each.change for each in moved if each.query_id in own}


def origins_of(evaluation: Evaluation, query_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Slug of the project and imported id of these evaluated queries; empty where a shared snapshot's file is unusable."""
    snapshot = evaluation.snapshot
    if snapshot.projects.count() < 2 and len(snapshot.manifest.get("projects", [])) < 2:
        return {each: (evaluation.project.slug, each) for each in query_ids}
    try:
        queries = snapshot_queries(snapshot, evaluation.split)
    except (NothingToMeasure, StoredFileUnusable):
        return {}
    wanted = set(query_ids)
    return {each.id: (each.project, each.imported_id) for each in queries if each.id in wanted}


@dataclass(frozen=True, slots=True)
class MovedDocument:
    """A document's ranks, from 1, under two orders; None where not retrieved."""

    document_id: str
    text: str
    grade: float | None
    elo: float | None
    before: int | None
    after: int | None


def moved_documents(
    query: EvaluationQuery, before: FloatArray, after: FloatArray, *, are_ranks: tuple[bool, bool] = (False, False)
) -> list[MovedDocument]:
    """The documents of one query in the later order, with the rank that each had before.

    `are_ranks`: whether the scores of each are the negated ranks of a run file, among all documents that it names.
    """
    earlier, later = (
        (given_ranks(scores) if are_given else ranks_of(scores, query.document_ids)).tolist()
        for scores, are_given in zip((before, after), are_ranks, strict=True)
    )
    rows = [
        MovedDocument(
            document_id=query.document_ids[i],
            text=query.documents[i],
            grade=_known(query.grades[i]),
            elo=_known(query.elo[i]),
            before=earlier[i] or None,
            after=later[i] or None,
        )
        for i in range(len(query.documents))
    ]
    return sorted(rows, key=lambda row: (row.after is None, row.after or 0, row.before or math.inf, row.document_id))


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
