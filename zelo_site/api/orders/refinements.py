"""REST of refinements of students: start, watch, cancel, resume."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from ninja import Router, Schema, Status
from pydantic import Field

from labeling.access.api_auth import owned_project_or_404, project_or_404
from trainer.models import Reranker
from workers.jobs.calibration import judges_so_far
from workers.jobs.refinement.job import (
    STAGE,
    Refinement,
    RefinementOptions,
    RefinementRefused,
    cancel_refinement,
    order_refinement,
    refinement_of,
    refinements,
    resume_refinement,
)
from zelo_site.api.orders.moves import Move, job_or_404, moved, refusals
from zelo_site.api.runs import JudgeIn, panel_of
from zelo_site.security.job_errors import JobError

router = Router(tags=["trainings"])


class RefinementIn(Schema):
    """The panel (empty: the judges of the last run), and options as `manage.py refine` takes them: pairs, queries, ask, ..."""

    judges: list[JudgeIn] = Field(default=[], max_length=32)
    options: dict[str, Any] = {}


class MinedPairOut(Schema):
    """A mined pair of candidates. `against`: P(the student's order is right) under the judgments alone."""

    query: int
    a: int
    b: int
    gain: float
    against: float | None
    by_people: bool
    is_disagreement: bool


class RefinementOut(Schema):
    """A refinement. `stage`: mine, ask, train or prove, the one that is reached; `mined`: the first pairs of `pairs`."""

    refinement_id: int
    project: str
    state: str
    stage: str
    message: JobError
    error: JobError
    options: dict[str, Any]
    reranker_id: int | None
    run_id: int | None
    plan_id: int | None
    snapshot_id: int | None
    training_id: int | None
    refined_id: int | None
    pairs: int
    disagreements: int
    mined: list[MinedPairOut]


def refinement_out(found: Refinement) -> dict[str, Any]:
    job = found.job
    made = {
        "reranker_id": found.student, "run_id": found.run, "plan_id": found.plan, "snapshot_id": found.snapshot,
        "training_id": found.training, "refined_id": found.refined,
    }  # fmt: skip
    return {
        "refinement_id": job.pk,
        "project": job.project.slug,
        "state": job.state,
        "stage": found.stage,
        "message": job.message,
        "error": job.error,
        "options": found.options.model_dump(mode="json"),
        **{name: each.pk if each is not None else None for name, each in made.items()},
        "pairs": found.pairs,
        "disagreements": found.disagreements,
        "mined": list(found.mined),
    }


@router.post("/projects/{slug}/rerankers/{reranker_id}/refinements", response={201: RefinementOut})
def post_refinement(request: HttpRequest, slug: str, reranker_id: int, body: RefinementIn) -> Any:
    """Start a refinement of a student: pairs are mined as soon as a worker for training is free."""
    project = owned_project_or_404(request, slug)
    student = get_object_or_404(Reranker.objects.visible_to(request.user).filter(project=project), pk=reranker_id)
    with refusals(RefinementRefused), transaction.atomic():
        options = RefinementOptions.model_validate(body.options)
        panel = panel_of(project, body.judges) or judges_so_far(project)
        job = order_refinement(student, panel, options, by=request.user)
    return Status(201, refinement_out(refinement_of(job)))


@router.get("/projects/{slug}/refinements", response=list[RefinementOut])
def list_refinements(request: HttpRequest, slug: str) -> Any:
    """The project's refinements, the latest first."""
    return [refinement_out(each) for each in refinements(project_or_404(request, slug))]


@router.get("/refinements/{refinement_id}", response=RefinementOut)
def get_refinement(request: HttpRequest, refinement_id: int) -> Any:
    return refinement_out(refinement_of(job_or_404(request, STAGE, refinement_id)))


@router.post("/refinements/{refinement_id}/{move}", response=RefinementOut)
def post_move(request: HttpRequest, refinement_id: int, move: Move) -> Any:
    """Cancel a refinement, or resume a failed or cancelled one at the stage that it had reached."""
    job = job_or_404(request, STAGE, refinement_id)
    found = moved(
        request,
        job,
        move,
        name="refinement",
        job=job,
        cancel=cancel_refinement,
        resume=resume_refinement,
        refused=RefinementRefused,
    )
    return refinement_out(refinement_of(found))
