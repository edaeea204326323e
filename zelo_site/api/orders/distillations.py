"""REST of distilled runs: start, watch, cancel, resume."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from django.db import transaction
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja import Router, Schema, Status
from ninja.errors import HttpError
from pydantic import Field

from labeling.access.api_auth import owned_project_or_404, project_or_404
from labeling.plugins import UnknownPlugin
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
from workers.models import Job
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
    `student_answers` are no calls of the panel.
    """

    distillation_id: int
    project: str
    state: str
    stage: str
    message: str
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


def _job_or_404(request: HttpRequest, distillation_id: int) -> Job:
    jobs = Job.objects.visible_to(request.user).filter(stage=STAGE).select_related("project")
    job = get_object_or_404(jobs, pk=distillation_id)
    project_or_404(request, job.project.slug)
    return job


@router.post("/projects/{slug}/distillations", response={201: DistillationOut})
def post_distillation(request: HttpRequest, slug: str, body: DistillationIn) -> Any:
    """Start a distilled run: its first stage begins as soon as a worker is free."""
    project = owned_project_or_404(request, slug)
    try:
        options = DistillationOptions.model_validate(body.options)
        with transaction.atomic():
            panel = panel_of(project, body.judges)
            job = order_distillation(project, panel, options, by=request.user)
    except (DistillationRefused, UnknownPlugin, pydantic.ValidationError) as error:
        raise HttpError(422, str(error)) from error
    return Status(201, distillation_out(distillation_of(job)))


@router.get("/projects/{slug}/distillations", response=list[DistillationOut])
def list_distillations(request: HttpRequest, slug: str) -> Any:
    """The project's distilled runs, the latest first."""
    return [distillation_out(each) for each in distillations(project_or_404(request, slug))]


@router.get("/distillations/{distillation_id}", response=DistillationOut)
def get_distillation(request: HttpRequest, distillation_id: int) -> Any:
    return distillation_out(distillation_of(_job_or_404(request, distillation_id)))


@router.post("/distillations/{distillation_id}/{move}", response=DistillationOut)
def post_move(request: HttpRequest, distillation_id: int, move: Literal["cancel", "resume"]) -> Any:
    """Cancel a distilled run, or resume a failed or cancelled one as a new one at the stage that it had reached."""
    job = _job_or_404(request, distillation_id)
    owned_project_or_404(request, job.project.slug)
    if move == "resume":
        try:
            return distillation_out(distillation_of(resume_distillation(job, by=request.user)))
        except DistillationRefused as error:
            raise HttpError(409, str(error)) from error
    if not cancel_distillation(job, by=request.user):
        raise HttpError(409, f"distilled run {job.pk} is {job.get_state_display()} already")
    return distillation_out(distillation_of(job))
