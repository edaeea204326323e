"""REST of texts: bulk upserts, documents, candidates by imported ids, and the comparisons behind a score."""

from __future__ import annotations

from datetime import datetime
from typing import IO, Any, Literal, cast

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from ninja import Router, Schema
from ninja.errors import HttpError
from pydantic import Field

from labeling.access.api_auth import owned_project_or_404, project_or_404
from labeling.importing.bulk import BadLines, replaced_of, upsert_lines
from labeling.importing.staging import ImportFailed
from labeling.models import Candidate, Document, Judgment
from labeling.projects import exclude_queries, include_queries
from labeling.retrieval.candidates import rank_candidates
from zelo_site.api.conventions.paging import Cursor, Limit, Number, paged
from zelo_site.api.conventions.problems import LineErrors
from zelo_site.api.projects import Text
from zelo_site.api.projects import router as projects_router
from zelo_site.api.runs import router as runs_router

router = Router(tags=["texts"])
Kind = Literal["queries", "documents", "candidates", "grades", "judgments"]


class UpsertOut(Schema):
    """`created` and `replaced` of `rows`; the others were there already. `unmatched`: grades of documents that are not candidates."""

    rows: int
    created: int
    replaced: int
    unmatched: int


class QueriesIn(Schema):
    """Ids of queries of the project; others are ignored."""

    queries: list[Number] = Field(max_length=100_000)


class ChangedOut(Schema):
    changed: int


class DocumentOut(Schema):
    id: int
    external_id: str
    text: str
    metadata: dict[str, Any]


class CandidateOut(Schema):
    id: int
    query: str = Field(alias="query.external_id")
    document: str = Field(alias="document.external_id")
    first_stage_rank: int | None
    first_stage_score: float | None
    grade: int | None


class ComparisonOut(Schema):
    """A live answer about a pair; `preference` is P(a is the more relevant), null for an answer without one."""

    id: int
    pair_id: int
    document_a: str = Field(alias="pair.a.document.external_id")
    document_b: str = Field(alias="pair.b.document.external_id")
    annotator_id: int
    annotator: str = Field(alias="annotator.name")
    swapped: bool
    kind: str
    preference: float | None
    created_at: datetime


@router.post("/projects/{slug}/{kind}/bulk", response=UpsertOut)
def post_bulk(request: HttpRequest, slug: str, kind: Kind) -> Any:
    """Upsert JSON lines, up to 100,000, all or nothing; bad lines are listed in `errors`. docs/api.md has the fields."""
    project = owned_project_or_404(request, slug)
    try:
        summary = upsert_lines(project, kind, cast(IO[bytes], request), by=request.user)
    except BadLines as error:
        errors = [{"line": each.line, "field": each.field, "detail": str(each)} for each in error.errors]
        raise LineErrors(str(error), errors) from error
    except ImportFailed as error:
        errors = [{"line": error.line, "field": error.field, "detail": str(error)}] if error.line else []
        raise LineErrors(str(error), errors) from error
    rank_candidates(project)
    return {
        "rows": getattr(summary, kind),
        "created": getattr(summary, f"{kind}_created"),
        "replaced": replaced_of(summary, kind),
        "unmatched": summary.grades_unmatched if kind == "grades" else 0,
    }


@router.post("/projects/{slug}/queries/{change}", response=ChangedOut)
def change_queries(request: HttpRequest, slug: str, change: Literal["exclude", "include"], body: QueriesIn) -> Any:
    """Exclude queries from new runs, spot checks and snapshots, or include them again; their data stay."""
    project = owned_project_or_404(request, slug)
    verb = exclude_queries if change == "exclude" else include_queries
    return {"changed": verb(project, body.queries, by=request.user)}


@router.get("/projects/{slug}/documents", response=list[DocumentOut])
def list_documents(
    request: HttpRequest, response: HttpResponse, slug: str, external_id: Text = "", cursor: Cursor = "",
    limit: Limit = 100,
) -> Any:  # fmt: skip
    """Documents in id order, all or the one with an imported id; the header Link leads to the next page."""
    rows = Document.objects.visible_to(request.user).filter(project=project_or_404(request, slug))
    rows = rows.filter(external_id=external_id) if external_id else rows
    return paged(request, response, rows, cursor=cursor, limit=limit)


# On the router of POST .../candidates: of two routers with one address, the first alone would answer.
@runs_router.get("/projects/{slug}/candidates", response=list[CandidateOut], by_alias=False, tags=["texts"])
def list_candidates(
    request: HttpRequest, response: HttpResponse, slug: str, query: Text = "", document: Text = "",
    cursor: Cursor = "", limit: Limit = 100,
) -> Any:  # fmt: skip
    """Candidates in id order; `query` and `document` are imported ids that filter them."""
    rows = Candidate.objects.visible_to(request.user).filter(query__project=project_or_404(request, slug))
    rows = rows.filter(query__external_id=query) if query else rows
    rows = rows.filter(document__external_id=document) if document else rows
    return paged(request, response, rows.select_related("query", "document"), cursor=cursor, limit=limit)


@projects_router.get("/documents/{document_id}", response=DocumentOut, tags=["texts"])
def get_document(request: HttpRequest, document_id: Number) -> Any:
    """One document."""
    return get_object_or_404(Document.objects.visible_to(request.user), pk=document_id)


@projects_router.get("/candidates/{candidate_id}", response=CandidateOut, by_alias=False, tags=["texts"])
def get_candidate(request: HttpRequest, candidate_id: Number) -> Any:
    """One candidate by the imported ids of its query and document."""
    rows = Candidate.objects.visible_to(request.user).select_related("query", "document")
    return get_object_or_404(rows, pk=candidate_id)


@router.get("/candidates/{candidate_id}/comparisons", response=list[ComparisonOut], by_alias=False)
def list_comparisons(
    request: HttpRequest, response: HttpResponse, candidate_id: int, cursor: Cursor = "", limit: Limit = 100
) -> Any:
    """The live answers behind a candidate's score, newest first."""
    candidate = Candidate.objects.visible_to(request.user).filter(pk=candidate_id).first()
    if candidate is None:
        raise HttpError(404, f"no candidate {candidate_id} is visible to you; GET .../candidates lists them")
    live = cast(Any, Judgment.objects.visible_to(request.user)).live()
    rows = live.filter(Q(pair__a=candidate) | Q(pair__b=candidate))
    rows = rows.select_related("annotator", "pair__a__document", "pair__b__document")
    return paged(request, response, rows, cursor=cursor, limit=limit, newest=True)
