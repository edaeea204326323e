"""Past imports of a project, the rows that they left out, and the annotators and raters that came in by files."""

from __future__ import annotations

from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404, render

from labeling.importing.answers.annotators import PLUGIN
from labeling.importing.reports import left_out_file
from labeling.models import LIVE_JUDGMENTS, Annotator, DatasetImport, Project
from scoring.annotators.rater_agreement import rater_figures
from zelo_site.pages.forms import one_of
from zelo_site.pages.scope import may_change, visible_project

MOST_SHOWN = 50
FORMS = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}


def imports_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the latest imports, and who gave the imported answers."""
    project = visible_project(request, slug)
    context = {
        "project": project,
        "imports": project.imports.select_related("imported_by").defer("left_out_rows")[:MOST_SHOWN],
        "annotators": _annotators(project),
        "raters": rater_figures(project),
        "may_change": may_change(request, project),
        "here": "project",
    }
    return render(request, "zelo/importing/imports.html", context)


def _annotators(project: Project) -> list[Annotator]:
    """Annotators with imported judgments: models of the plugin `imported`, and people without an account."""
    imported = Q(plugin=PLUGIN) | Q(is_person=True, user__isnull=True)
    live = Count("judgments", filter=LIVE_JUDGMENTS)
    return list(project.annotators.filter(imported).annotate(answers=live).filter(answers__gt=0).order_by("name", "id"))


def left_out(request: HttpRequest, slug: str, import_id: int) -> StreamingHttpResponse:
    """Send the rows that an import left out, with their lines and reasons."""
    report = get_object_or_404(DatasetImport, project=visible_project(request, slug), pk=import_id)
    return left_out_response(report, one_of(request.GET, "format", FORMS, "csv"))


def left_out_response(report: DatasetImport, form: str) -> StreamingHttpResponse:
    """The download of an import's left-out rows as `csv` or `jsonl`."""
    chosen = "jsonl" if form == "jsonl" else "csv"
    response = StreamingHttpResponse(left_out_file(report, chosen), content_type=FORMS[chosen])  # type: ignore[arg-type]
    response["Content-Disposition"] = f'attachment; filename="left-out-{report.pk}.{chosen}"'
    return response
