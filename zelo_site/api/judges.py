"""REST of judges: unanswered questions and retries, scorecards, pausing, probes."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from django.http import HttpRequest, HttpResponse
from ninja import File, Router, Schema, Status, UploadedFile
from ninja.errors import HttpError
from pydantic import Field

from labeling.access.api_auth import owned_project_or_404, project_or_404
from labeling.models import Annotator, Project
from labeling.records import FailureKind
from scoring.annotators.replacing_people import replacing_people
from scoring.numerics.judges.replacement import EPSILON
from scoring.storage.files import StorageFull
from workers.jobs.injection_probe import ProbeOptions, ProbeRefused, order_probe
from workers.jobs.recorded_judges import RecordingRefused, store_recording
from workers.judging.failures import (
    FailureFilter,
    failed_calls,
    failed_tasks,
    failure_counts,
    resume_and_retry,
    retry_failures,
)
from workers.judging.pausing import pause_judge, resume_judge
from workers.models import InjectionProbe
from workers.monitoring.project_figures import CYCLES, current_cards, read_figure
from zelo_site.api.conventions.paging import Cursor, Limit, Number, paged
from zelo_site.api.estimates import EstimateOut
from zelo_site.api.projects import Text
from zelo_site.security.job_errors import JobError

router = Router(tags=["judges"])


class FailureCountOut(Schema):
    reason: str
    label: str
    message: JobError
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
    message: JobError
    attempts: int


class FailuresOut(Schema):
    counts: list[FailureCountOut]
    tasks: list[FailedTaskOut]


class AskedAgainOut(Schema):
    opened: int


@router.get("/projects/{slug}/failures", response=FailuresOut)
def get_failures(
    request: HttpRequest,
    response: HttpResponse,
    slug: str,
    reason: FailureKind | None = None,
    annotator_id: int | None = None,
    run_id: int | None = None,
    cursor: Cursor = "",
    limit: Limit = 100,
) -> Any:
    """The unanswered questions, and their number by reason; the header Link leads to more of them."""
    project = project_or_404(request, slug)
    chosen = FailureFilter(reason=reason.value if reason else None, annotator_id=annotator_id, run_id=run_id)
    tasks = paged(request, response, failed_tasks(project, chosen), cursor=cursor, limit=limit)
    return {"counts": failure_counts(project, chosen), "tasks": tasks}


@router.post("/projects/{slug}/failures/retry", response=AskedAgainOut)
def post_retry_failures(
    request: HttpRequest,
    slug: str,
    reason: FailureKind | None = None,
    annotator_id: int | None = None,
    run_id: int | None = None,
) -> Any:
    """Retry the failed questions, all or those of one reason, judge or run."""
    project = owned_project_or_404(request, slug)
    chosen = FailureFilter(reason=reason.value if reason else None, annotator_id=annotator_id, run_id=run_id)
    return {"opened": retry_failures(project, chosen, by=request.user)}


class CallsOut(Schema):
    calls: int
    input_tokens: int
    output_tokens: int
    cost_micros: int
    latency_p50: float | None
    latency_p95: float | None
    failed: EstimateOut | None


class ScorecardOut(Schema):
    annotator_id: int
    name: str
    plugin: str
    paused_at: datetime | None
    pause_reason: str
    answers: int
    gold: EstimateOut | None
    people: EstimateOut | None
    agreement: EstimateOut | None
    flips: EstimateOut | None
    position: EstimateOut | None
    length: EstimateOut | None
    cycles: EstimateOut | None
    call_correlation: EstimateOut | None
    drift: float | None
    calls: CallsOut


class CycleOut(Schema):
    """Candidates that the panel orders in a circle: each before the next with this preference, the last before the first."""

    query_id: int
    candidate_ids: tuple[int, int, int]
    preferences: tuple[float, float, float]


class CyclesOut(Schema):
    cycles: int
    triples: int
    share: EstimateOut | None
    listed: list[CycleOut]
    problem: str


@router.get("/projects/{slug}/cycles", response=CyclesOut)
def get_cycles(request: HttpRequest, slug: str) -> Any:
    """Triples in which the panel contradicts itself, the clearest first, and their share. A run with the sampler `conflicts`
    and orders `both` asks about them in the other order. `problem` says why the panel is unknown, else it is empty.
    """
    return read_figure(project_or_404(request, slug), CYCLES, kept_s=0).value


class PauseIn(Schema):
    reason: Text = Field("paused over REST", min_length=1, max_length=500)


class JudgeStateOut(Schema):
    annotator_id: int
    paused: bool
    reason: str


@router.get("/projects/{slug}/judges/scorecards", response=list[ScorecardOut])
def get_scorecards(request: HttpRequest, slug: str) -> Any:
    """Accuracy, consistency, biases, speed and cost of every judge, with 95 % intervals."""
    return current_cards(project_or_404(request, slug), kept_s=0)


class PersonTestOut(Schema):
    name: str
    items: int
    judge_wins: float
    person_wins: float
    p_value: float
    adjusted: float
    is_replaceable: bool


class ReplacementOut(Schema):
    """`winning_rate` (omega) and `advantage` (rho) are null with fewer than three people of thirty items each."""

    annotator_id: int | None
    name: str
    epsilon: float
    winning_rate: float | None
    advantage: float | None
    passes: bool | None
    items_needed: int | None
    people: list[PersonTestOut]


@router.get("/projects/{slug}/judges/replacement", response=list[ReplacementOut])
def get_replacement(request: HttpRequest, slug: str, epsilon: Annotated[float, Field(ge=0.0, lt=1.0)] = EPSILON) -> Any:
    """The Alternative Annotator Test of each judge, and of the panel of all, on the pairs that people answered.

    `epsilon` is the cost-benefit: .2 where people are experts, .15 skilled, .1 crowd workers.
    """
    found = replacing_people(project_or_404(request, slug), epsilon=epsilon)
    return [
        {
            **{name: getattr(each.result, name) for name in _OF_REPLACEMENT},
            "annotator_id": each.annotator_id,
            "name": each.name or "panel",
            "people": [
                {**asdict(own), "name": found.people[own.person], "is_replaceable": own.is_replaceable}
                for own in each.result.people
            ],
        }
        for each in found.judges
    ]


_OF_REPLACEMENT = ("epsilon", "winning_rate", "advantage", "passes", "items_needed")


@router.post("/projects/{slug}/judges/{annotator_id}/pause", response=JudgeStateOut)
def post_pause(request: HttpRequest, slug: str, annotator_id: int, body: PauseIn) -> Any:
    """Pause a judge; its open questions wait until it is resumed."""
    judge = judge_or_404(owned_project_or_404(request, slug), annotator_id)
    pause_judge(judge, body.reason, by=request.user)
    return _state(judge)


@router.post("/projects/{slug}/judges/{annotator_id}/resume", response=JudgeStateOut)
def post_resume(request: HttpRequest, slug: str, annotator_id: int) -> Any:
    """Resume a paused judge, and reset its drift alarm."""
    judge = judge_or_404(owned_project_or_404(request, slug), annotator_id)
    resume_judge(judge, by=request.user)
    return _state(judge)


@router.post("/projects/{slug}/judges/{annotator_id}/retry", response=AskedAgainOut)
def post_resume_and_retry(request: HttpRequest, slug: str, annotator_id: int) -> Any:
    """Resume a paused judge, and retry its dead letters."""
    judge = judge_or_404(owned_project_or_404(request, slug), annotator_id)
    return {"opened": resume_and_retry(judge, by=request.user)[1]}


class RecordedJudgeOut(Schema):
    """A judge of an uploaded file; plugin, options and name as POST /runs takes them."""

    annotator_id: int
    plugin: str
    options: dict[str, Any]
    name: str
    answers: int


class RecordingOut(Schema):
    """An uploaded file of recorded answers. `known` of its answers name texts of the project; the others are left out."""

    recording: str
    answers: int
    known: int
    left_out: int
    judges: list[RecordedJudgeOut]


@router.post("/projects/{slug}/recordings", response={201: RecordingOut})
def post_recording(request: HttpRequest, slug: str, file: File[UploadedFile]) -> Any:
    """Upload recorded answers; POST /runs with these judges and the sampler `recorded` replays them."""
    project = owned_project_or_404(request, slug)
    try:
        stored = store_recording(project, file, filename=file.name or "upload", by=request.user)
    except (RecordingRefused, StorageFull) as error:
        raise HttpError(422, str(error)) from error
    judges = [
        {"annotator_id": judge.pk, "plugin": judge.plugin, "options": judge.options, "name": judge.name,
         "answers": stored.answers_of[name]}
        for name, judge in stored.judges.items()
    ]  # fmt: skip
    facts = {name: getattr(stored, name) for name in ("answers", "known", "left_out")}
    return Status(201, {"recording": stored.checksum, "judges": judges, **facts})


class FailedCallOut(Schema):
    id: int
    run_id: int
    annotator_id: int
    outcome: str
    message: JobError
    is_retryable: bool
    is_outage: bool
    input_tokens: int
    output_tokens: int
    cost_micros: int
    finished_at: datetime | None


@router.get("/projects/{slug}/failed-calls", response=list[FailedCallOut])
def get_failed_calls(
    request: HttpRequest, response: HttpResponse, slug: str, annotator_id: Number | None = None, cursor: Cursor = "",
    limit: Limit = 100,
) -> Any:  # fmt: skip
    """The calls that failed, newest first, with their messages; retried questions included."""
    rows = failed_calls(project_or_404(request, slug), annotator_id=annotator_id)
    return paged(request, response, rows, cursor=cursor, limit=limit, newest=True)


def judge_or_404(project: Project, annotator_id: int) -> Annotator:
    """The project's judge of that id."""
    judge = Annotator.objects.judges().filter(project=project, pk=annotator_id).first()
    if judge is None:
        raise HttpError(
            404, f"project {project.slug!r} has no judge {annotator_id}; GET .../judges/scorecards lists them"
        )
    return judge


def _state(judge: Annotator) -> dict[str, Any]:
    return {"annotator_id": judge.pk, "paused": judge.paused_at is not None, "reason": judge.pause_reason}


class ProbeIn(Schema):
    annotator_id: int
    options: ProbeOptions = ProbeOptions()


class ProbeOut(Schema):
    """An injection probe; GET /jobs/{job_id} returns its progress."""

    id: int
    job_id: int
    annotator_id: int
    state: str = Field(alias="job.state")
    error: JobError = Field(alias="job.error")
    options: dict[str, Any]
    report: dict[str, Any]
    calls: int
    input_tokens: int
    output_tokens: int
    cost_micros: int


@router.get("/projects/{slug}/probes", response=list[ProbeOut], by_alias=False)
def get_probes(request: HttpRequest, response: HttpResponse, slug: str, cursor: Cursor = "", limit: Limit = 20) -> Any:
    """The injection probes, newest first, with their reports."""
    project = project_or_404(request, slug)
    probes = InjectionProbe.objects.visible_to(request.user).filter(project=project).select_related("job")
    return paged(request, response, probes, cursor=cursor, limit=limit, newest=True)


@router.post("/projects/{slug}/probes", response={201: ProbeOut}, by_alias=False)
def post_probe(request: HttpRequest, slug: str, body: ProbeIn) -> Any:
    """Start an injection probe of one judge; it starts as soon as a worker is free."""
    judge = judge_or_404(owned_project_or_404(request, slug), body.annotator_id)
    try:
        return Status(201, order_probe(judge, body.options, by=request.user))
    except ProbeRefused as error:
        raise HttpError(422, str(error)) from error
