"""REST of past imports: what each stored, and the rows that it left out."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from ninja import Router, Schema

from labeling.access.api_auth import project_or_404
from labeling.models import DatasetImport
from scoring.annotators.rater_agreement import rater_figures
from zelo_site.api.conventions.paging import Cursor, Limit, paged
from zelo_site.api.projects import router as projects_router
from zelo_site.pages.importing.past import left_out_response

router = Router(tags=["imports"])


class DatasetImportOut(Schema):
    """One stored import; `left_out` counts the rows that it did not store."""

    id: int
    file: str
    importer: str
    summary: str
    left_out: int
    created_at: datetime


class RaterOut(Schema):
    """One rater of documents. Comparisons are with the other raters of the same documents; see
    scoring.annotators.rater_agreement.RaterFigures."""

    annotator_id: int
    name: str
    is_person: bool
    grades: int
    compared: int
    same: float | None
    leniency: float | None
    kappa: float | None


@projects_router.get("/projects/{slug}/imports", response=list[DatasetImportOut], tags=["imports"])
def list_imports(
    request: HttpRequest, response: HttpResponse, slug: str, cursor: Cursor = "", limit: Limit = 100
) -> Any:
    """Imports, newest first."""
    rows = DatasetImport.objects.filter(project=project_or_404(request, slug)).defer("left_out_rows")
    return paged(request, response, rows, cursor=cursor, limit=limit, newest=True)


@router.get("/projects/{slug}/imports/{import_id}/left-out")
def get_left_out(
    request: HttpRequest, slug: str, import_id: int, format: Literal["csv", "jsonl"] = "jsonl"
) -> StreamingHttpResponse:
    """The rows that an import left out: line, field, problem, expected and remedy."""
    report = get_object_or_404(DatasetImport, project=project_or_404(request, slug), pk=import_id)
    return left_out_response(report, format)


@router.get("/projects/{slug}/raters", response=list[RaterOut])
def list_raters(request: HttpRequest, slug: str) -> Any:
    """The raters who graded documents, with their agreement."""
    return [
        {
            "annotator_id": each.annotator_id,
            "name": each.name,
            "is_person": each.is_person,
            "grades": each.grades,
            "compared": each.same.count,
            "same": each.same.value,
            "leniency": each.leniency,
            "kappa": each.kappa,
        }
        for each in rater_figures(project_or_404(request, slug))
    ]
