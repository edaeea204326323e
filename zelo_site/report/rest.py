"""REST of the report: the figures of `manage.py report` as JSON, HTML or Markdown."""

from __future__ import annotations

from typing import Any, Literal

from django.http import HttpRequest
from ninja import Router, Schema
from ninja.errors import HttpError

from labeling.access.api_auth import project_or_404
from labeling.models import Project
from scoring.models import Snapshot
from zelo_site.pages.project.report import file_response
from zelo_site.report.build import ReportRefused, build_report, evaluated_snapshot
from zelo_site.report.rendering import as_plain

router = Router(tags=["proof"])


class SectionOut(Schema):
    """`blocks`: texts, facts and tables; their numbers are formatted as on the page."""

    key: str
    title: str
    blocks: list[dict[str, Any]]


class ReportOut(Schema):
    title: str
    facts: dict[str, str]
    sections: list[SectionOut]


@router.get("/projects/{slug}/report", response=ReportOut)
def get_report(
    request: HttpRequest,
    slug: str,
    snapshot: int | None = None,
    split: Literal["dev", "test", "heldout"] | None = None,
    before: int | None = None,
    format: Literal["json", "html", "markdown"] = "json",
) -> Any:
    """The report: data, judges, spend, agreement, calibration, proof with tests, what moved, settings, versions.

    Default: the snapshot and split that were evaluated last. With `before`, an earlier snapshot, both stand side by side.
    """
    project = project_or_404(request, slug)
    known = Snapshot.objects.visible_to(request.user).filter(projects=project)
    earlier = None if before is None else _named(project, known, before)
    named = None if snapshot is None else _named(project, known, snapshot)
    chosen, latest = evaluated_snapshot(project, known, earlier, chosen=named)
    try:
        report = build_report(project, snapshot=chosen, split=split or latest, before=earlier, kept_s=0)
    except ReportRefused as error:
        raise HttpError(422, str(error)) from error
    return as_plain(report) if format == "json" else file_response(report, format, slug)


def _named(project: Project, known: Any, number: int) -> Snapshot:
    found: Snapshot | None = known.filter(pk=number).first()
    if found is None:
        there = ", ".join(str(each.pk) for each in known) or "none; freeze scores first"
        raise HttpError(422, f"snapshot is {number}; this project has: {there}")
    return found
