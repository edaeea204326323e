"""LLM grades as a reference of an evaluation: the grades that language models gave to single documents.

The judge `grade` gives them, and `labeling.models.ModelGrade` keeps them; imported grades of models are in
`labeling.models.RaterGrade`. They are read as they are now, because a snapshot does not freeze them. Rerankers are measured against them by their stored scores; `trainer.evaluation.system_orders`
compares the result with human grades and Elo.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from django.db import connection
from django.db.models import Exists, OuterRef, QuerySet

from labeling.access.annotators import names_told_apart
from labeling.models import Annotator, ModelGrade, Project, RaterGrade
from labeling.records import FloatArray
from scoring.columns import copy_columns
from scoring.models import Snapshot
from trainer.evaluation.leaderboard import snapshot_queries, stored_run
from trainer.evaluation.metrics import EvaluationQuery, Measured, NothingToMeasure, measurable, measure
from trainer.models import Evaluation, Reranker

SCALE = 3.0  # the grades 0 to 3 of UMBRELA, so that a document is relevant from grade 1 as with human grades
# Sum and number of the models' grades, from 0 to 1, of each candidate.
_GIVEN = """
    SELECT candidate_id, sum(value), count(*) FROM labeling_modelgrade
    WHERE annotator_id = ANY(%s) AND candidate_id = ANY(%s) GROUP BY candidate_id
"""
# Imported grades up to 3 are on that scale, as most are; larger ones are divided by the model's highest.
_IMPORTED = f"""
    FROM labeling_ratergrade given
    JOIN (SELECT annotator_id, max(grade) AS grade FROM labeling_ratergrade WHERE annotator_id = ANY(%s) GROUP BY 1) highest
        USING (annotator_id)
    CROSS JOIN LATERAL (SELECT given.grade / GREATEST(highest.grade, {SCALE})::float8 AS value) scaled
"""
_OF_CANDIDATES = f"""
    SELECT candidate.id, sum(scaled.value), count(*) {_IMPORTED}
    JOIN labeling_annotator annotator ON annotator.id = given.annotator_id
    JOIN labeling_query query ON query.project_id = annotator.project_id AND query.external_id = given.query_external_id
    JOIN labeling_document document
        ON document.project_id = annotator.project_id AND document.external_id = given.document_external_id
    JOIN labeling_candidate candidate ON candidate.query_id = query.id AND candidate.document_id = document.id
    WHERE candidate.id = ANY(%s) GROUP BY candidate.id
"""
_OF_OTHERS = f"""
    SELECT given.query_external_id, given.document_external_id, avg(scaled.value) {_IMPORTED}
    WHERE (given.query_external_id, given.document_external_id) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
    GROUP BY 1, 2
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
    """The models that graded a project's documents, in id order; looks at one grade of each, however many there are."""
    given, imported = (kind.objects.filter(annotator=OuterRef("pk")) for kind in (ModelGrade, RaterGrade))
    return Annotator.objects.judges().filter(Exists(given) | Exists(imported), project=project).order_by("pk")


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
            else "the project has no LLM grades; start a run with the judge 'grade', or import grades of models"
        )
    return found


def values_by_llm_grades(
    project: Project, snapshot: Snapshot, split: str, measures: Sequence[str], *, model: int | None = None
) -> LlmGraded:
    """Measure everything evaluated on a split against the grades of the judge `model`, or against the models' mean.

    The mean of a document is over the models that graded it; an ungraded document counts as grade 0. Documents
    that are not candidates count as far as people graded them too, since evaluations keep the ranks of these. Raises NoLlmGrades.
    """
    models = chosen_models(project, model)
    try:
        queries = snapshot_queries(snapshot, split)
        kept = measurable(_with_llm_grades(project, queries, list(models)), "grades")
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


def _with_llm_grades(
    project: Project, queries: Sequence[EvaluationQuery], models: Sequence[int]
) -> list[EvaluationQuery]:
    """The queries with the models' mean grade of each document instead of people's, NaN where there is none."""
    ids = np.concatenate([query.candidate_ids for query in queries])
    asked = [list(models), np.unique(ids).tolist()]
    columns = [("candidate", "i8"), ("sum", "f8"), ("models", "i8")]
    rows = np.concatenate([copy_columns(each, asked, columns) for each in (_GIVEN, _OF_CANDIDATES)])
    candidates, place = np.unique(rows["candidate"], return_inverse=True)
    sums, counts = (np.bincount(place, rows[name].astype(np.float64)) for name in ("sum", "models"))
    known = dict(zip(candidates.tolist(), (sums / counts).tolist(), strict=True))
    others = _of_others([query for query in queries if query.project == project.slug], models)
    return [
        replace(
            query,
            grades=SCALE * np.array([known.get(each, math.nan) for each in query.candidate_ids.tolist()]),
            other_grades=SCALE * others.get(query.id, np.full(len(query.other_documents), math.nan)),
        )
        for query in queries
    ]


def _of_others(queries: Sequence[EvaluationQuery], models: Sequence[int]) -> dict[str, FloatArray]:
    """The models' mean imported grade of each of `other_documents` by query id, NaN where there is none."""
    pairs = [(query.imported_id, document) for query in queries for document in query.other_documents]
    if not pairs:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(_OF_OTHERS, [list(models), *map(list, zip(*pairs, strict=True))])
        known = {(query, document): value for query, document, value in cursor.fetchall()}
    return {
        query.id: np.array([known.get((query.imported_id, each), math.nan) for each in query.other_documents])
        for query in queries
    }


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
    scores, run = stored_run(evaluation, queries)
    own = [query for query in graded if query.id in answered or np.isfinite(scores[query.id]).any()]
    return measure(own, [scores[query.id] for query in own], "grades", measures, run=run, highest=SCALE)
