"""A refinement as one job: mine pairs, ask about them, refit, and continue training from the student's adapter; dev queries choose.

1. `mine`: the student and the judgments choose pairs of training queries. 2. `ask`: a run of the design `named` asks the panel,
or spot checks ask people. 3. `train`: a new snapshot with the same splits, and a training that starts with the student.
4. `prove`: both students are measured on the test split. The `Job` row of stage `refine` stores which stage is reached.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pydantic
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from labeling import audit
from labeling.models import Annotator, Pair, Project
from labeling.plugins import Options, UnknownPlugin, get_plugin
from labeling.stored_texts import stored_text
from scoring.models import Snapshot, SpotCheckPlan
from scoring.sampling.named_pairs import NAMED, by_query
from scoring.snapshots.freeze import SnapshotOptions, freeze
from scoring.spot_checks.draws import NothingToAsk
from scoring.spot_checks.plans import open_pairs
from trainer.models import Evaluation, Reranker, TrainingRun
from trainer.serving.registry import TRAINED
from workers.broker.hints import leave_hint
from workers.jobs.calibration import is_settled, scores_are_settled
from workers.jobs.distillation import DistillationRefused, check_panel
from workers.jobs.evaluation import EvaluationBusy, order_evaluation, unfinished_evaluation
from workers.jobs.leasing import MOST_ATTEMPTS, JobClaim, LeaseLost, carry_step, hold, report_progress
from workers.jobs.refinement.mining import mine_pairs, queries_with_an_order
from workers.jobs.training import AlreadyTraining, TrainingRefused, cancel_training, resume_training, start_training
from workers.models import Job, Run
from workers.runs.ordering import RunRefused, start_run
from workers.runs.transitions import cancel_run

log = logging.getLogger(__name__)

STAGE = "refine"
MINE, ASK, TRAIN, PROVE = STAGES = ("mine", "ask", "train", "prove")
FEWEST_DEV_QUERIES = 5
SHOWN_PAIRS = 50
GIVEN_UP = f"the worker crashed {MOST_ATTEMPTS} times at one step; see its log, then resume the refinement"
AT_STAGE = {
    MINE: stored_text("the student ranks the training queries"),
    ASK: stored_text("mined pairs are judged"),
    TRAIN: stored_text("the student trains on"),
    PROVE: stored_text("both students are measured"),
}
DONE = stored_text(
    "student '%(name)s' refined with %(pairs)s pairs, %(disagreements)s of them disagreements",
    one="student '%(name)s' refined with %(pairs)s pair, disagreements among them: %(disagreements)s",
    of="pairs",
)
KEPT = stored_text(
    "%(pairs)s pairs judged; on dev queries no checkpoint ranks better than the student, so the student is kept",
    one="%(pairs)s pair judged; on dev queries no checkpoint ranks better than the student, so the student is kept",
)
HELD_BACK = stored_text(
    "%(pairs)s pairs judged; the gate held student '%(name)s' back, so the previous student is kept",
    one="%(pairs)s pair judged; the gate held student '%(name)s' back, so the previous student is kept",
)
NOTHING_MINED = stored_text("every pair of the training queries has been judged, so there is nothing to ask")
UNFINISHED = (Job.State.OPEN, Job.State.LEASED)
BROKEN = (TrainingRun.State.FAILED, TrainingRun.State.CANCELLED)


class RefinementRefused(ValueError):
    """The refinement that was ordered cannot begin; the message says what to change."""


class RefinementStopped(RuntimeError):
    """A stage of the refinement did not end well; it can be resumed once that is fixed."""


class RefinementOptions(Options):
    """Options of a refinement; field descriptions are the help texts of its form."""

    pairs: int = pydantic.Field(
        default=10,
        ge=1,
        le=10_000,
        description="Pairs per training query, one judge each; queries that gain more get more.",
    )
    queries: int = pydantic.Field(
        default=300, ge=1, le=100_000, description="Training queries to mine, a random part where there are more."
    )
    top: int = pydantic.Field(default=10, ge=1, le=10_000, description="Number of top documents to focus on.")
    ask: Literal["panel", "people"] = pydantic.Field(
        default="panel",
        description="panel: a run asks the judges. people: spot checks, and training waits for their answers.",
    )
    epochs: int = pydantic.Field(default=1, ge=1, le=1000, description="Passes over the training queries.")
    seed: int = pydantic.Field(default=0, ge=0, lt=2**31, description="Seed of mining, run and training.")


@dataclass(frozen=True, slots=True)
class Refinement:
    """A refinement as pages, REST and the command show it. `mined`: the first pairs, as `MinedPair` in plain values."""

    job: Job
    stage: str
    options: RefinementOptions
    student: Reranker | None
    run: Run | None
    plan: SpotCheckPlan | None
    snapshot: Snapshot | None
    training: TrainingRun | None
    refined: Reranker | None
    pairs: int
    disagreements: int
    mined: Sequence[Mapping[str, Any]]


# --- orders ------------------------------------------------------------------------------


def expected_pairs(student: Reranker, options: RefinementOptions) -> int:
    """The most pairs that a refinement asks."""
    training = student.training_run
    splits = training.snapshot.manifest.get("splits", {}) if training is not None else {}
    return options.pairs * min(options.queries, int(splits.get("train", {}).get("queries", 0)))


def order_refinement(
    student: Reranker, judges: Sequence[Annotator], options: RefinementOptions | None = None, *, by: Any = None
) -> Job:
    """Order a refinement of a student with this panel. Raises RefinementRefused; nothing is stored then."""
    options = options or RefinementOptions()
    _check(student, judges, options)
    payload = {
        "stage": MINE,
        "reranker": student.pk,
        "judges": [judge.pk for judge in judges],
        "options": options.model_dump(mode="json"),
        "by": getattr(by, "pk", None),
        "runs": {},
    }
    try:
        with transaction.atomic():
            job = Job.objects.create(
                project=student.project, stage=STAGE, payload=payload, message=AT_STAGE[MINE] % {}, total=len(STAGES)
            )
            audit.note("refinement.ordered", project=student.project, actor=by, subject=student.name, job=job.pk)
    except IntegrityError:
        raise RefinementRefused(
            f"a refinement of project {student.project.slug!r} is unfinished; wait for its end, or cancel it"
        ) from None
    transaction.on_commit(lambda: leave_hint("refine", job.pk))
    return job


def _check(student: Reranker, judges: Sequence[Annotator], options: RefinementOptions) -> None:
    if student.kind != TRAINED or student.training_run is None or not student.checksum:
        raise RefinementRefused(f"{student.name!r} is not a student that was trained here; choose a trained reranker")
    _check_trainer(student.training_run)
    if options.ask == "panel":
        try:
            check_panel(student.project, judges)
        except DistillationRefused as error:
            raise RefinementRefused(str(error).replace("the distilled run has", "the refinement has")) from error
    dev = dev_queries(student)
    if dev < FEWEST_DEV_QUERIES:
        raise RefinementRefused(
            f"snapshot {student.training_run.snapshot.name!r} has {dev} dev queries with an order; a refinement needs {FEWEST_DEV_QUERIES} to "
            "choose on, so train on a snapshot with a larger dev_share"
        )


def _check_trainer(training: TrainingRun) -> None:
    """Raise RefinementRefused unless the trainer of a student can continue from it."""
    try:
        fields = get_plugin("trainer", training.trainer).Options.model_fields
    except UnknownPlugin as error:
        raise RefinementRefused(str(error)) from error
    missing = [name for name in ("start", "epochs", "max_steps", "seed") if name not in fields]
    if missing:
        raise RefinementRefused(
            f"trainer {training.trainer!r} has no option {missing[0]!r}, so it cannot continue from a student; choose a student of "
            "another trainer"
        )


def dev_queries(student: Reranker) -> int:
    """The dev queries with an order of the snapshot that a student was trained on."""
    training = student.training_run
    return 0 if training is None else queries_with_an_order(training.snapshot, "dev")


def cancel_refinement(job: Job, *, by: Any = None) -> bool:
    """Cancel a refinement with its run or training; False where it had ended. Answers stay."""
    with transaction.atomic():
        moved = Job.objects.filter(pk=job.pk, stage=STAGE, state__in=UNFINISHED).update(
            state=Job.State.CANCELLED, lease_until=None, leased_by="", finished_at=Now()
        )
        if not moved:
            return False
        audit.note("refinement.cancelled", project=job.project, actor=by, subject=f"job {job.pk}")
        job.refresh_from_db()
        found = refinement_of(job)
        if found.run is not None:
            cancel_run(found.run, by=by)
        if found.training is not None:
            cancel_training(found.training, by=by)
    return True


def resume_refinement(job: Job, *, by: Any = None) -> Job:
    """Resume a failed or cancelled refinement at the stage that it had reached. Raises RefinementRefused."""
    try:
        with transaction.atomic():
            moved = Job.objects.filter(
                pk=job.pk, stage=STAGE, state__in=[Job.State.FAILED, Job.State.CANCELLED]
            ).update(state=Job.State.OPEN, attempts=0, error="", finished_at=None)
            if not moved:
                raise RefinementRefused(
                    f"refinement {job.pk} is {job.get_state_display()}; only a failed or cancelled one can be resumed"
                )
            payload = dict(job.payload)
            found = refinement_of(job)
            if payload["stage"] == ASK and found.plan is None and (found.run is None or _is_broken(found.run)):
                _start_run(job, payload)
            if found.training is not None and found.training.state in BROKEN:
                resume_training(found.training, by=by)
            Job.objects.filter(pk=job.pk).update(payload=payload)
            audit.note("refinement.resumed", project=job.project, actor=by, subject=f"job {job.pk}")
    except IntegrityError:
        raise RefinementRefused(
            f"another refinement of project {job.project.slug!r} is unfinished; wait for its end, or cancel it"
        ) from None
    except (RunRefused, TrainingRefused) as error:
        raise RefinementRefused(str(error)) from error
    job.refresh_from_db()
    transaction.on_commit(lambda: leave_hint("refine", job.pk))
    return job


def _is_broken(run: Run) -> bool:
    return run.state in (Run.State.FAILED, Run.State.CANCELLED)


def refinement_of(job: Job) -> Refinement:
    """The refinement of a job with what it has made."""
    payload = job.payload
    training = TrainingRun.objects.filter(pk=payload.get("training", 0)).select_related("snapshot").first()
    return Refinement(
        job=job,
        stage=payload["stage"],
        options=RefinementOptions.model_validate(payload["options"]),
        student=Reranker.objects.filter(pk=payload["reranker"]).select_related("training_run__snapshot").first(),
        run=Run.objects.filter(pk=payload["runs"].get(ASK, 0)).first(),
        plan=SpotCheckPlan.objects.filter(pk=payload.get("plan", 0)).first(),
        snapshot=Snapshot.objects.filter(pk=payload.get("snapshot", 0)).first(),
        training=training,
        refined=Reranker.objects.filter(training_run=training).first() if training is not None else None,
        pairs=int(payload.get("pairs", 0)),
        disagreements=int(payload.get("disagreements", 0)),
        mined=payload.get("mined", []),
    )


def refinements(project: Project) -> list[Refinement]:
    """The project's refinements, the latest first."""
    return [refinement_of(job) for job in Job.objects.filter(project=project, stage=STAGE).order_by("-id")[:20]]


def waiting_refinement_ids() -> list[int]:
    """Refinements whose next step can be done, or whose worker died at one."""
    jobs = Job.objects.filter(stage=STAGE, state__in=UNFINISHED).select_related("project").order_by("id")
    return [job.pk for job in jobs if _can_move(job)]


def _can_move(job: Job) -> bool:
    found = refinement_of(job)
    if found.stage == ASK:
        return _has_been_asked(found)
    if found.stage == TRAIN:
        unfinished = (TrainingRun.State.PLANNED, TrainingRun.State.RUNNING)
        return found.training is None or found.training.state not in unfinished
    return found.stage == MINE or unfinished_evaluation(job.project) is None


def _has_been_asked(found: Refinement) -> bool:
    """Whether the answers to the mined pairs are in the scores, or the run will give none."""
    if found.plan is not None:
        open_checks = found.plan.checks.filter(judgment__isnull=True, slot__isnull=False)
        ended = found.plan.withdrawn_at is not None or not open_checks.exists()
        return ended and scores_are_settled(found.job.project_id)
    return found.run is None or _is_broken(found.run) or is_settled(found.run)


# --- steps -------------------------------------------------------------------------------


def refine(job_id: int, *, worker: str = "") -> None:
    """Do the next steps of a refinement, unless another worker does or its stage is unfinished; an error ends the job."""
    carry_step(job_id, STAGE, _step, worker=worker, given_up=GIVEN_UP, stopped=RefinementStopped)


def _step(claim: JobClaim) -> str | None:
    job = Job.objects.select_related("project").get(pk=claim.job_id)
    if not _can_move(job):
        return None
    found = refinement_of(job)
    if found.student is None or found.student.training_run is None:
        raise RefinementStopped("the student, its training or its snapshot was deleted; refine another student")
    payload = dict(job.payload)
    if found.stage == MINE:
        return _mine(claim, job, payload, found)
    if found.stage == ASK:
        _check_asked(found)
        _move(claim, payload, TRAIN, snapshot=_frozen(job.project, found).pk)
        found = refinement_of(Job.objects.get(pk=job.pk))
    if found.stage == TRAIN:
        return _train(claim, job, payload, found)
    return _prove(claim, job, found)


def _mine(claim: JobClaim, job: Job, payload: dict[str, Any], found: Refinement) -> str | None:
    """Mine, then ask: the pairs are stored in the transaction that starts the run or opens the spot checks."""
    student, options = found.student, found.options
    assert student is not None and student.training_run is not None  # checked by the step
    mined = mine_pairs(
        job.project,
        student,
        student.training_run.snapshot,
        budget=expected_pairs(student, options),
        queries=options.queries,
        top=options.top,
        seed=options.seed,
        progress=lambda done, total: report_progress(claim, 0, len(STAGES)),
    )
    if not mined:
        return NOTHING_MINED
    payload["pairs"], payload["named"] = len(mined), [[each.a, each.b] for each in mined]
    payload["disagreements"] = sum(each.is_disagreement for each in mined)
    payload["mined"] = [{**asdict(each), "is_disagreement": each.is_disagreement} for each in mined[:SHOWN_PAIRS]]
    with transaction.atomic():
        hold(claim)
        try:
            if options.ask == "people":
                rows = [(each.a, each.b, each.query) for each in mined]
                payload["plan"] = open_pairs(job.project, rows, reason="disagreement", seed=options.seed).plan.pk
            else:
                _start_run(job, payload)
        except RunRefused as error:
            raise RefinementStopped(f"the run on the mined pairs was refused: {error}") from error
        except NothingToAsk:
            raise RefinementStopped(
                "people are being asked all mined pairs for other spot checks; wait for their answers or withdraw those, then resume "
                "the refinement"
            ) from None
        _move(claim, payload, ASK)
    return None


def _start_run(job: Job, payload: dict[str, Any]) -> None:
    found = {each.pk: each for each in Annotator.objects.filter(pk__in=payload["judges"])}
    options = RefinementOptions.model_validate(payload["options"])
    there = by_query(job.project, [(a, b) for a, b in payload["named"]], skip_unknown=True)
    left = {pair for own in there.values() for pair in own}
    named = [pair for pair in payload["named"] if tuple(pair) in left]
    judged = _judged(named, payload["judges"]) if ASK in payload["runs"] else set()  # in runs that this one replaces
    run = start_run(
        job.project,
        judges=[found[pk] for pk in payload["judges"] if pk in found],
        sampler=NAMED,
        sampler_options={"pairs": [pair for pair in named if tuple(pair) not in judged] or named[:1]},
        allocation=Run.Allocation.ROTATE,
        seed=options.seed,
    )
    payload["runs"] = {**payload["runs"], ASK: run.pk}


def _judged(named: Sequence[Sequence[int]], judges: Sequence[int]) -> set[tuple[int, int]]:
    """Those of the named pairs that one of these judges has answered. Before the refinement none had; students may have."""
    pairs = Pair.objects.filter(a__in=[a for a, _ in named], b__in=[b for _, b in named])
    return set(pairs.filter(judgments__annotator__in=judges).values_list("a_id", "b_id").distinct())


def _move(claim: JobClaim, payload: dict[str, Any], stage: str, **changes: Any) -> None:
    payload.update(changes, stage=stage)
    if not Job.objects.filter(claim.held).update(
        payload=payload, message=AT_STAGE[stage] % {}, done=STAGES.index(stage), attempts=1
    ):
        raise LeaseLost(f"job {claim.job_id} is no longer leased under fence {claim.fence}")


def _check_asked(found: Refinement) -> None:
    if found.plan is None and (found.run is None or _is_broken(found.run)):
        run = found.run
        why = "was deleted" if run is None else f"{run.get_state_display()}: {run.reason or 'no reason is stored'}"
        raise RefinementStopped(f"the run on the mined pairs {why}; fix this, then resume the refinement")


def _frozen(project: Project, found: Refinement) -> Snapshot:
    """The refitted scores, with the splits of the student's snapshot; found again where a worker died after freezing."""
    name = f"Refinement {found.job.pk}"
    since = found.job.created_at  # people may give the same name
    known = Snapshot.objects.filter(projects=project, name=name, created_at__gte=since).order_by("id").first()
    if known is not None:
        return known
    assert found.student is not None and found.student.training_run is not None
    before = found.student.training_run.snapshot
    options = SnapshotOptions.model_validate(before.manifest.get("options", {}))
    if "mixed_from" in before.manifest and options.domains:  # the options are those of the first part
        domains = sorted({each["domain"] for each in before.manifest["domains"]})
        options = options.model_copy(update={"domains": domains})
    return freeze(list(before.projects.order_by("pk")), name=name, options=options, splits_of=before)


def _train(claim: JobClaim, job: Job, payload: dict[str, Any], found: Refinement) -> str | None:
    training, student = found.training, found.student
    assert student is not None and student.training_run is not None
    if training is None:
        before = student.training_run
        options = {**before.options, "start": student.checksum, "epochs": found.options.epochs}
        options |= {"seed": found.options.seed, "max_steps": 0}
        snapshot = found.snapshot or _frozen(job.project, found)  # one that was deleted is frozen again
        try:
            with transaction.atomic():
                hold(claim)
                training = start_training(job.project, snapshot, trainer=before.trainer, options=options)
                _move(claim, payload, TRAIN, training=training.pk, snapshot=snapshot.pk)
        except AlreadyTraining:
            log.info("refinement %d waits for another training of its project", job.pk)
        except (TrainingRefused, pydantic.ValidationError) as error:
            raise RefinementStopped(f"the training was refused: {error}") from error
        return None
    if training.state in BROKEN:
        why = f"{training.get_state_display()}: {training.error or 'cancelled'}"
        raise RefinementStopped(f"training {training.pk} {why}; fix this, then resume the refinement")
    if found.refined is None:
        return KEPT % {"pairs": found.pairs}
    _move(claim, payload, PROVE)
    return _prove(claim, job, refinement_of(Job.objects.get(pk=job.pk)))


def _prove(claim: JobClaim, job: Job, found: Refinement) -> str | None:
    """Measure both students on the same test queries, unless an evaluation of the training has."""
    if unfinished_evaluation(job.project) is not None:
        return None
    if found.refined is None or found.snapshot is None:
        raise RefinementStopped("the refined student, its training or its snapshot was deleted; order a new refinement")
    assert found.student is not None  # checked by the step
    both = [found.student, found.refined]
    measured = Evaluation.objects.filter(reranker__in=both, snapshot=found.snapshot, split="test")
    has_test = bool(found.snapshot.manifest.get("splits", {}).get("test", {}).get("rows"))
    if has_test and measured.values("reranker").distinct().count() < len(both) and "evaluation" not in job.payload:
        with contextlib.suppress(EvaluationBusy), transaction.atomic():
            hold(claim)
            evaluation = order_evaluation(job.project, found.snapshot, "test", rerankers=both)
            _move(claim, dict(job.payload), PROVE, evaluation=evaluation.pk)
        return None
    words = {"name": found.refined.name, "pairs": found.pairs, "disagreements": found.disagreements}
    is_held_back = found.refined.release == Reranker.Release.HELD_BACK
    return (HELD_BACK if is_held_back else DONE) % words
