"""REST of trainings: start, watch, cancel, resume."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from ninja import Router, Schema, Status
from ninja.errors import HttpError
from pydantic import Field

from labeling.access.api_auth import owned_project_or_404, project_or_404
from labeling.plugins import UnknownPlugin
from scoring.models import Snapshot
from trainer.evaluation.gate import shown_gate
from trainer.models import TrainingRun
from workers.jobs.training import (
    TrainingRefused,
    cancel_training,
    publish_anyway,
    recommendation,
    resume_training,
    start_training,
)
from zelo_site.api.conventions.paging import Cursor, Limit, paged
from zelo_site.api.projects import Text
from zelo_site.security.job_errors import JobError

router = Router(tags=["training"])
TrainingState = Literal["planned", "running", "finished", "held_back", "failed", "cancelled"]


class TrainingIn(Schema):
    snapshot_id: int = Field(ge=0, lt=2**63)
    trainer: Text = Field("", max_length=80, description="a trainer plugin; empty: the recommended one")
    options: dict[str, Any] = {}


class TrainingOut(Schema):
    """`progress` holds the step, the curves of loss and NDCG@10 as (step, value), pace, memory and notes.

    `gate` holds the comparison with the untrained base and the first stage before publishing: `held_back`, `comparisons`
    (NDCG@10; log-loss of pairs where `reference` is `log_loss`) and `reasons`; `base_won` where no checkpoint was better
    than the base; `pairs` the figures of a pairwise student on held-out pairs (`trainer.training.pairwise.figures`).
    """

    training_id: int
    project: str
    snapshot_id: int
    trainer: str
    options: dict[str, Any]
    seed: int
    state: str
    error: JobError
    gate: dict[str, Any]
    progress: dict[str, Any]
    reranker_ids: list[int]
    created_at: str
    finished_at: str | None


class OrderedOut(TrainingOut):
    """`trainer_reason` says why the trainer was chosen; empty if the request named it."""

    trainer_reason: str


def training_out(run: TrainingRun) -> dict[str, Any]:
    return {
        "training_id": run.pk,
        "project": run.project.slug,
        "snapshot_id": run.snapshot_id,
        "trainer": run.trainer,
        "options": run.options,
        "seed": run.seed,
        "state": run.state,
        "error": run.error,
        "gate": shown_gate(run.gate),
        "progress": run.progress,
        "reranker_ids": [reranker.pk for reranker in run.rerankers.all()],
        "created_at": run.created_at.isoformat(),
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
    }


def _run_or_404(request: HttpRequest, training_id: int) -> TrainingRun:
    runs = TrainingRun.objects.visible_to(request.user).select_related("project").prefetch_related("rerankers")
    run = get_object_or_404(runs, pk=training_id)
    project_or_404(request, run.project.slug)
    return run


def _owned_run_or_404(request: HttpRequest, training_id: int) -> TrainingRun:
    run = _run_or_404(request, training_id)
    owned_project_or_404(request, run.project.slug)
    return run


@router.post("/projects/{slug}/trainings", response={201: OrderedOut})
def post_training(request: HttpRequest, slug: str, body: TrainingIn) -> Any:
    """Start a training, with the recommended trainer if none is named; it begins once the training worker is free."""
    project = owned_project_or_404(request, slug)
    snapshot = Snapshot.objects.visible_to(request.user).filter(pk=body.snapshot_id).first()
    if snapshot is None:
        raise HttpError(
            422, f"no snapshot {body.snapshot_id} is visible to you; GET /projects/{slug}/snapshots lists them"
        )
    try:
        advised = None if body.trainer else recommendation(snapshot, body.options)
        trainer = advised.trainer if advised else body.trainer
        run = start_training(project, snapshot, trainer=trainer, options=body.options, by=request.user)
    except (TrainingRefused, UnknownPlugin, pydantic.ValidationError) as error:
        raise HttpError(422, str(error)) from error
    run.refresh_from_db()
    return Status(201, {**training_out(run), "trainer_reason": advised.sentence if advised else ""})


@router.get("/projects/{slug}/trainings", response=list[TrainingOut])
def list_trainings(
    request: HttpRequest, response: HttpResponse, slug: str, state: TrainingState | None = None, cursor: Cursor = "",
    limit: Limit = 100,
) -> Any:  # fmt: skip
    """The project's trainings, newest first, all or those in a state."""
    project = project_or_404(request, slug)
    rows = TrainingRun.objects.filter(project=project).select_related("project").prefetch_related("rerankers")
    rows = rows if state is None else rows.filter(state=state)
    return [training_out(run) for run in paged(request, response, rows, cursor=cursor, limit=limit, newest=True)]


@router.get("/trainings/{training_id}", response=TrainingOut)
def get_training(request: HttpRequest, training_id: int) -> Any:
    return training_out(_run_or_404(request, training_id))


@router.post("/trainings/{training_id}/cancel", response=TrainingOut)
def post_cancel(request: HttpRequest, training_id: int) -> Any:
    """Cancel a training; it keeps its checkpoints and can be resumed."""
    run = _owned_run_or_404(request, training_id)
    if not cancel_training(run, by=request.user):
        raise HttpError(409, f"training {run.pk} is {run.get_state_display()} already")
    return training_out(run)


@router.post("/trainings/{training_id}/resume", response=TrainingOut)
def post_resume(request: HttpRequest, training_id: int) -> Any:
    """Resume a failed or cancelled training from its last checkpoint."""
    run = _owned_run_or_404(request, training_id)
    try:
        return training_out(resume_training(run, by=request.user))
    except TrainingRefused as error:
        raise HttpError(409, str(error)) from error


@router.post("/trainings/{training_id}/publish", response=TrainingOut)
def post_publish(request: HttpRequest, training_id: int) -> Any:
    """Publish the student that the gate held back; its badge stays, also in `/v1/models`."""
    run = _owned_run_or_404(request, training_id)
    try:
        publish_anyway(run, by=request.user)
    except TrainingRefused as error:
        raise HttpError(409, str(error)) from error
    return training_out(run)
