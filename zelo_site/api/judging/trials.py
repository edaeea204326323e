"""REST of trials and teachings of judges."""

from __future__ import annotations

from typing import Any

import pydantic
from django.http import HttpRequest, HttpResponse
from ninja import Router, Schema, Status
from ninja.errors import HttpError
from pydantic import Field

from labeling.access.annotators import get_judge
from labeling.access.api_auth import owned_project_or_404, project_or_404
from labeling.models import Project
from labeling.plugins import UnknownPlugin
from workers.jobs.teaching.job import cancel_teaching, order_teaching
from workers.jobs.teaching.job import reason_of as reason_of_teaching
from workers.jobs.teaching.plan import TeachingOptions, TeachingRefused
from workers.jobs.trial import TrialRefused, order_trial, reason_of
from workers.models import JudgeTeaching, JudgeTrial
from zelo_site.api.conventions.paging import Cursor, Limit, paged
from zelo_site.api.judges import judge_or_404
from zelo_site.api.runs import JudgeIn
from zelo_site.security.job_errors import JobError

router = Router(tags=["judges"])


class TrialOut(Schema):
    """A trial of a judge; `report` is empty until it has finished."""

    id: int
    job_id: int
    annotator_id: int
    state: str = Field(alias="job.state")
    error: JobError = Field(alias="job.error")
    report: dict[str, Any]
    calls: int
    input_tokens: int
    output_tokens: int
    cost_micros: int

    @staticmethod
    def resolve_report(trial: JudgeTrial) -> dict[str, Any]:
        return {**trial.report, "reason": str(reason_of(trial))} if trial.report else {}


@router.post("/projects/{slug}/judges/{annotator_id}/trials", response={201: TrialOut}, by_alias=False)
def post_trial(request: HttpRequest, slug: str, annotator_id: int) -> Any:
    """Ask a judge up to ten real questions; GET .../trials/{id} shows requests, raw answers and the verdict."""
    judge = judge_or_404(owned_project_or_404(request, slug), annotator_id)
    try:
        return Status(201, order_trial(judge, by=request.user))
    except TrialRefused as error:
        raise HttpError(422, str(error)) from error


@router.get("/projects/{slug}/trials/{trial_id}", response=TrialOut, by_alias=False)
def get_trial(request: HttpRequest, slug: str, trial_id: int) -> Any:
    """One trial of a judge."""
    project = project_or_404(request, slug)
    rows = JudgeTrial.objects.visible_to(request.user).filter(project=project)
    trial = rows.select_related("job").filter(pk=trial_id).first()
    if trial is None:
        raise HttpError(404, f"project {project.slug!r} has no trial {trial_id}")
    return trial


class TaughtOut(Schema):
    plugin: str
    options: dict[str, Any]
    name: str


class TeachingOut(Schema):
    """A teaching of a judge; `taught` is the judge with examples, as POST /runs takes it, and `report` is empty until it has
    finished.
    """

    id: int
    job_id: int
    annotator_id: int
    taught_id: int | None
    taught: TaughtOut | None
    state: str = Field(alias="job.state")
    error: JobError = Field(alias="job.error")
    options: dict[str, Any]
    rows: list[dict[str, Any]]
    report: dict[str, Any]
    calls: int
    input_tokens: int
    output_tokens: int
    cost_micros: int

    @staticmethod
    def resolve_report(teaching: JudgeTeaching) -> dict[str, Any]:
        return {**teaching.report, "reason": str(reason_of_teaching(teaching))} if teaching.report else {}


@router.post("/projects/{slug}/judges/{annotator_id}/teachings", response={201: TeachingOut}, by_alias=False)
def post_teaching(request: HttpRequest, slug: str, annotator_id: int, body: TeachingOptions) -> Any:
    """Show a copy of a judge people's answers, and ask both about held-out pairs; GET .../teachings/{id} has the verdict."""
    judge = judge_or_404(owned_project_or_404(request, slug), annotator_id)
    try:
        return Status(201, order_teaching(judge, body, by=request.user))
    except TeachingRefused as error:
        raise HttpError(422, str(error)) from error


@router.get("/projects/{slug}/teachings/{teaching_id}", response=TeachingOut, by_alias=False)
def get_teaching(request: HttpRequest, slug: str, teaching_id: int) -> Any:
    """One teaching of a judge, with the answers of both judges to each held-out pair."""
    return _teaching_or_404(request, project_or_404(request, slug), teaching_id)


@router.post("/projects/{slug}/teachings/{teaching_id}/cancel", response=TeachingOut, by_alias=False)
def post_cancel_teaching(request: HttpRequest, slug: str, teaching_id: int) -> Any:
    """Cancel a teaching; 409 where it has ended. Its answers so far stay."""
    teaching = _teaching_or_404(request, owned_project_or_404(request, slug), teaching_id)
    if not cancel_teaching(teaching, by=request.user):
        raise HttpError(409, f"teaching {teaching.pk} is {teaching.job.state}; only an unfinished one can be cancelled")
    return teaching


def _teaching_or_404(request: HttpRequest, project: Project, teaching_id: int) -> JudgeTeaching:
    rows = JudgeTeaching.objects.visible_to(request.user).filter(project=project)
    teaching = rows.select_related("job", "annotator", "taught").filter(pk=teaching_id).first()
    if teaching is None:
        raise HttpError(404, f"project {project.slug!r} has no teaching {teaching_id}")
    return teaching


@router.get("/projects/{slug}/trials", response=list[TrialOut], by_alias=False)
def list_trials(request: HttpRequest, response: HttpResponse, slug: str, cursor: Cursor = "", limit: Limit = 20) -> Any:
    """The project's trials of judges, newest first."""
    rows = JudgeTrial.objects.visible_to(request.user).filter(project=project_or_404(request, slug))
    return paged(request, response, rows.select_related("job"), cursor=cursor, limit=limit, newest=True)


@router.post("/projects/{slug}/trials", response={201: TrialOut}, by_alias=False)
def post_new_trial(request: HttpRequest, slug: str, body: JudgeIn) -> Any:
    """Ask a judge that was not chosen before up to ten real questions; it becomes a judge of the project."""
    project = owned_project_or_404(request, slug)
    try:
        judge = get_judge(project, body.plugin, body.options, name=body.name)
        return Status(201, order_trial(judge, by=request.user))
    except (TrialRefused, UnknownPlugin, pydantic.ValidationError) as error:
        raise HttpError(422, str(error)) from error


@router.get("/projects/{slug}/teachings", response=list[TeachingOut], by_alias=False)
def list_teachings(
    request: HttpRequest, response: HttpResponse, slug: str, cursor: Cursor = "", limit: Limit = 20
) -> Any:
    """The project's teachings of judges, newest first."""
    rows = JudgeTeaching.objects.visible_to(request.user).filter(project=project_or_404(request, slug))
    rows = rows.select_related("job", "annotator", "taught")
    return paged(request, response, rows, cursor=cursor, limit=limit, newest=True)
