"""Archives, restores and purges projects. An archived project is invisible, and nothing works for it.

It can be restored for `KEPT_DAYS` days; then the reconciler orders its purge, which cannot be undone.
"""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Exists, OuterRef
from django.db.models.functions import Now

from labeling import audit
from labeling.models import Project
from trainer.models import TrainingRun
from workers.broker.hints import leave_hint
from workers.deletion import job as jobs
from workers.deletion.targets import DeletionRefused, count_project
from workers.jobs.distillation import STAGE as DISTILLATION
from workers.jobs.distillation import cancel_distillation
from workers.jobs.recipe.job import UNFINISHED as UNFINISHED_JOBS
from workers.jobs.recipe.job import cancel_recipe
from workers.jobs.refinement.job import STAGE as REFINEMENT
from workers.jobs.refinement.job import cancel_refinement
from workers.jobs.training import UNFINISHED, cancel_training
from workers.models import Job, Recipe, Run
from workers.runs.transitions import cancel_run, pause_run

KEPT_DAYS = 30


def archive_project(project: Project, *, by: Any = None) -> bool:
    """Hide the project from everybody at once, pause its runs and cancel its other work. False where it was archived.

    Calls in flight are still stored.
    """
    counts = count_project(project)  # takes seconds in a large project, and would keep the lock for as long
    with transaction.atomic():
        locked = Project.with_archived.select_for_update(of=("self",)).get(pk=project.pk)
        if locked.archived_at is not None:
            return False
        for recipe in Recipe.objects.filter(project=project, job__state__in=UNFINISHED_JOBS):
            cancel_recipe(recipe, by=by)
        for job in Job.objects.filter(
            project=project, stage=DISTILLATION, state__in=[Job.State.OPEN, Job.State.LEASED]
        ):
            cancel_distillation(job, by=by)
        for job in Job.objects.filter(project=project, stage=REFINEMENT, state__in=UNFINISHED_JOBS):
            cancel_refinement(job, by=by)
        for run in Run.objects.filter(project=project, state__in=Run.ACTIVE):
            pause_run(run, by=by)
        for training in TrainingRun.objects.filter(project=project, state__in=UNFINISHED):
            cancel_training(training, by=by)
        jobs.cancel_jobs(Job.objects.filter(project=project, run__isnull=True).exclude(stage=jobs.STAGE))
        audit.note("project.archived", project=locked, actor=by, subject=locked.slug, days=KEPT_DAYS, **counts)
        Project.with_archived.filter(pk=project.pk).update(archived_at=Now())
    project.archived_at = Project.with_archived.values_list("archived_at", flat=True).get(pk=project.pk)
    return True


def restore_project(project: Project, *, by: Any = None) -> None:
    """Show an archived project again. Its runs stay paused. Raises DeletionRefused where its purge was ordered."""
    with transaction.atomic():
        locked = _locked_archived(project)
        if _purges(locked).exists():
            raise DeletionRefused(f"project {locked.slug!r} is being purged; that cannot be undone")
        Project.with_archived.filter(pk=locked.pk).update(archived_at=None)
        audit.note("project.restored", project=locked, actor=by, subject=locked.slug)
    project.archived_at = None


def purge_project(project: Project, *, by: Any = None) -> Job:
    """Order the purge of an archived project, before its time where somebody says so. Raises DeletionRefused.

    Its runs are cancelled, and with them the batches at providers; the job waits until these have ended.
    """
    counts = count_project(project)
    with transaction.atomic():
        locked = _locked_archived(project)
        present = _purges(locked).first()
        if present is not None and present.state in (Job.State.OPEN, Job.State.LEASED):
            return present
        for run in Run.objects.filter(project=locked, state__in=[*Run.ACTIVE, Run.State.PAUSED]):
            cancel_run(run, by=by)
        payload = {"kind": jobs.PROJECT, "name": locked.slug}
        if present is not None:
            payload = {**present.payload, **payload}
        job = Job.objects.create(project=locked, stage=jobs.STAGE, payload=payload, total=sum(counts.values()))
        audit.note("project.purge_ordered", project=locked, actor=by, subject=locked.slug, job=job.pk, **counts)
    if not jobs.waits_for_batches(job):
        leave_hint("delete", job.pk)
    return job


def purged_at(project: Project) -> datetime | None:
    """When an archived project will be purged."""
    return None if project.archived_at is None else project.archived_at + timedelta(days=KEPT_DAYS)


def is_purging(project: Project) -> bool:
    """Whether the purge of an archived project was ordered."""
    return _purges(project).exists()


def purge_due() -> list[int]:
    """Order the purge of each project whose time has come, once; returns the jobs. A failed one waits for a person."""
    ordered = Job.objects.filter(project=OuterRef("pk"), stage=jobs.STAGE, payload__kind=jobs.PROJECT)
    due = Project.with_archived.filter(archived_at__lt=Now() - timedelta(days=KEPT_DAYS)).exclude(Exists(ordered))
    found = []
    for project in due.order_by("pk")[:10]:
        with contextlib.suppress(DeletionRefused):  # restored at this moment
            found.append(purge_project(project).pk)
    return found


def _purges(project: Project) -> Any:
    return Job.objects.filter(project=project, stage=jobs.STAGE, payload__kind=jobs.PROJECT).order_by("-id")


def _locked_archived(project: Project) -> Project:
    locked = Project.with_archived.select_for_update(of=("self",)).filter(pk=project.pk).first()
    if locked is None or locked.archived_at is None:
        raise DeletionRefused(f"project {project.slug!r} is not deleted; delete it first")
    return locked
