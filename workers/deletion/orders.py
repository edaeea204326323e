"""The verb `delete`: checks a target, ends what runs on it, notes who did it, and deletes now or by a job.

Pages, REST and `manage.py delete` call it. Small targets are deleted in the caller's process; large ones by a worker, in
slices. `workers.deletion.job` does the work of both.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from labeling import audit
from labeling.models import Annotator, Project
from scoring.models import Snapshot
from trainer.deployments.changes import deployed
from trainer.models import Reranker, TrainingRun
from workers.broker.hints import leave_hint
from workers.deletion import job as jobs
from workers.deletion.targets import (
    Counts,
    DeletionRefused,
    Target,
    distillations_of,
    judges_using,
    refuse_unfinished_orders,
)
from workers.jobs.distillation import cancel_distillation
from workers.jobs.training import UNFINISHED, cancel_training
from workers.judging.pausing import retire_judge
from workers.models import Job, Run
from workers.runs.transitions import cancel_run

# Up to so many rows are deleted while the caller waits.
AT_ONCE = 2_000


def delete(target: Target, *, by: Any = None, wait: bool = False) -> Job:
    """Delete the target with everything that goes with it; returns the job, which is finished if the target was small.

    Runs and trainings of the target, and distilled runs that use it, are cancelled first. Frozen snapshots stay as they are,
    unless they are the target. While a batch of a deleted run is at its provider, the job waits for its answers, which are
    paid. `wait`: delete a large target in this process too. Raises DeletionRefused; nothing is changed then.
    """
    counts = target.counted()
    with transaction.atomic():
        _check(target)
        _end_work(target, by=by)
        # Cancelled above: an undone order leaves the work cancelled, never half of the rows deleted.
        job = _order(target, counts, by=by)
    if jobs.waits_for_batches(job):
        return job
    if wait or sum(counts.values()) <= AT_ONCE:
        jobs.carry_out_deletion(job.pk, worker="here")
        job.refresh_from_db()
        if job.state == Job.State.FAILED:
            raise DeletionRefused(f"{target.name} was not deleted: {job.error}")
    else:
        leave_hint("delete", job.pk)
    return job


def _order(target: Target, counts: Counts, *, by: Any) -> Job:
    payload = {
        "kind": target.kind,
        "ids": list(target.ids),
        "name": target.name,
        "files": _files(target),
        "workspaces": _workspaces(target),
    }
    job = Job.objects.create(project=target.project, stage=jobs.STAGE, payload=payload, total=sum(counts.values()))
    audit.note(f"{target.kind}.deleted", project=target.project, actor=by, subject=target.name, job=job.pk, **counts)
    return job


def _check(target: Target) -> None:
    if target.kind in ("run", "snapshot"):
        refuse_unfinished_orders(target.project)
    if target.kind == "reranker":
        _refuse_deployed(target)
    if target.kind == "snapshot" and _projects_of(target).count() > 1:
        names = ", ".join(sorted(_projects_of(target).values_list("slug", flat=True)))
        raise DeletionRefused(
            f"snapshot {target.name!r} belongs to several projects ({names}); it is deleted with the last of them"
        )


def _refuse_deployed(target: Target) -> None:
    """A reranker that answers the requests of a deployment stays until another version is deployed."""
    if names := list(deployed(list(target.ids)).values_list("name", flat=True)):
        raise DeletionRefused(
            f"{target.name!r} answers requests to {', '.join(names)}; deploy another version or delete the deployment first"
        )


def _projects_of(target: Target) -> QuerySet[Project]:
    return Project.with_archived.filter(snapshots__in=target.ids).distinct()


def _end_work(target: Target, *, by: Any) -> None:
    """Cancel the runs and trainings that are the target or use it, and retire the judges that ask a deleted student."""
    if target.kind in ("run", "snapshot"):
        for distillation in distillations_of(target):
            cancel_distillation(distillation, by=by)
    if target.kind == "run":
        for run in Run.objects.filter(pk__in=target.ids):
            cancel_run(run, by=by)
    if target.kind == "snapshot":
        for training in TrainingRun.objects.filter(snapshot__in=target.ids, state__in=UNFINISHED):
            cancel_training(training, by=by)
        _cancel_evaluations(target)
    if target.kind == "reranker":
        for judge in judges_using(target):
            retire_judge(judge, by=by)


def _cancel_evaluations(target: Target) -> None:
    jobs.cancel_jobs(Job.objects.filter(stage="evaluate", payload__snapshot__in=list(target.ids)))


def _files(target: Target) -> list[str]:
    """The folders in the storage that go with the target."""
    model: Any = {"snapshot": Snapshot, "reranker": Reranker}.get(target.kind)
    if model is None:
        return []
    return [each for each in model.objects.filter(pk__in=target.ids).values_list("location", flat=True) if each]


def _workspaces(target: Target) -> list[int]:
    """The training runs whose folders go with the target."""
    if target.kind != "snapshot":
        return []
    return list(TrainingRun.objects.filter(snapshot__in=target.ids).values_list("pk", flat=True))


def delete_answers(annotator: Annotator, *, by: Any = None) -> Job:
    """Delete all judgments of one judge or person, who stays and may answer again."""
    return delete(Target("answers", annotator.project, (annotator.pk,), annotator.name), by=by)
