"""The rows that exporters get, read in one consistent pass through server-side cursors, in constant memory.

Each reader must run inside a transaction.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from django.db.models import Avg, Count, Q

from labeling.importing.answers.rows import ExportedJudgment, ExportedPair, ExportedText, ImportedRating
from labeling.importing.dataset import live_judgments
from labeling.models import LIVE_JUDGMENTS, Candidate, Document, Pair, Project, Query, RaterGrade, UnmatchedGrade
from labeling.records import AnswerKind, ExportedDocument, ExportedQuery, ImportedGrade
from scoring.known_scores import known

AT_ONCE = 500

_COLUMNS = (
    "query_id",
    "query__external_id",
    "query__text",
    "query__metadata",
    "document__external_id",
    "document__text",
    "document__metadata",
    "score__theta",
    "score__stderr",
    "score__elo",
    "score__relevance",
    "score__comparisons",
    "grade",
    "first_stage_rank",
    "first_stage_score",
)


def exported_queries(project: Project) -> Iterator[ExportedQuery]:
    """Yield the project's queries that have candidates. Must run inside a transaction."""
    rows = Candidate.objects.filter(query__project=project).order_by("query_id").values_list(*_COLUMNS)
    for _, group in itertools.groupby(rows.iterator(chunk_size=AT_ONCE), key=lambda row: row[0]):
        of_query = list(group)
        documents = _best_first([_document(row) for row in of_query])
        _, external_id, text, metadata = of_query[0][:4]
        yield ExportedQuery(id=external_id, text=text, metadata=metadata, documents=tuple(documents))


def _document(row: tuple[Any, ...]) -> ExportedDocument:
    named = known(dict(zip(_COLUMNS, row, strict=True)))
    external_id, text, metadata, theta, stderr, elo, relevance, comparisons, grade, rank, score = list(named.values())[
        4:
    ]
    return ExportedDocument(
        id=external_id,
        text=text,
        metadata=metadata,
        theta=theta,
        stderr=stderr,
        elo=elo,
        relevance=relevance,
        comparisons=comparisons or 0,
        grade=grade,
        first_stage_rank=rank,
        first_stage_score=score,
    )


def _best_first(documents: list[ExportedDocument]) -> list[ExportedDocument]:
    """Return the documents by Elo, ties by descending id as trec_eval and our evaluation order them, then the unrated.

    Ids are compared by code points, whatever the database's collation.
    """
    by_id = sorted(documents, key=lambda document: document.id)
    rated = [document for document in reversed(by_id) if document.elo is not None]
    return sorted(rated, key=lambda document: -(document.elo or 0.0)) + [each for each in by_id if each.elo is None]


def exported_texts(project: Project) -> Iterator[ExportedText | ImportedGrade]:
    """Yield all documents, then all queries, each once in import order, then all grades by their ids."""
    for kind, rows in (("document", Document.objects), ("query", Query.objects)):
        texts = rows.filter(project=project).order_by("id").values_list("external_id", "text", "metadata")
        for external_id, text, metadata in texts.iterator(chunk_size=AT_ONCE):
            yield ExportedText(kind, external_id, text, metadata)
    graded = Candidate.objects.filter(query__project=project, grade__isnull=False).order_by("query_id", "id")
    names = ("query__external_id", "document__external_id", "grade")
    for query, document, grade in graded.values_list(*names).iterator(chunk_size=AT_ONCE):
        yield ImportedGrade(query, document, grade)
    kept = UnmatchedGrade.objects.filter(project=project).order_by("id")
    names = ("query_external_id", "document_external_id", "grade")
    for query, document, grade in kept.values_list(*names).iterator(chunk_size=AT_ONCE):
        yield ImportedGrade(query, document, grade)


def exported_judgments(project: Project) -> Iterator[ExportedJudgment]:
    """Yield the live judgments, oldest first."""
    return (ExportedJudgment(**values) for values in live_judgments(project))


def exported_ratings(project: Project) -> Iterator[ImportedRating]:
    """Yield the grades of single raters."""
    rows = RaterGrade.objects.filter(annotator__project=project).order_by("id")
    names = ("query_external_id", "document_external_id", "grade", "annotator__name", "annotator__is_person")
    for query, document, grade, name, is_person in rows.values_list(*names).iterator(chunk_size=2000):
        yield ImportedRating(query, document, grade, name, by_person=is_person)


def exported_everything(project: Project) -> Iterator[Any]:
    """Yield what `exported_texts` yields, then what `exported_queries` yields."""
    yield from exported_texts(project)
    yield from exported_queries(project)


def exported_pairs(project: Project) -> Iterator[ExportedPair]:
    """Yield the judged pairs of queries with their texts and the mean of their live answers, query by query."""
    is_preference = LIVE_JUDGMENTS & Q(judgments__kind=AnswerKind.PREFERENCE.value)
    pairs = (
        Pair.objects.filter(query__project=project)
        .annotate(
            mean=Avg("judgments__preference", filter=is_preference), answers=Count("judgments", filter=LIVE_JUDGMENTS)
        )
        .filter(answers__gt=0)
        .order_by("query_id", "id")
        .values_list(
            *("query__external_id", "query__text", "a__document__external_id", "a__document__text"),
            *("b__document__external_id", "b__document__text", "mean", "answers"),
        )
    )
    for row in pairs.iterator(chunk_size=AT_ONCE):
        yield ExportedPair(*row)


READERS: dict[str, Callable[[Project], Iterator[Any]]] = {
    "scores": exported_queries,
    "texts": exported_texts,
    "judgments": exported_judgments,
    "pairs": exported_pairs,
    "ratings": exported_ratings,
    "everything": exported_everything,
}
