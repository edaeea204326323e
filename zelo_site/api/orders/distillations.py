"""REST of distilled runs: start, watch, cancel, resume."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.http import HttpRequest
from ninja import Router, Schema, Status
from pydantic import Field

from labeling.access.api_auth import owned_project_or_404, project_or_404
from workers.jobs.distillation import (
    STAGE,
    Distillation,
    DistillationOptions,
    DistillationRefused,
    cancel_distillation,
    distillation_of,
    distillations,
    order_distillation,
    resume_distillation,
)
from zelo_site.api.orders.moves import Move, job_or_404, moved, refusals
from zelo_site.api.runs import JudgeIn, panel_of
from zelo_site.security.job_errors import JobError

router = Router(tags=["runs"])


class DistillationIn(Schema):
    """The panel, and options as `manage.py distill` takes them: panel_pairs, review_pairs, degree, base, ..."""

    judges: list[JudgeIn] = Field(min_length=1, max_length=32)
    options: dict[str, Any] = {}


class DistillationOut(Schema):
    """A distilled run. `stage`: panel, train, judge or review, the one that is reached. `runs`: its runs by stage.

    `panel_calls` are the panel's calls so far, `paper_calls` those of three judges on four pairs per candidate; the student's
    `student_answers` are not calls of the panel.
    """

    distillation_id: int
    project: str
    state: str
    stage: str
    message: JobError
    error: JobError
    options: dict[str, Any]
    judges: list[int]
    runs: dict[str, int]
    snapshot_id: int | None
    training_id: int | None
    panel_calls: int
    paper_calls: int
    student_answers: int
    cost_micros: int


def distillation_out(found: Distillation) -> dict[str, Any]:
    job = found.job
    return {
        "distillation_id": job.pk,
        "project": job.project.slug,
        "state": job.state,
        "stage": found.stage,
        "message": job.message,
        "error": job.error,
        "options": found.options.model_dump(mode="json"),
        "judges": job.payload["judges"],
        "runs": {stage: run.pk for stage, run in found.runs.items()},
        "snapshot_id": found.snapshot.pk if found.snapshot else None,
        "training_id": found.training.pk if found.training else None,
        "panel_calls": found.spent.calls,
        "paper_calls": found.spent.paper_calls,
        "student_answers": found.spent.student_answers,
        "cost_micros": found.spent.cost_micros,
    }


@router.post("/projects/{slug}/distillations", response={201: DistillationOut})
def post_distillation(request: HttpRequest, slug: str, body: DistillationIn) -> Any:
    """Start a distilled run: its first stage begins as soon as a worker is free."""
    project = owned_project_or_404(request, slug)
    with refusals(DistillationRefused), transaction.atomic():
        options = DistillationOptions.model_validate(body.options)
        job = order_distillation(project, panel_of(project, body.judges), options, by=request.user)
    return Status(201, distillation_out(distillation_of(job)))


@router.get("/projects/{slug}/distillations", response=list[DistillationOut])
def list_distillations(request: HttpRequest, slug: str) -> Any:
    """The project's distilled runs, the latest first."""
    return [distillation_out(each) for each in distillations(project_or_404(request, slug))]


@router.get("/distillations/{distillation_id}", response=DistillationOut)
def get_distillation(request: HttpRequest, distillation_id: int) -> Any:
    return distillation_out(distillation_of(job_or_404(request, STAGE, distillation_id)))


@router.post("/distillations/{distillation_id}/{move}", response=DistillationOut)
def post_move(request: HttpRequest, distillation_id: int, move: Move) -> Any:
    """Cancel a distilled run, or resume a failed or cancelled one as a new one at the stage that it had reached."""
    job = job_or_404(request, STAGE, distillation_id)
    found = moved(
        request,
        job,
        move,
        name="distilled run",
        job=job,
        cancel=cancel_distillation,
        resume=resume_distillation,
        refused=DistillationRefused,
    )
    return distillation_out(distillation_of(found))
