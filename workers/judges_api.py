"""REST of judges: what got no answer and asking it again; scorecards; pausing; probes."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema

from labeling.api_auth import owned_project_or_404, project_or_404
from labeling.records import FailureKind
from workers.failed import FailureFilter, failed_tasks, failure_counts, retry_failures

router = Router(tags=["judges"])
MOST_LISTED = 1000


class FailureCountOut(Schema):
    reason: str
    label: str
    remedy: str
    dead: int
    waiting: int


class FailedTaskOut(Schema):
    id: int
    run_id: int
    pair_id: int
    annotator_id: int
    swapped: bool
    state: str
    reason: str
    message: str
    attempts: int


class FailuresOut(Schema):
    counts: list[FailureCountOut]
    tasks: list[FailedTaskOut]


class AskedAgainOut(Schema):
    opened: int


@router.get("/projects/{slug}/failures", response=FailuresOut)
def get_failures(
    request: HttpRequest,
    slug: str,
    reason: FailureKind | None = None,
    annotator_id: int | None = None,
    run_id: int | None = None,
    after: int = 0,
) -> Any:
    """How many questions got no answer, by reason, and up to 1,000 of them with ids above `after`."""
    project = project_or_404(request, slug)
    chosen = FailureFilter(reason=reason.value if reason else None, annotator_id=annotator_id, run_id=run_id)
    tasks = failed_tasks(project, chosen).filter(pk__gt=after).order_by("id")[:MOST_LISTED]
    return {"counts": failure_counts(project, chosen), "tasks": list(tasks)}


@router.post("/projects/{slug}/failures/retry", response=AskedAgainOut)
def post_retry_failures(
    request: HttpRequest,
    slug: str,
    reason: FailureKind | None = None,
    annotator_id: int | None = None,
    run_id: int | None = None,
) -> Any:
    """Ask the dead questions again, all or those of one reason, judge or run."""
    project = owned_project_or_404(request, slug)
    chosen = FailureFilter(reason=reason.value if reason else None, annotator_id=annotator_id, run_id=run_id)
    return {"opened": retry_failures(project, chosen)}
