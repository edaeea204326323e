"""The report of a project as a page and as files: HTML without external parts, and Markdown.

`zelo_site.report.build` gathers it; REST and `manage.py report` use the same function.
"""

from __future__ import annotations

from urllib.parse import urlencode

from django.core.cache import cache
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import get_language

from labeling.models import Project
from scoring.models import Snapshot
from trainer.evaluation.leaderboard import SPLITS
from zelo_site.pages.forms import one_of, whole_number
from zelo_site.pages.scope import visible_project
from zelo_site.report.build import ReportRefused, build_report, evaluated_snapshot
from zelo_site.report.document import Report
from zelo_site.report.rendering import as_html, as_markdown

KEPT_S = 20
FILES = {"html": (as_html, "text/html", "html"), "markdown": (as_markdown, "text/markdown", "md")}


def report_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the report, or send it as a file with `format=html` or `format=markdown`."""
    project = visible_project(request, slug)
    snapshots = Snapshot.objects.visible_to(request.user).filter(projects=project)
    before = _chosen(request, "before", snapshots)
    snapshot, split = evaluated_snapshot(project, snapshots, before, chosen=_chosen(request, "snapshot", snapshots))
    split = one_of(request.GET, "split", SPLITS, split)
    try:
        report, error = _built(project, snapshot, split, before), ""
    except ReportRefused as refused:
        snapshot = snapshot or evaluated_snapshot(project, snapshots)[0]
        report, error, before = _built(project, snapshot, split, None), str(refused), None
    if chosen := one_of(request.GET, "format", FILES):
        return file_response(report, chosen, slug)
    named = {"snapshot": snapshot, "before": before}
    address = {name: each.pk for name, each in named.items() if each is not None}
    context = {
        "project": project,
        "here": "proof",
        "report": report,
        "snapshots": snapshots,
        "splits": SPLITS,
        "split": split,
        **named,
        "error": error,
        "address": urlencode({**address, "split": split}),
    }
    return render(request, "zelo/report/report.html", context, status=422 if error else 200)


def file_response(report: Report, form: str, slug: str) -> HttpResponse:
    """Return the report as a file to save; `form` is a key of FILES."""
    write, kind, ending = FILES[form]
    response = HttpResponse(write(report), content_type=f"{kind}; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="report-{slug}.{ending}"'
    return response


def _built(project: Project, snapshot: Snapshot | None, split: str, before: Snapshot | None) -> Report:
    parts = [project.pk, snapshot and snapshot.pk, split, before and before.pk, get_language()]
    found = cache.get_or_set(
        f"zelo:report:{':'.join(map(str, parts))}",
        lambda: build_report(project, snapshot=snapshot, split=split, before=before, kept_s=KEPT_S),
        KEPT_S,
    )
    assert isinstance(found, Report)
    return found


def _chosen(request: HttpRequest, field: str, snapshots: QuerySet[Snapshot]) -> Snapshot | None:
    """Return the named snapshot, None for an empty field. Raises Http404 for an unknown one."""
    if not request.GET.get(field):
        return None
    found = snapshots.filter(pk=whole_number(request.GET, field) or 0).first()
    if found is None:
        raise Http404
    return found
