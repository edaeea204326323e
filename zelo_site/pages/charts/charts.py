"""The page of a project's charts; each chart is a fragment, because some take longer than the page, and a CSV or SVG file."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string

from zelo_site.pages.charts.drawing import as_csv, draw
from zelo_site.pages.charts.project_charts import CHARTS, chart_titles
from zelo_site.pages.scope import visible_project


def charts_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the places of all charts; the browser fetches each."""
    context = {"project": visible_project(request, slug), "titles": chart_titles(), "here": "charts"}
    return render(request, "zelo/charts/charts.html", context)


def chart_part(request: HttpRequest, slug: str, chart: str) -> HttpResponse:
    """Return one chart: a fragment of the page, or a page of its own without JavaScript."""
    project = visible_project(request, slug)
    if chart not in CHARTS:
        raise Http404
    drawn = CHARTS[chart](project)
    context = {"project": project, "chart": drawn, "drawing": draw(drawn), "here": "charts"}
    is_fragment = bool(request.headers.get("HX-Request"))
    return render(request, "zelo/charts/parts/chart.html" if is_fragment else "zelo/charts/chart.html", context)


def chart_file(request: HttpRequest, slug: str, chart: str, suffix: str) -> HttpResponse:
    """Send a chart's table as CSV, or its drawing as an SVG file with its own colours."""
    project = visible_project(request, slug)
    if chart not in CHARTS or suffix not in {"csv", "svg"}:
        raise Http404
    drawn = CHARTS[chart](project)
    if suffix == "csv":
        response = HttpResponse(as_csv(drawn), content_type="text/csv; charset=utf-8")
    else:
        drawing = draw(drawn)
        if drawing is None:
            raise Http404
        text = render_to_string("zelo/charts/parts/file.svg", {"drawing": drawing, "chart": drawn, "project": project})
        response = HttpResponse(text, content_type="image/svg+xml; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{project.slug}-{chart}.{suffix}"'
    return response
