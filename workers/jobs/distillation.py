"""A distilled run: panel, student, design, panel again, as one job that moves through runs and a training.

1. `panel`: the panel judges a small random (or adaptive) part. 2. `train`: its pairs are frozen, and the trainer `pairwise`
learns from them. 3. `judge`: the student judges the whole design. 4. `review`: the panel gets the pairs with the largest
expected gain a call (sampler `guided`). Each stage is an ordinary run or training with its own page; the `Job` row of stage
`distill` stores which stage is reached, so that any worker can do the next step. It does no work between stages.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pydantic
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from labeling import audit
from labeling.models import Annotator, Project
from labeling.plugins import Options
from labeling.stored_texts import StoredText, stored_text
from scoring.annotators.student_weights import student_ids
from scoring.models import Snapshot
from scoring.sampling.draw import comparable_query_ids
from scoring.snapshots.freeze import SnapshotOptions, freeze
from trainer.bases import load_base
from trainer.models import Reranker, TrainingRun
from trainer.serving.registry import PAIRWISE_JUDGE
from trainer.training.pairwise.options import PairwiseOptions
from workers.jobs.calibration import is_settled
from workers.jobs.leasing import (
    MOST_ATTEMPTS,
    JobClaim,
    LeaseLost,
    carry_step,
    hold,
)
from workers.jobs.student_judges import enter_judge
from workers.jobs.training import AlreadyTraining, TrainingRefused, cancel_training, resume_training, start_training
from workers.models import Attempt, Job, Run
from workers.runs.ordering import RunRefused, start_run
from workers.runs.planning import GUIDED
from workers.runs.savings import Spent, panel_spend
from workers.runs.transitions import cancel_run

log = logging.getLogger(__name__)

STAGE = "distill"
PANEL, TRAIN, JUDGE, REVIEW = STAGES = ("panel", "train", "judge", "review")
# One each to learn from, to choose the checkpoint, and to measure.
FEWEST_QUERIES = 3
RUN_STAGES = (PANEL, JUDGE, REVIEW)
REPLACED = "replaced"  # of a payload: runs by stage that were cancelled or failed before the stage was resumed
GIVEN_UP = f"the worker crashed {MOST_ATTEMPTS} times at one step; see its log, then resume the distilled run"
AT_STAGE = {
    PANEL: stored_text("the panel judges the first part"),
    TRAIN: stored_text("the student learns"),
    JUDGE: stored_text("the student judges the design"),
    REVIEW: stored_text("the panel judges the pairs with the largest expected gain"),
}
DONE = stored_text("%(calls)s panel calls instead of %(paper)s; the student gave %(answers)s answers")


class DistillationRefused(ValueError):
    """The distilled run that was ordered cannot begin; the message says what to change."""


class DistillationStopped(RuntimeError):
    """A stage of the distilled run did not end well; it can be resumed once that is fixed."""


class DistillationOptions(Options):
    """Options of a distilled run; field descriptions are the help texts of its form."""

    panel_pairs: int = pydantic.Field(
        default=30, ge=1, le=10_000, description="Pairs per query of the panel's first part, one judge each."
    )
    panel_design: Literal["cycles", "adaptive"] = pydantic.Field(
        default="cycles",
        description="Design of the first part: cycles compares as many documents as possible, adaptive focuses on the top.",
    )
    review_pairs: int = pydantic.Field(
        default=60,
        ge=0,
        le=10_000,
        description="Pairs per query that the panel gets at the end, one judge each, by the expected gain a call.",
    )
    degree: int = pydantic.Field(
        default=8, ge=2, le=10_000, multiple_of=2, description="Pairs per candidate that the student judges."
    )
    base: str = pydantic.Field(
        default=PairwiseOptions().base,
        max_length=500,
        description="Base model of the student, see the trainer pairwise.",
    )
    epochs: int = pydantic.Field(default=3, ge=1, le=1000, description="Passes of the student over the panel's pairs.")
    max_length: int = pydantic.Field(
        default=384, ge=32, le=131072, description="Maximum tokens of instruction, query and both documents together."
    )
    seed: int = pydantic.Field(default=0, ge=0, lt=2**31, description="Seed of designs, splits and training.")

    @property
    def training(self) -> dict[str, Any]:
        """The options of the trainer `pairwise`. Raises pydantic.ValidationError."""
        chosen = PairwiseOptions(base=self.base, epochs=self.epochs, max_length=self.max_length, seed=self.seed)
        return chosen.model_dump(mode="json")


@dataclass(frozen=True, slots=True)
class Distillation:
    """A distilled run as pages, REST and the command show it. `stage` is the one that is reached."""

    job: Job
    stage: str
    options: DistillationOptions
    runs: Mapping[str, Run]
    training: TrainingRun | None
    snapshot: Snapshot | None
    spent: Spent


# --- orders ------------------------------------------------------------------------------


def order_distillation(
    project: Project, judges: Sequence[Annotator], options: DistillationOptions | None = None, *, by: Any = None
) -> Job:
    """Order a distilled run with this panel. Raises DistillationRefused, pydantic.ValidationError; nothing is stored then."""
    options = options or DistillationOptions()
    options.training  # noqa: B018  checks the base's name
    check_panel(project, judges)
    _check_base(options.base)  # before anything is paid
    queries = len(comparable_query_ids(project.pk))
    if queries < FEWEST_QUERIES:
        raise DistillationRefused(
            f"project {project.slug!r} has {queries} of the {FEWEST_QUERIES} queries with two candidates that a distilled run needs, to "
            "learn from, to choose and to measure; import more queries"
        )
    payload = {
        "stage": PANEL,
        "judges": [judge.pk for judge in judges],
        "options": options.model_dump(mode="json"),
        "by": getattr(by, "pk", None),
        "runs": {},
    }
    try:
        with transaction.atomic():
            job = Job.objects.create(project=project, stage=STAGE, payload=payload, message=AT_STAGE[PANEL] % {})
            _start_run(job, payload, PANEL, by=by)
            Job.objects.filter(pk=job.pk).update(payload=payload)
            names = ", ".join(judge.name for judge in judges)[:500]
            audit.note("distillation.ordered", project=project, actor=by, subject=f"job {job.pk}", judges=names)
    except IntegrityError:
        raise DistillationRefused(
            f"a distilled run of project {project.slug!r} is unfinished; wait for its end, or cancel it"
        ) from None
    except RunRefused as error:
        raise DistillationRefused(str(error)) from error
    job.refresh_from_db()
    return job


def _check_base(name: str) -> None:
    try:
        load_base(name)
    except (OSError, ValueError) as error:
        raise DistillationRefused(f"base {name!r} cannot be loaded: {error}") from error


def check_panel(project: Project, judges: Sequence[Annotator]) -> None:
    """Raise DistillationRefused unless the judges can be a panel of the project, which has queries to judge."""
    students = set(student_ids([project.pk]))
    if not judges:
        raise DistillationRefused("the distilled run has no panel; choose at least one judge")
    for judge in judges:
        if judge.project_id != project.pk or judge.is_person or judge.pk in students:
            raise DistillationRefused(
                f"annotator {judge.name!r} is not a panel judge of project {project.slug!r}; choose judges that are neither "
                "people nor students"
            )
    if not comparable_query_ids(project.pk):
        raise DistillationRefused(
            f"project {project.slug!r} has no query with two candidates or more; import documents or fill candidates first"
        )


def cancel_distillation(job: Job, *, by: Any = None) -> bool:
    """Cancel a distilled run and its unfinished run; False where it had ended. Answers and the student stay."""
    with transaction.atomic():
        moved = Job.objects.filter(pk=job.pk, stage=STAGE, state__in=[Job.State.OPEN, Job.State.LEASED]).update(
            state=Job.State.CANCELLED, lease_until=None, leased_by="", finished_at=Now()
        )
        if not moved:
            return False
        audit.note("distillation.cancelled", project=job.project, actor=by, subject=f"job {job.pk}")
    job.refresh_from_db()
    run = Run.objects.filter(pk=job.payload["runs"].get(job.payload["stage"])).first()
    if run is not None:
        cancel_run(run, by=by)
    training = TrainingRun.objects.filter(pk=job.payload.get("training", 0)).first()
    if job.payload["stage"] == TRAIN and training is not None:
        cancel_training(training, by=by)
    return True


def resume_distillation(job: Job, *, by: Any = None) -> Job:
    """Resume a failed or cancelled distilled run at the stage that it had reached, as a new job. Raises DistillationRefused."""
    if job.stage != STAGE or job.state not in (Job.State.FAILED, Job.State.CANCELLED):
        raise DistillationRefused(
            f"distilled run {job.pk} is {job.get_state_display()}; only a failed or cancelled one can be resumed"
        )
    after = resumed_as(job)
    if after.pk != job.pk:
        raise DistillationRefused(
            f"distilled run {job.pk} was resumed as distilled run {after.pk}; cancel or resume that one"
        )
    payload = {**job.payload, "of": job.pk}
    stage = payload["stage"]
    try:
        with transaction.atomic():
            new = Job.objects.create(project=job.project, stage=STAGE, payload=payload, message=AT_STAGE[stage] % {})
            run = Run.objects.filter(pk=payload["runs"].get(stage, 0)).first()
            if stage in RUN_STAGES and (run is None or run.state in (Run.State.FAILED, Run.State.CANCELLED)):
                _start_run(new, payload, stage, by=by)
            training = TrainingRun.objects.filter(pk=payload.get("training", 0)).first()
            if stage == TRAIN and training is not None and training.state in BROKEN_TRAININGS:
                resume_training(training, by=by)
            Job.objects.filter(pk=new.pk).update(payload=payload)
            audit.note("distillation.resumed", project=job.project, actor=by, subject=f"job {new.pk}", of=job.pk)
    except IntegrityError:
        raise DistillationRefused(
            f"another distilled run of project {job.project.slug!r} is unfinished; wait for its end, or cancel it"
        ) from None
    except (RunRefused, TrainingRefused) as error:
        raise DistillationRefused(str(error)) from error
    new.refresh_from_db()
    return new


def resumed_as(job: Job) -> Job:
    """The last job of a distilled run that was resumed, by itself where it was not: each resumption is a new job."""
    while (after := Job.objects.filter(stage=STAGE, payload__of=job.pk).first()) is not None:
        job = after
    return job


def with_replaced(payload: Mapping[str, Any], stage: str, run_id: int) -> dict[str, list[int]]:
    """The replaced runs of a payload, with one more of the stage."""
    replaced = payload.get(REPLACED, {})
    return {**replaced, stage: [*replaced.get(stage, []), run_id]}


def run_ids_of(payload: Mapping[str, Any]) -> list[int]:
    """The runs of all stages, with those that later ones have replaced."""
    replaced = payload.get(REPLACED, {}).values()
    return [*payload.get("runs", {}).values(), *(run for runs in replaced for run in runs)]


BROKEN_TRAININGS = (TrainingRun.State.FAILED, TrainingRun.State.CANCELLED)


def distillation_of(job: Job) -> Distillation:
    """The distilled run of a job with its runs, its training and what it has spent."""
    payload = job.payload
    runs = {run.pk: run for run in Run.objects.filter(pk__in=payload["runs"].values())}
    snapshot = Snapshot.objects.filter(pk=payload.get("snapshot", 0)).first()
    by_stage = {stage: runs[pk] for stage, pk in payload["runs"].items() if pk in runs}
    return Distillation(
        job=job,
        stage=payload["stage"],
        options=DistillationOptions.model_validate(payload["options"]),
        runs=by_stage,
        training=TrainingRun.objects.filter(pk=payload.get("training", 0)).first(),
        snapshot=snapshot,
        spent=panel_spend(job.project_id, run_ids_of(payload)),
    )


def distillations(project: Project) -> list[Distillation]:
    """The project's distilled runs, the latest first."""
    return [distillation_of(job) for job in Job.objects.filter(project=project, stage=STAGE).order_by("-id")[:20]]


def waiting_distillation_ids() -> list[int]:
    """Distilled runs whose next step can be done, or whose worker died at one."""
    jobs = Job.objects.filter(stage=STAGE, state__in=[Job.State.OPEN, Job.State.LEASED]).order_by("id")
    return [job.pk for job in jobs if _stage_has_ended(job.payload)]


# --- steps -------------------------------------------------------------------------------


def distill(job_id: int, *, worker: str = "") -> None:
    """Do the next step of a distilled run, unless another worker does or its stage is unfinished; an error ends the job."""
    carry_step(
        job_id,
        STAGE,
        lambda claim: _step(claim, dict(claim.payload)),
        worker=worker,
        given_up=GIVEN_UP,
        stopped=DistillationStopped,
    )


def _stage_has_ended(payload: Mapping[str, Any]) -> bool:
    """Whether the run or training of the stage has ended and its answers have entered the scores."""
    if payload["stage"] == TRAIN:
        training = TrainingRun.objects.filter(pk=payload.get("training", 0)).first()
        return training is None or training.state not in (TrainingRun.State.PLANNED, TrainingRun.State.RUNNING)
    run = Run.objects.filter(pk=payload["runs"].get(payload["stage"], 0)).first()
    if run is None or run.state in (Run.State.FAILED, Run.State.CANCELLED):
        return True
    return is_settled(run)


def _step(claim: JobClaim, payload: dict[str, Any]) -> StoredText | None:
    """Move on if the stage has ended; the message of the whole where it was the last, None otherwise."""
    if not _stage_has_ended(payload):
        return None
    project = Project.objects.get(pk=claim.project_id)
    stage = payload["stage"]
    if stage in RUN_STAGES:
        _check_run(payload, stage)
    if stage == PANEL:
        _move(claim, payload, TRAIN, snapshot=_frozen(claim, project, payload).pk)
        stage = TRAIN
    if stage == TRAIN:
        student = _student(claim, project, payload)
        if student is not None:
            _next_run(claim, payload, JUDGE, student=student.pk)
        return None
    options = DistillationOptions.model_validate(payload["options"])
    if stage == JUDGE and options.review_pairs:
        _next_run(claim, payload, REVIEW)
        return None
    spent = panel_spend(claim.project_id, run_ids_of(payload))
    return DONE % {"calls": spent.calls, "paper": spent.paper_calls, "answers": spent.student_answers}


def _move(claim: JobClaim, payload: dict[str, Any], stage: str, **changes: Any) -> None:
    payload.update(changes, stage=stage)
    done = STAGES.index(stage)
    if not Job.objects.filter(claim.held).update(
        payload=payload, message=AT_STAGE[stage] % {}, done=done, total=len(STAGES)
    ):
        raise LeaseLost(f"job {claim.job_id} is no longer leased under fence {claim.fence}")


def _check_run(payload: Mapping[str, Any], stage: str) -> None:
    run = Run.objects.filter(pk=payload["runs"].get(stage, 0)).first()
    if run is None or run.state != Run.State.FINISHED:
        why = "was deleted" if run is None else f"{run.get_state_display()}: {run.reason or 'no reason is stored'}"
        raise DistillationStopped(f"the run of the stage {stage} {why}; fix this, then resume the distilled run")


def _frozen(claim: JobClaim, project: Project, payload: Mapping[str, Any]) -> Snapshot:
    """The snapshot of the panel's pairs; found again where a worker died after it had frozen them."""
    name = f"Distilled run {payload['runs'][PANEL]}"
    since = Job.objects.values_list("created_at", flat=True).get(pk=claim.job_id)  # people may give the same name
    found = Snapshot.objects.filter(projects=project, name=name, created_at__gte=since).order_by("id").first()
    if found is not None:
        return found
    options = DistillationOptions.model_validate(payload["options"])
    # Shared documents stay: the student judges these very texts, and no test measures transfer.
    frozen = SnapshotOptions(seed=options.seed, shared_documents="keep")
    return freeze([project], name=name, options=frozen, panel=payload["judges"])


def _student(claim: JobClaim, project: Project, payload: dict[str, Any]) -> Annotator | None:
    """The judge of the stage's training; None before it has ended. Raises DistillationStopped."""
    training = TrainingRun.objects.filter(pk=payload.get("training", 0)).first()
    if training is None:
        _order_training(claim, project, payload)
        return None
    student = Reranker.objects.filter(training_run=training, kind=PAIRWISE_JUDGE).select_related("project").first()
    judge = enter_judge(student) if student is not None else None
    if judge is not None:
        return judge
    if training.state in BROKEN_TRAININGS:
        why = f"{training.get_state_display()}: {training.error or 'cancelled'}"
        raise DistillationStopped(f"training {training.pk} {why}; fix this, then resume the distilled run")
    raise DistillationStopped(
        f"training {training.pk} has no student to judge with: on held-out pairs none is better than chance or its base; order a "
        "distilled run with more panel_pairs or another base, or publish the student anyway and resume this one"
    )


def _order_training(claim: JobClaim, project: Project, payload: dict[str, Any]) -> None:
    options = DistillationOptions.model_validate(payload["options"])
    # One that was deleted, with its training, is frozen again: the answers are there.
    snapshot = Snapshot.objects.filter(pk=payload["snapshot"]).first() or _frozen(claim, project, payload)
    try:
        with transaction.atomic():
            hold(claim)
            training = start_training(project, snapshot, trainer="pairwise", options=options.training)
            _move(claim, payload, TRAIN, training=training.pk, snapshot=snapshot.pk)
    except AlreadyTraining:
        log.info("distilled run %d waits for another training of its project", claim.job_id)


def _next_run(claim: JobClaim, payload: dict[str, Any], stage: str, **changes: Any) -> None:
    """Start the run of a stage and store both at once, so that no run is started twice."""
    with transaction.atomic():
        hold(claim)
        job = Job.objects.select_related("project").get(pk=claim.job_id)
        payload.update(changes)
        try:
            _start_run(job, payload, stage)
        except RunRefused as error:
            raise DistillationStopped(f"the run of the stage {stage} was refused: {error}") from error
        _move(claim, payload, stage)


def _start_run(job: Job, payload: dict[str, Any], stage: str, *, by: Any = None) -> Run:
    """Start the run of a stage, and enter it in the payload. Raises RunRefused."""
    project = job.project
    options = DistillationOptions.model_validate(payload["options"])
    queries = len(comparable_query_ids(project.pk))
    if stage in payload["runs"]:
        payload[REPLACED] = with_replaced(payload, stage, payload["runs"][stage])
    answered = answered_in(payload.get(REPLACED, {}).get(stage, []))
    panel: dict[str, Any] = {"judges": _annotators(payload["judges"]), "allocation": Run.Allocation.ROTATE}
    # Many documents once: at 30 pairs of 100 documents worth .08 in NDCG@10 over a path, at 90 with a student's answers .02.
    first = {"spread": True} if options.panel_design == "cycles" else {}
    orders: dict[str, dict[str, Any]] = {
        PANEL: {**panel, "sampler": options.panel_design, "sampler_options": first,
                "pair_budget": max(1, queries * options.panel_pairs - answered)},
        JUDGE: {"judges": _annotators([payload.get("student")]), "sampler": "cycles",
                "sampler_options": {"degree": options.degree}},
        REVIEW: {**panel, "sampler": GUIDED, "pair_budget": max(1, queries * options.review_pairs - answered),
                 "sampler_options": {"pairs_per_candidate": 10_000.0}},
    }  # fmt: skip
    run = start_run(project, by=by, seed=options.seed, **orders[stage])
    payload["runs"] = {**payload["runs"], stage: run.pk}
    return run


def answered_in(runs: Sequence[int]) -> int:
    """The number of questions that these runs have answers to: a stage that is resumed asks the rest."""
    return Attempt.objects.filter(run__in=runs, outcome__in=Attempt.ANSWERED).values("task_id").distinct().count()


def _annotators(ids: Sequence[Any]) -> list[Annotator]:
    found = {each.pk: each for each in Annotator.objects.filter(pk__in=ids)}
    return [found[pk] for pk in ids if pk in found]
