"""Stage 7 as a background job: trains a reranker on a snapshot, in a process of its own, under a lease.

Pages, REST and `manage.py train` order it. The worker copies the snapshot into a workspace, starts
`trainer.training.process` there, stores its progress, and uploads its artefacts. After a crash or a stop the next worker
on this machine continues from the last checkpoint in the workspace.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from labeling.audit import note
from labeling.models import Project
from labeling.plugins import Trainer, get_plugin
from labeling.retrieval.model_names import ModelNotAllowed
from labeling.stored_texts import stored_text
from scoring.models import Snapshot
from scoring.snapshots.freeze import software
from scoring.snapshots.pairs import PAIRS_FILE
from scoring.snapshots.stored_rows import ROWS_FILE, download_rows
from scoring.storage.files import storage
from scoring.storage.write_guards import in_the_making
from trainer.bases import MINILM, Base, load_base
from trainer.models import Reranker, TrainingRun
from trainer.publishing.manifests import ADAPTER, is_embedding, is_pairwise
from trainer.recommendation import Recommendation, is_bi_encoder, recommended_trainer
from trainer.serving.registry import PAIRWISE_JUDGE, TRAINED, artefact_folder, artefact_of
from trainer.training.launcher import TrainingProcess
from trainer.training.options import START, START_SIGNALS
from trainer.training.process import ORDER, PAIRS, PUBLISHED, RESULT, ROWS
from workers.broker.hints import leave_hint
from workers.jobs.evaluation import EvaluationRefused, order_evaluation
from workers.jobs.leasing import (
    MOST_ATTEMPTS,
    JobClaim,
    LeaseLost,
    carry_out,
    report_progress,
    unfinished_jobs,
    waiting_job_ids,
)
from workers.jobs.storage_cleanup import collect_unfinished
from workers.jobs.student_judges import enter_judge
from workers.jobs.training_progress import Progress
from workers.models import Job
from workers.stopping import is_stopping

log = logging.getLogger(__name__)

STAGE = "train"
POLL_S = 1.0
RERANKER_PUBLISHED = stored_text("reranker '%(name)s' published")
PUBLISHED_BEFORE = stored_text("published before")
JUDGE_PUBLISHED = stored_text("judge '%(name)s' published")
JUDGE_HELD_BACK = stored_text("judge '%(name)s' held back: on held-out pairs it is not better than chance")
RERANKER_HELD_BACK = stored_text("reranker '%(name)s' held back: it ranks worse than its base or the first stage")
BASE_WON = stored_text("nothing published: no checkpoint ranks better than the untrained base")
START_WON = stored_text("nothing published: no checkpoint ranks better than the student from which it continued")
GIVEN_UP = (
    f"the worker crashed {MOST_ATTEMPTS} times without reaching another checkpoint; see its log, choose a smaller batch_size "
    "or max_length where memory is short, then resume the run"
)
ENDED_WELL = (TrainingRun.State.FINISHED, TrainingRun.State.HELD_BACK)
UNFINISHED = (TrainingRun.State.PLANNED, TrainingRun.State.RUNNING)


class TrainingRefused(ValueError):
    """The training that was ordered cannot begin; the message says what to change."""


class AlreadyTraining(TrainingRefused):
    """A training of the project is unfinished already."""

    def __init__(self, project: Project) -> None:
        super().__init__(f"project {project.slug!r} trains already; wait for the end of that training, or cancel it")


class TrainingFailed(RuntimeError):
    """The training process ended without a result; the message is that of the process."""


# --- orders ------------------------------------------------------------------------------


def start_training(
    project: Project,
    snapshot: Snapshot,
    *,
    trainer: str = "",
    options: Mapping[str, Any] | None = None,
    by: Any = None,
) -> TrainingRun:
    """Order a training and send the hint that starts it; without `trainer`, the recommended one.

    Raises UnknownPlugin, pydantic.ValidationError, TrainingRefused or AlreadyTraining; nothing is stored then.
    """
    if not snapshot.projects.filter(pk=project.pk).exists():
        raise TrainingRefused(
            f"snapshot {snapshot.name!r} holds no scores of project {project.slug!r}; freeze one that does"
        )
    if not snapshot.manifest.get("splits", {}).get("train", {}).get("rows"):
        raise TrainingRefused(f"snapshot {snapshot.name!r} has no training queries; freeze one whose shares leave some")
    trainer = trainer or recommendation(snapshot, options).trainer
    plugin = cast("type[Trainer]", get_plugin("trainer", trainer))
    chosen = plugin.from_dict(dict(options or {})).options.model_dump(mode="json")
    if plugin.learns_from == "pairs":
        _check_pairs(snapshot)
    _check_start(project, trainer, chosen)
    with transaction.atomic():
        run = TrainingRun.objects.create(
            project=project, snapshot=snapshot, trainer=trainer, options=chosen, seed=int(chosen.get("seed", 0))
        )
        _open_job(run)
        note("training.ordered", project=project, actor=by, subject=snapshot.name, run=run.pk, trainer=trainer)
    return run


def recommendation(snapshot: Snapshot, options: Mapping[str, Any] | None = None) -> Recommendation:
    """The trainer that suits the base of `options` (the bundled one without) and the snapshot's training queries.

    Raises TrainingRefused if the base cannot be read on this machine.
    """
    base = str((options or {}).get("base") or MINILM)
    queries = int(snapshot.manifest.get("splits", {}).get("train", {}).get("queries", 0))
    try:
        return recommended_trainer(load_base(base), queries)
    except ModelNotAllowed as error:
        raise TrainingRefused(str(error)) from error
    except (OSError, ValueError) as error:
        raise TrainingRefused(f"no trainer can be recommended: {error}; name the trainer in the request") from error


def check_ranking_trainer(trainer: str, options: Mapping[str, Any], base: Base) -> None:
    """Raise UnknownPlugin, pydantic.ValidationError or TrainingRefused unless the trainer makes a reranker of the base."""
    plugin = cast("type[Trainer]", get_plugin("trainer", trainer))
    plugin.from_dict(dict(options))
    if plugin.learns_from == "pairs":
        raise TrainingRefused(
            f"trainer {trainer!r} makes a judge, which ranks nothing; choose a trainer of rerankers, or none for the recommended one"
        )
    if trainer == "embedding" and not is_bi_encoder(base):
        raise TrainingRefused(
            f"base {base.name!r} is not an embedder, and trainer {trainer!r} needs one; choose another trainer, or an embedder as base"
        )


def start_student(project: Project, checksum: str) -> Reranker | None:
    """The project's student with this checksum, with its training."""
    found = Reranker.objects.filter(project=project, kind=TRAINED, checksum=checksum).exclude(location="")
    return found.select_related("training_run").first()


def _check_start(project: Project, trainer: str, options: Mapping[str, Any]) -> None:
    """Raise TrainingRefused unless the adapter of `start` fits the training."""
    if not options.get("start"):
        return
    student = start_student(project, options["start"])
    if student is None or student.training_run is None:
        raise TrainingRefused(
            f"start names the student {options['start'][:12]}, which project {project.slug!r} does not have; name the checksum of "
            "one of its trained students"
        )
    own = student.training_run.options
    for name in ("base", "rank", "alpha", "targets"):
        if own.get(name) != options.get(name):
            raise TrainingRefused(
                f"student {student.name!r} has {name} {own.get(name)!r} and the training {options.get(name)!r}; a training that "
                "continues needs the same"
            )
    if is_embedding(student.manifest) != (trainer == "embedding"):
        form = "an embedding student" if is_embedding(student.manifest) else "a reranker"
        raise TrainingRefused(f"student {student.name!r} is {form}; trainer {trainer!r} cannot continue it")


def _check_pairs(snapshot: Snapshot) -> None:
    pairs = snapshot.manifest.get("pairs", {})
    if not pairs.get("splits", {}).get("train", {}).get("pairs"):
        why = "no pair of its training queries has a preference" if pairs else "it was frozen without pairs"
        raise TrainingRefused(
            f"snapshot {snapshot.name!r} has no training pair with a preference of the panel: {why}; judge pairs, then freeze a "
            "new snapshot"
        )


def resume_training(run: TrainingRun, *, by: Any = None) -> TrainingRun:
    """Resume a failed or cancelled run from its last checkpoint, or from the start where there is none."""
    with transaction.atomic():
        stopped = (TrainingRun.State.FAILED, TrainingRun.State.CANCELLED)
        moved = TrainingRun.objects.filter(pk=run.pk, state__in=stopped).update(
            state=TrainingRun.State.PLANNED, error="", finished_at=None
        )
        if not moved:
            raise TrainingRefused(
                f"run {run.pk} is {run.get_state_display()}; only a failed or cancelled run can be resumed"
            )
        _open_job(run)
        note("training.resumed", project=run.project, actor=by, subject=run.snapshot.name, run=run.pk)
    run.refresh_from_db()
    return run


def _open_job(run: TrainingRun) -> None:
    try:
        with transaction.atomic():
            job = Job.objects.create(project=run.project, stage=STAGE, payload={"training_run": run.pk})
    except IntegrityError:
        raise AlreadyTraining(run.project) from None
    transaction.on_commit(lambda: leave_hint("train", job.pk))


def cancel_training(run: TrainingRun, *, by: Any = None) -> bool:
    """Cancel a training; False where it had ended. Its worker stops the process within seconds; checkpoints stay."""
    with transaction.atomic():
        moved = TrainingRun.objects.filter(pk=run.pk, state__in=UNFINISHED).update(
            state=TrainingRun.State.CANCELLED, finished_at=Now()
        )
        if not moved:
            return False
        unfinished_jobs(run.project, STAGE).filter(payload__training_run=run.pk).update(
            state=Job.State.CANCELLED, lease_until=None, leased_by="", finished_at=Now()
        )
        note("training.cancelled", project=run.project, actor=by, subject=run.snapshot.name, run=run.pk)
    run.refresh_from_db()
    return True


def publish_anyway(run: TrainingRun, *, by: Any = None) -> Reranker:
    """Publish the student that the gate held back; it carries a badge wherever it appears. Raises TrainingRefused."""
    held_back, anyway = Reranker.Release.HELD_BACK, Reranker.Release.PUBLISHED_ANYWAY
    with transaction.atomic():
        reranker = run.rerankers.select_for_update().filter(release=held_back).first()
        if reranker is None:
            raise TrainingRefused(
                f"training {run.pk} has no reranker that is held back; only such a one can be published anyway"
            )
        reranker.release = anyway
        reranker.save(update_fields=["release"])
        enter_judge(reranker)
        note("reranker.published_anyway", project=run.project, actor=by, subject=reranker.name, run=run.pk)
    return reranker


def waiting_training_ids() -> list[int]:
    """Jobs that wait for a worker: new ones, and those whose lease has run out."""
    return waiting_job_ids(STAGE)


def end_failed_runs() -> None:
    """End the runs of failed jobs whose worker died before it could."""
    for run in TrainingRun.objects.filter(state__in=UNFINISHED):
        job = Job.objects.filter(stage=STAGE, payload__training_run=run.pk).order_by("-id").first()
        if job is not None:
            _end_failed(job)


# --- work --------------------------------------------------------------------------------


def train(job_id: int, *, worker: str = "") -> None:
    """Carry a training out unless another worker does; an error is stored in run and job."""
    collect_unfinished()  # a machine that only trains has no reconciler
    carry_out(job_id, STAGE, _train, worker=worker, given_up=GIVEN_UP, told=(TrainingFailed,))
    ended = Job.objects.filter(pk=job_id, stage=STAGE).first()
    if ended is not None:
        _end_failed(ended)


def _end_failed(job: Job) -> None:
    """End the run of a failed job."""
    if job.state == Job.State.FAILED:
        TrainingRun.objects.filter(pk=job.payload["training_run"], state__in=UNFINISHED).update(
            state=TrainingRun.State.FAILED, error=job.error, finished_at=Now()
        )


def _train(claim: JobClaim) -> str:
    run = TrainingRun.objects.select_related("project", "snapshot").get(pk=claim.payload["training_run"])
    if run.state in ENDED_WELL:  # a worker died between publishing and saying so
        return PUBLISHED_BEFORE
    TrainingRun.objects.filter(pk=run.pk, state=TrainingRun.State.PLANNED).update(state=TrainingRun.State.RUNNING)
    workspace = prepare_workspace(run)
    progress = Progress(run.progress)
    with TrainingProcess(workspace) as process:
        while (status := process.ended()) is None:
            _pass_on(claim, run, progress, process.new_events())
            _give_way(claim)
            time.sleep(POLL_S)
        _pass_on(claim, run, progress, process.new_events())
        if status or not (workspace / RESULT).exists():
            raise TrainingFailed(progress.error or _unexplained(status, process.last_output()))
    result = read_result(workspace)
    said = _end_without_student(claim, run, result) if result.get("base_won") else _store_student(claim, run, result)
    shutil.rmtree(workspace, ignore_errors=True)
    if not is_pairwise(result.get("manifest", {})):  # a judge is measured by its answers
        _order_evaluation(run)
    return said


def read_result(workspace: Path) -> dict[str, Any]:
    """The result that the training process left in its workspace."""
    return dict(json.loads((workspace / RESULT).read_text()))


def _store_student(claim: JobClaim, run: TrainingRun, result: Mapping[str, Any]) -> str:
    reranker = _store(claim, run, result, workspace_of(run) / PUBLISHED)
    held_back = reranker.release == Reranker.Release.HELD_BACK
    if reranker.kind == PAIRWISE_JUDGE:
        return (JUDGE_HELD_BACK if held_back else JUDGE_PUBLISHED) % {"name": reranker.name}
    return (RERANKER_HELD_BACK if held_back else RERANKER_PUBLISHED) % {"name": reranker.name}


def _end_without_student(claim: JobClaim, run: TrainingRun, result: Mapping[str, Any]) -> str:
    """The untrained base was the best checkpoint: the run ends held back, with the figures, and stores no reranker."""
    with transaction.atomic():
        gate = {
            "held_back": True,
            "base_won": True,
            "start_won": bool(run.options.get("start")),
            "facts": result["facts"],
        }
        _end_run(claim, run, TrainingRun.State.HELD_BACK, gate)
    return START_WON if gate["start_won"] else BASE_WON


def _end_run(claim: JobClaim, run: TrainingRun, state: TrainingRun.State, gate: Mapping[str, Any]) -> None:
    """Store the end of a run. Raises LeaseLost where it was cancelled or taken over meanwhile: nothing of it may be seen."""
    is_ours = Job.objects.select_for_update().filter(claim.held).exists()
    running = TrainingRun.objects.filter(pk=run.pk, state=TrainingRun.State.RUNNING)
    if not is_ours or not running.update(state=state, finished_at=Now(), error="", gate=dict(gate)):
        raise LeaseLost(f"training run {run.pk} was cancelled or taken over while it was published")


def _order_evaluation(run: TrainingRun) -> None:
    """Order an evaluation on the test split of what has no figures yet, unless one of the project is unfinished."""
    if run.snapshot.manifest.get("splits", {}).get("test", {}).get("rows"):
        with contextlib.suppress(EvaluationRefused):
            order_evaluation(run.project, run.snapshot, "test", models_again=False)


def _unexplained(status: int, output: str) -> str:
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    memory = "; where memory is short, choose a smaller batch_size or max_length" if status == -9 else ""
    return f"the training process {how} without an error message{memory}; the end of its output: {output[-1500:] or 'none'}"


def workspace_of(run: TrainingRun) -> Path:
    """The run's folder on this machine."""
    return Path(settings.ZELO_HOME) / "training" / f"run-{run.pk}"


def prepare_workspace(run: TrainingRun) -> Path:
    """Create the run's folder with its order and the snapshot's rows (and pairs), whose checksums are verified.

    Deletes the files of another training with the same number, for example of a deleted database.
    """
    workspace = workspace_of(run)
    plugin = cast("type[Trainer]", get_plugin("trainer", run.trainer))
    order = {
        "trainer": run.trainer,
        "module": plugin.__module__,
        "options": run.options,
        "card": card_facts(run),
    }
    if workspace.exists() and _told_apart(_order_in(workspace)) != _told_apart(order):
        shutil.rmtree(workspace)
    workspace.mkdir(parents=True, exist_ok=True)
    draft = workspace / f"{ORDER}.draft"
    draft.write_text(json.dumps(order))
    draft.replace(workspace / ORDER)
    _fetch(run.snapshot, ROWS_FILE, workspace / ROWS)
    if plugin.learns_from == "pairs":
        _fetch(run.snapshot, PAIRS_FILE, workspace / PAIRS)
    if run.options.get("start"):
        _fetch_start(run, workspace / START)
    return workspace


def _order_in(workspace: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((workspace / ORDER).read_text()))
    return {}


def _told_apart(order: Mapping[str, Any]) -> tuple[Any, ...]:
    """Trainer, options and checksum of the rows: two orders that differ in one are two trainings."""
    return order.get("trainer"), order.get("options"), order.get("card", {}).get("data", {}).get("checksum")


def _fetch(snapshot: Snapshot, name: str, target: Path) -> None:
    """Copy a file of the snapshot unless it is there. Raises StoredFileUnusable."""
    if not target.exists():
        download_rows(snapshot, draft := target.with_suffix(".draft"), name)
        draft.rename(target)


def _fetch_start(run: TrainingRun, target: Path) -> None:
    """Copy the adapter from which the training continues unless it is there. Raises ManifestBroken, TrainingFailed."""
    if target.exists():
        return
    student = start_student(run.project, run.options["start"])
    if student is None:
        raise TrainingFailed(
            "the student from which this training continues was deleted; start a training without this option"
        )
    draft = target.with_suffix(".draft")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(artefact_folder(artefact_of(student)) / ADAPTER, draft)
    signals = {each: student.manifest.get(each, 0.0) for each in ("token_weight", "list_weight")}
    (draft / START_SIGNALS).write_text(json.dumps(signals))
    draft.rename(target)


def _start_facts(run: TrainingRun) -> dict[str, Any]:
    """The student from which the training continues, for the lineage of its card."""
    student = start_student(run.project, run.options["start"]) if run.options.get("start") else None
    return {} if student is None else {"start": {"name": student.name, "checksum": student.checksum}}


def card_facts(run: TrainingRun) -> dict[str, Any]:
    """The model card's facts on data and lineage; the process adds how training went."""
    manifest = run.snapshot.manifest
    sources = manifest.get("projects", [])
    return {
        "name": reranker_name(run),
        "data": {
            "snapshot": run.snapshot.name,
            "checksum": run.snapshot.checksum,
            "rows": run.snapshot.rows,
            "splits": manifest.get("splits", {}),
            "calibrated_rows": manifest.get("calibrated_rows"),
        },
        "lineage": {
            "projects": [each["slug"] for each in sources],
            "judgments": sum(each["judgments"] for each in sources),
            "judges": sorted({judge.get("name", "people") for each in sources for judge in each["judges"]}),
            "rater": sorted({each["fit"]["rater"] for each in sources}),
            "software": software(),
            **_start_facts(run),
        },
        "training": {"trainer": run.trainer, "run": run.pk, "options": run.options},
    }


def reranker_name(run: TrainingRun) -> str:
    return f"{run.snapshot.name[:150]} · {run.trainer} {run.pk}"


def _pass_on(claim: JobClaim, run: TrainingRun, progress: Progress, events: list[dict[str, Any]]) -> None:
    """Store the events of the process. Raises LeaseLost where the run was cancelled or taken over."""
    for event in events:
        progress.take(event)
    report_progress(claim, progress.step, progress.steps)
    if events:
        TrainingRun.objects.filter(pk=run.pk, state=TrainingRun.State.RUNNING).update(progress=progress.shown())
    if any(event["kind"] == "checkpoint" for event in events):
        Job.objects.filter(claim.held).update(attempts=1)  # the next worker has come further than before


def _give_way(claim: JobClaim) -> None:
    """Release the job if this worker is stopping, so that another can take it at once. Raises LeaseLost then."""
    if is_stopping():
        Job.objects.filter(claim.held).update(
            state=Job.State.OPEN, lease_until=None, leased_by="", attempts=max(0, claim.attempts - 1)
        )
        raise LeaseLost(f"job {claim.job_id} was released: this worker is stopping")


def _store(claim: JobClaim, run: TrainingRun, result: Mapping[str, Any], published: Path) -> Reranker:
    """Upload the artefacts, then store the row: so a reranker that exists is complete."""
    location = f"rerankers/{run.project.slug}/run-{run.pk}-{secrets.token_hex(4)}"
    gate, State, Release = result.get("gate", {}), TrainingRun.State, Reranker.Release
    held_back = bool(gate.get("held_back"))
    with in_the_making(location):
        storage().upload_folder(published, location)
        with transaction.atomic():
            _end_run(claim, run, State.HELD_BACK if held_back else State.FINISHED, gate)
            reranker = Reranker.objects.create(
                project=run.project,
                training_run=run,
                name=reranker_name(run),
                kind=PAIRWISE_JUDGE if is_pairwise(result["manifest"]) else TRAINED,
                location=location,
                checksum=result["checksum"],
                manifest=result["manifest"],
                release=Release.HELD_BACK if held_back else Release.PUBLISHED,
            )
            enter_judge(reranker)
    return reranker
