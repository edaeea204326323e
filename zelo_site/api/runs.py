"""REST of runs: start, watch, pause, resume, cancel, and retry dead letters."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import pydantic
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from ninja import Router, Schema, Status
from ninja.errors import HttpError
from pydantic import Field

from labeling.access.annotators import get_judge
from labeling.access.api_auth import owned_project_or_404, project_or_404
from labeling.models import Annotator, AuditEntry, Project
from labeling.plugins import UnknownPlugin
from labeling.records import FailureKind
from workers.broker.client import broker_answers
from workers.budgets.changes import RunIsOver, change_budgets, change_caps
from workers.budgets.limits import read_caps
from workers.budgets.spend import totals_of_project
from workers.jobs.calibration import order_calibration
from workers.jobs.candidates import MOST_CANDIDATES, AlreadyFilling, FillRefused, order_candidates
from workers.judging.failures import FailureFilter, retry_failures
from workers.models import Job, Run
from workers.monitoring.heartbeats import alive, may_see_hosts
from workers.runs import ordering, transitions
from workers.runs.choices.queries import QueryChoice
from workers.runs.choices.weights import Weights
from workers.runs.progress import RunProgress, run_progress
from zelo_site.api.conventions.paging import Cursor, Limit, paged
from zelo_site.api.projects import Text
from zelo_site.security.job_errors import JobError

router = Router(tags=["runs"])
JobState = Literal["open", "leased", "finished", "failed", "cancelled"]
RunState = Literal["planned", "judging", "paused", "finished", "cancelled", "failed"]


class JudgeIn(Schema):
    plugin: str
    options: dict[str, Any] = {}
    name: Text = Field("", max_length=200)


class QueryChoiceIn(Schema):
    """A choice of queries; all conditions hold together. `as_in_run`: those of an earlier run; `sample`: at most this number of
    them. A query without scores counts as certainty 0.
    """

    text: Text = Field("", max_length=500)
    sample: int | None = Field(None, ge=1, lt=2**63)
    certainty_below: float | None = Field(None, ge=0, le=1)
    as_in_run: int | None = Field(None, ge=1, lt=2**63)

    @property
    def choice(self) -> QueryChoice:
        return QueryChoice(**self.dict())


class RunIn(Schema):
    """`judge_weights`: how the project's fits weight judges from now on; null leaves it as it is."""

    judges: list[JudgeIn] = Field(min_length=1, max_length=32)
    sampler: str = "cycles"
    sampler_options: dict[str, Any] = {}
    allocation: Literal["all", "rotate", "informative", "cascade"] = "all"
    cascade_threshold: float | None = Field(None, gt=0, le=0.5)
    orders: Literal["one", "both"] = "one"
    query_ids: list[Annotated[int, Field(ge=1, lt=2**63)]] | None = None
    queries: QueryChoiceIn | None = None
    judge_weights: Weights | None = None
    pair_budget: int | None = Field(None, ge=1, lt=2**63)
    call_budget: int | None = Field(None, ge=1, lt=2**63)
    token_budget: int | None = Field(None, ge=1, lt=2**63)
    cost_budget_micros: int | None = Field(None, ge=1, lt=2**63)
    seed: int | None = Field(None, ge=0, lt=2**63)


class CandidatesIn(Schema):
    retriever: str = "hybrid"
    options: dict[str, Any] = {}
    k: int = Field(100, ge=1, le=MOST_CANDIDATES)


class JobOut(Schema):
    """Work in the background; `done` of `total` queries. `error` says why it failed and what to do."""

    job_id: int
    project: str
    stage: str
    state: str
    done: int
    total: int
    message: JobError
    error: JobError


class ServerOut(Schema):
    broker: bool
    workers: list[str]


class RetriedOut(Schema):
    opened: int


Most = Annotated[int, Field(ge=1, lt=2**63)]


class BudgetsIn(Schema):
    """Omitted fields stay as they are; null means no limit. A run that ended because a budget was spent continues."""

    pair_budget: Most | None = None
    call_budget: Most | None = None
    token_budget: Most | None = None
    cost_budget_micros: Most | None = None


class CapsIn(Schema):
    """Omitted fields stay as they are; null means no limit."""

    calls: Most | None = None
    tokens: Most | None = None
    cost_micros: Most | None = None


class CapsOut(Schema):
    """Caps of a project over all its runs and probes, and what these have spent."""

    calls: int | None
    tokens: int | None
    cost_micros: int | None
    spent_calls: int
    spent_tokens: int
    spent_cost_micros: int


def _run_or_404(request: HttpRequest, run_id: int) -> Run:
    return get_object_or_404(Run.objects.visible_to(request.user).select_related("project"), pk=run_id)


def _owned_run_or_404(request: HttpRequest, run_id: int) -> Run:
    run = _run_or_404(request, run_id)
    owned_project_or_404(request, run.project.slug)
    return run


def panel_of(project: Project, judges: list[JudgeIn]) -> list[Annotator]:
    """The project's judges of a body, new ones created. Raises UnknownPlugin, pydantic.ValidationError."""
    return [get_judge(project, judge.plugin, judge.options, name=judge.name) for judge in judges]


@router.post("/projects/{slug}/runs", response={201: RunProgress})
def post_run(request: HttpRequest, slug: str, body: RunIn) -> Any:
    """Start a run: sampling, judging and rating begin as soon as a worker is free."""
    project = owned_project_or_404(request, slug)
    try:
        judges = panel_of(project, body.judges)
        run = ordering.start_run(
            project,
            judges=judges,
            by=request.user,
            sampler=body.sampler,
            sampler_options=body.sampler_options,
            allocation=body.allocation,
            cascade_threshold=body.cascade_threshold,
            orders=body.orders,
            query_ids=body.query_ids,
            queries=body.queries.choice if body.queries else None,
            judge_weights=body.judge_weights,
            pair_budget=body.pair_budget,
            call_budget=body.call_budget,
            token_budget=body.token_budget,
            cost_budget_micros=body.cost_budget_micros,
            seed=body.seed,
        )
    except (ordering.RunRefused, UnknownPlugin, pydantic.ValidationError) as error:
        raise HttpError(422, str(error)) from error
    return Status(201, run_progress(run))


class CalibrateIn(Schema):
    """Without judges, those of the last run are asked. 3 pairs a query for soft preferences, 12 for sign votes."""

    judges: list[JudgeIn] = Field(default=[], max_length=32)
    pairs_per_query: int = Field(3, ge=1, le=100)
    orders: Literal["one", "both"] = "one"
    query_ids: list[int] | None = None
    pair_budget: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=0, lt=2**63)


@router.post("/projects/{slug}/calibrations", response={201: RunProgress})
def post_calibrate(request: HttpRequest, slug: str, body: CalibrateIn) -> Any:
    """Start a run on pairs across queries; the calibration follows its end."""
    project = owned_project_or_404(request, slug)
    try:
        run = order_calibration(
            project,
            judges=panel_of(project, body.judges),
            by=request.user,
            sampler_options={"pairs_per_query": body.pairs_per_query},
            orders=body.orders,
            query_ids=body.query_ids,
            pair_budget=body.pair_budget,
            seed=body.seed,
        )
    except (ordering.RunRefused, UnknownPlugin, pydantic.ValidationError) as error:
        raise HttpError(422, str(error)) from error
    return Status(201, run_progress(run))


def _job_out(job: Job) -> dict[str, Any]:
    kept = {name: getattr(job, name) for name in ("stage", "state", "done", "total", "message", "error")}
    return {"job_id": job.pk, "project": job.project.slug, **kept}


@router.post("/projects/{slug}/candidates", response={202: JobOut})
def post_candidates(request: HttpRequest, slug: str, body: CandidatesIn) -> Any:
    """Retrieve candidates for the queries that have none, in a worker; GET /jobs/{id} returns its progress."""
    project = owned_project_or_404(request, slug)
    try:
        job = order_candidates(project, body.retriever, body.options, body.k, by=request.user)
    except AlreadyFilling as error:
        raise HttpError(409, str(error)) from error
    except (FillRefused, UnknownPlugin, pydantic.ValidationError) as error:
        raise HttpError(422, str(error)) from error
    return Status(202, _job_out(job))


@router.get("/projects/{slug}/jobs", response=list[JobOut])
def list_jobs(
    request: HttpRequest, response: HttpResponse, slug: str, stage: Text = "", state: JobState | None = None,
    cursor: Cursor = "", limit: Limit = 100,
) -> Any:  # fmt: skip
    """The jobs of a project, newest first, all or those of a stage or in a state."""
    rows = Job.objects.visible_to(request.user).filter(project=project_or_404(request, slug)).select_related("project")
    rows = rows.filter(stage=stage) if stage else rows
    rows = rows if state is None else rows.filter(state=state)
    return [_job_out(job) for job in paged(request, response, rows, cursor=cursor, limit=limit, newest=True)]


@router.get("/jobs/{job_id}", response=JobOut)
def get_job(request: HttpRequest, job_id: int) -> Any:
    """The progress and result of a job."""
    return _job_out(get_object_or_404(Job.objects.visible_to(request.user).select_related("project"), pk=job_id))


@router.get("/projects/{slug}/runs", response=list[RunProgress])
def list_runs(
    request: HttpRequest, response: HttpResponse, slug: str, state: RunState | None = None, cursor: Cursor = "",
    limit: Limit = 20,
) -> Any:  # fmt: skip
    """The runs of a project, newest first, all or those in a state."""
    rows = Run.objects.visible_to(request.user).filter(project=project_or_404(request, slug))
    rows = rows if state is None else rows.filter(state=state)
    return [run_progress(run) for run in paged(request, response, rows, cursor=cursor, limit=limit, newest=True)]


@router.get("/runs/{run_id}", response=RunProgress)
def get_run(request: HttpRequest, run_id: int) -> Any:
    """Progress, rate, time left and spend of a run."""
    return run_progress(_run_or_404(request, run_id))


@router.post("/runs/{run_id}/{action}", response=RunProgress)
def post_action(request: HttpRequest, run_id: int, action: Literal["pause", "resume", "cancel"]) -> Any:
    """Pause, resume or cancel a run; 409 where its state does not allow it."""
    run = _owned_run_or_404(request, run_id)
    move = {"pause": transitions.pause_run, "resume": transitions.resume_run, "cancel": transitions.cancel_run}[action]
    if not move(run, by=request.user):
        raise HttpError(409, f"run {run_id} is {run.state}; it cannot be moved by {action!r} from there")
    return run_progress(run)


@router.post("/runs/{run_id}/failures/retry", response=RetriedOut)
def post_retry(request: HttpRequest, run_id: int, reason: FailureKind | None = None) -> Any:
    """Retry dead letters, all or those of one reason."""
    run = _owned_run_or_404(request, run_id)
    chosen = FailureFilter(reason=reason.value if reason else None, run_id=run.pk)
    return {"opened": retry_failures(run.project, chosen, by=request.user)}


@router.patch("/runs/{run_id}", response=RunProgress)
def patch_budget(request: HttpRequest, run_id: int, body: BudgetsIn) -> Any:
    """Raise, lower or remove the budgets of a run; 409 if it was cancelled or has failed."""
    run = _owned_run_or_404(request, run_id)
    try:
        return run_progress(change_budgets(run, body.dict(exclude_unset=True), by=request.user))
    except RunIsOver as error:
        raise HttpError(409, str(error)) from error


def _caps_out(project: Project) -> dict[str, Any]:
    caps, spent = read_caps(project.pk), totals_of_project(project.pk)
    return {
        "calls": caps.calls,
        "tokens": caps.tokens,
        "cost_micros": caps.cost_micros,
        "spent_calls": spent.calls,
        "spent_tokens": spent.input_tokens + spent.output_tokens,
        "spent_cost_micros": spent.cost_micros,
    }


@router.get("/projects/{slug}/caps", response=CapsOut)
def get_caps(request: HttpRequest, slug: str) -> Any:
    """The caps of the project, and its spend so far."""
    return _caps_out(project_or_404(request, slug))


@router.patch("/projects/{slug}/caps", response=CapsOut)
def patch_caps(request: HttpRequest, slug: str, body: CapsIn) -> Any:
    """Raise, lower or remove the caps; runs that ended because of a cap continue as far as the new caps allow."""
    project = owned_project_or_404(request, slug)
    change_caps(project, body.dict(exclude_unset=True), by=request.user)
    return _caps_out(project)


class AuditOut(Schema):
    id: int
    at: datetime
    action: str
    actor: str = Field(alias="actor_name")
    subject: str
    details: dict[str, Any]


@router.get("/projects/{slug}/audit", response=list[AuditOut], by_alias=False)
def get_audit(
    request: HttpRequest, response: HttpResponse, slug: str, action: Text = "", cursor: Cursor = "",
    limit: Limit = 100,
) -> Any:  # fmt: skip
    """The audit log of a project, newest first, all or one action such as run.started. For owners."""
    project = owned_project_or_404(request, slug)
    rows = AuditEntry.objects.visible_to(request.user).filter(project=project)
    rows = rows.filter(action=action) if action else rows
    return paged(request, response, rows, cursor=cursor, limit=limit, newest=True)


@router.get("/server", response=ServerOut)
def get_server(request: HttpRequest) -> Any:
    """Whether the broker answers, and which workers are alive; with their hosts for staff and owners of projects."""
    shows_hosts = may_see_hosts(request.user)
    return {
        "broker": broker_answers(),
        "workers": [worker.name if shows_hosts else worker.label for worker in alive()],
    }
