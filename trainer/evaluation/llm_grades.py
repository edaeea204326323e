"""LLM grades as a reference of an evaluation: the grades that language models gave to single documents.

The judge `grade` gives them, and `labeling.models.ModelGrade` keeps them. They are read as they are now, because a snapshot
does not freeze them. Rerankers are measured against them by their stored scores; `trainer.evaluation.system_orders`
compares the result with human grades and Elo.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from django.db.models import Exists, OuterRef, QuerySet

from labeling.access.annotators import names_told_apart
from labeling.models import Annotator, ModelGrade, Project
from scoring.columns import copy_columns
from scoring.models import Snapshot
from trainer.evaluation.leaderboard import snapshot_queries, stored_scores
from trainer.evaluation.metrics import EvaluationQuery, Measured, NothingToMeasure, RunRanks, measurable, measure
from trainer.models import Evaluation, Reranker

SCALE = 3.0  # the grades 0 to 3 of UMBRELA, so that a document is relevant from grade 1 as with human grades
_MEANS = """
    SELECT candidate_id, avg(value) FROM labeling_modelgrade
    WHERE annotator_id = ANY(%s) AND candidate_id = ANY(%s) GROUP BY candidate_id
"""


class NoLlmGrades(LookupError):
    """No language model graded a candidate of the split."""


@dataclass(frozen=True, slots=True)
class LlmGraded:
    """Values by reranker against LLM grades; `graded` the number of graded candidates by query id."""

    values: Mapping[Reranker, Measured]
    graded: Mapping[str, int]
    models: tuple[str, ...]


def grading_models(project: Project) -> QuerySet[Annotator]:
    """The judges of a project that graded documents, in id order; looks at one grade of each, however many there are."""
    given = ModelGrade.objects.filter(annotator=OuterRef("pk"))
    return Annotator.objects.judges().filter(Exists(given), project=project).order_by("pk")


def chosen_models(project: Project, model: int | None) -> dict[int, str]:
    """The names by id of the judge `model`, or of all that graded documents. Raises NoLlmGrades if it gave no grades."""
    names = names_told_apart(project)
    known = {each.pk: names[each.pk] for each in grading_models(project)}
    found = {pk: name for pk, name in known.items() if model is None or pk == model}
    if not found:
        there = ", ".join(f"{pk} ({name})" for pk, name in known.items())
        raise NoLlmGrades(
            f"judge {model} gave no LLM grades; choose one of {there}"
            if there
            else "the project has no LLM grades; start a run with the judge 'grade'"
        )
    return found


def values_by_llm_grades(
    project: Project, snapshot: Snapshot, split: str, measures: Sequence[str], *, model: int | None = None
) -> LlmGraded:
    """Measure everything evaluated on a split against the grades of the judge `model`, or against the models' mean.

    The mean of a document is over the models that graded it; an ungraded document counts as grade 0. Raises NoLlmGrades.
    """
    models = chosen_models(project, model)
    try:
        queries = snapshot_queries(snapshot, split)
        kept = measurable(_with_llm_grades(queries, list(models)), "grades")
    except NothingToMeasure:
        raise NoLlmGrades(
            f"no query of split {split!r} has a positive LLM grade; start a run with the judge 'grade' on its queries"
        ) from None
    values = {
        reranker: _measured(evaluation, answered, queries, kept, measures)
        for reranker, (evaluation, answered) in _evaluations(project, snapshot, split).items()
    }
    graded = {query.id: int(np.isfinite(query.grades).sum()) for query in kept}
    return LlmGraded(values, graded, tuple(models.values()))


def _with_llm_grades(queries: Sequence[EvaluationQuery], models: Sequence[int]) -> list[EvaluationQuery]:
    """The queries with the models' mean grade of each candidate instead of people's, NaN where there is none."""
    ids = np.concatenate([query.candidate_ids for query in queries])
    rows = copy_columns(_MEANS, [list(models), np.unique(ids).tolist()], [("candidate", "i8"), ("mean", "f8")])
    known = dict(zip(rows["candidate"].tolist(), rows["mean"].tolist(), strict=True))
    return [
        replace(
            query,
            grades=SCALE * np.array([known.get(each, math.nan) for each in query.candidate_ids.tolist()]),
            other_grades=np.zeros(0),
            other_documents=(),
        )
        for query in queries
    ]


def _evaluations(project: Project, snapshot: Snapshot, split: str) -> dict[Reranker, tuple[Evaluation, frozenset[str]]]:
    """The latest evaluation of each reranker, which holds its scores, and the queries that it answered by any reference."""
    rows = Evaluation.objects.filter(project=project, snapshot=snapshot, split=split).select_related("reranker")
    latest: dict[Reranker, Evaluation] = {}
    answered: defaultdict[Reranker, set[str]] = defaultdict(set)
    for each in rows.order_by("created_at", "pk"):
        latest[each.reranker] = each
        answered[each.reranker] |= set(each.metrics["values"]["query_ids"])
    return {reranker: (each, frozenset(answered[reranker])) for reranker, each in latest.items()}


def _measured(
    evaluation: Evaluation,
    answered: frozenset[str],
    queries: Sequence[EvaluationQuery],
    graded: Sequence[EvaluationQuery],
    measures: Sequence[str],
) -> Measured:
    """The values of one reranker on the `graded` queries that it answered; `queries`: all of the split."""
    scores = stored_scores(evaluation, queries)
    own = [query for query in graded if query.id in answered or np.isfinite(scores[query.id]).any()]
    run = RunRanks(named={}, others={}) if evaluation.metrics.get("are_ranks", False) else None
    return measure(own, [scores[query.id] for query in own], "grades", measures, run=run, highest=SCALE)
