"""Stage 2: candidates of queries, and first-stage ranks of candidates.

`fill_candidates` retrieves for queries without documents; `rank_candidates` ranks lists without ranks. The retrievers themselves are plugins, see `labeling.retrieval.bm25`, `dense` and `hybrid`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from django.db import transaction

from labeling.collection import ProjectCollection
from labeling.importing.unmatched_grades import attach_grades
from labeling.models import Candidate, Project, Query
from labeling.plugins import Retriever, get_plugin
from labeling.records import TextRecord
from labeling.retrieval.bm25 import bm25_scores
from labeling.retrieval.tokenize import CollectionStatistics

Progress = Callable[[int, int], None]
QUERIES_AT_ONCE = 500


def fill_candidates(
    project: Project,
    *,
    retriever: str = "hybrid",
    options: Mapping[str, Any] | None = None,
    k: int = 100,
    progress: Progress | None = None,
) -> int:
    """Retrieve up to k candidates for every query that has none; return how many were added.

    Raises UnknownPlugin for an unregistered retriever, ValueError for k below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}; expected the number of candidates per query, 1 or more (100 is usual)")
    plugin = cast(Retriever, get_plugin("retriever", retriever).from_dict(dict(options or {})))
    bare = Query.objects.filter(project=project, candidates__isnull=True).order_by("id").values_list("id", "text")
    queries = [TextRecord(pk, text) for pk, text in bare]
    if not queries:
        return 0
    documents = list(ProjectCollection(project.pk).documents())
    added = 0
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        chunk = queries[start : start + QUERIES_AT_ONCE]
        rankings = plugin.retrieve(chunk, documents, k)
        rows = [
            Candidate(query_id=query.id, document_id=document, first_stage_rank=rank, first_stage_score=score)
            for query, ranking in zip(chunk, rankings, strict=True)
            for rank, (document, score) in enumerate(ranking, start=1)
        ]
        Candidate.objects.bulk_create(rows, ignore_conflicts=True, batch_size=5000)
        added += len(rows)
        if progress is not None:
            progress(start + len(chunk), len(queries))
    attach_grades(project.pk)
    return added


def rank_candidates(project: Project, *, progress: Progress | None = None) -> int:
    """Give candidates without a first-stage rank their BM25 rank and score within their query.

    Equal scores are ordered by the imported document id, descending, as evaluations order them, so that neither the order of
    the import nor the rank decides a figure. A query of which some candidates have ranks stays as it was imported. Returns the number of ranked candidates.
    """
    unranked = _queries_without_ranks(project)
    if not unranked:
        return 0
    collection = ProjectCollection(project.pk)
    statistics = CollectionStatistics.of(record.text for record in collection.documents())
    ranked = 0
    for position, query in enumerate(unranked, start=1):
        documents = collection.candidates(query.id)
        scores = bm25_scores(query.text, [document.text for document in documents], statistics=statistics)
        with transaction.atomic():
            found = Candidate.objects.filter(query_id=query.id).select_related("document").defer("document__text")
            rows = {c.document_id: c for c in found}
            by_id = sorted(
                range(len(documents)), key=lambda row: rows[documents[row].id].document.external_id, reverse=True
            )
            order = sorted(by_id, key=lambda row: -scores[row])
            for rank, row in enumerate(order, start=1):
                candidate = rows[documents[row].id]
                candidate.first_stage_rank, candidate.first_stage_score = rank, float(scores[row])
            Candidate.objects.bulk_update(rows.values(), ["first_stage_rank", "first_stage_score"], batch_size=2000)
        ranked += len(documents)
        if progress is not None:
            progress(position, len(unranked))
    return ranked


def _queries_without_ranks(project: Project) -> list[TextRecord]:
    ranked = Candidate.objects.filter(query__project=project, first_stage_rank__isnull=False).values("query_id")
    rows = (
        Query.objects.filter(project=project, candidates__isnull=False)
        .exclude(pk__in=ranked)
        .order_by("id")
        .distinct()
        .values_list("id", "text")
    )
    return [TextRecord(pk, text) for pk, text in rows]
