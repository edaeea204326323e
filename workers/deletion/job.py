"""Deletion as a background job: in slices of one short transaction each, under a lease of `workers.jobs.leasing`.

`workers.deletion.orders` and `workers.deletion.projects` order the jobs. After a crash another worker walks again and
finds what is left; stored files and the names that it needs are in the payload, because their rows go first.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Q, QuerySet, Sum
from django.db.models.functions import Coalesce, Now

from labeling import audit
from labeling.judgments import raise_calibrations, raise_versions
from labeling.models import (
    Annotator,
    Candidate,
    Document,
    Judgment,
    ModelGrade,
    Pair,
    Project,
    Query,
    RaterGrade,
    SpotCheck,
)
from labeling.models.screen import ScreenState
from labeling.stored_texts import stored_text
from scoring.models import JudgeFit, ProjectFit, Snapshot
from scoring.project_fits import forget_project_fit
from scoring.storage.files import storage
from trainer.models import TrainingRun
from workers.broker.hints import leave_hint
from workers.deletion.grades import combine_the_rest, rater_grades
from workers.deletion.targets import Target, batches_out, own_snapshots, unmatched_grades
from workers.deletion.walk import Hook, Walk
from workers.jobs.leasing import (
    MOST_ATTEMPTS,
    JobClaim,
    LeaseLost,
    carry_out,
    hold,
    report_progress,
    waiting_job_ids,
)
from workers.models import Attempt, DeletedSpend, Job, JudgingTask, Run, Spend
from workers.stopping import is_stopping

STAGE = "deletion"
REPORT_S = 0.5
PROJECT = "project"
WAITS = stored_text("waits until its batches at the provider are cancelled: %(batches)s left")
DELETED = stored_text("%(name)s deleted: %(rows)s rows", one="%(name)s deleted: %(rows)s row", of="rows")
GIVEN_UP = f"the worker crashed {MOST_ATTEMPTS} times while deleting; see its log, then delete again: it continues"
FIGURES = ("calls", "input_tokens", "output_tokens", "cost_micros")


def waiting_deletion_ids() -> list[int]:
    """Jobs that wait for a worker: new ones, and those whose lease has run out; not those that wait for batches."""
    jobs = Job.objects.filter(pk__in=waiting_job_ids(STAGE)).order_by("pk")
    return [job.pk for job in jobs if not _batches(job.project_id, job.payload)]


def waits_for_batches(job: Job) -> bool:
    """Whether batches of the deleted runs are at their providers; the job's message says so then."""
    batches = _batches(job.project_id, job.payload)
    if batches:
        Job.objects.filter(pk=job.pk).update(message=WAITS % {"batches": batches})
        job.refresh_from_db()
    return bool(batches)


def _batches(project_id: int, payload: Mapping[str, Any]) -> int:
    """The number of the target's batches at providers: their answers are paid, and are stored first."""
    if payload["kind"] == PROJECT:
        return batches_out(Run.objects.filter(project=project_id)).count()
    return batches_out(Run.objects.filter(pk__in=payload["ids"])).count() if payload["kind"] == "run" else 0


def carry_out_deletion(job_id: int, *, worker: str = "") -> None:
    """Carry a job out unless another worker does; an error is stored in the job."""
    carry_out(job_id, STAGE, _delete, worker=worker, given_up=GIVEN_UP)


def cancel_jobs(jobs: QuerySet[Job]) -> None:
    """Cancel the unfinished ones of these jobs; their workers find the lease lost, and discard their results."""
    jobs.filter(state__in=[Job.State.OPEN, Job.State.LEASED]).update(
        state=Job.State.CANCELLED, lease_until=None, leased_by="", finished_at=Now()
    )


def _delete(claim: JobClaim) -> str:
    if _batches(claim.project_id, claim.payload):
        _release(claim, attempts=0)
        raise LeaseLost(f"job {claim.job_id} was released: it waits for batches")
    if claim.payload["kind"] == PROJECT:
        return _purge(claim)
    project = Project.with_archived.get(pk=claim.project_id)
    target = Target(claim.payload["kind"], project, tuple(claim.payload["ids"]), claim.payload["name"])
    walk = Walk(hooks=_hooks(target), progress=_progress(claim))
    _WALKS[target.kind](target, walk)
    _remove_files(claim.payload)
    _after(target)
    return str(DELETED % {"name": target.name, "rows": f"{walk.done:,}"})


def _progress(claim: JobClaim) -> Callable[[int], None]:
    """Reports progress twice a second. Raises LeaseLost where the job is no longer ours, or this worker is stopping."""
    before, total = Job.objects.values_list("done", "total").get(pk=claim.job_id)
    latest = [-math.inf]

    def report(done: int) -> None:
        if time.monotonic() < latest[0] + REPORT_S:
            return
        latest[0] = time.monotonic()
        report_progress(claim, before + done, max(total, before + done))
        Job.objects.filter(claim.held).update(attempts=1)  # the next worker has come further than before
        if is_stopping():
            _release(claim)
            raise LeaseLost(f"job {claim.job_id} was released: this worker is stopping")

    return report


def _release(claim: JobClaim, **changes: Any) -> None:
    Job.objects.filter(claim.held).update(state=Job.State.OPEN, lease_until=None, leased_by="", **changes)


# --- what happens to the rows that stay --------------------------------------------------


def _hooks(target: Target) -> Mapping[type[Any], Hook]:
    """Raise the versions of what is to be fitted again, in the transaction that deletes its evidence."""
    if target.kind == "run":
        return {Attempt: lambda ids: _keep_spend(target.project, ids)}
    if target.kind == "answers":
        return {Judgment: _touch_judged, RaterGrade: lambda ids: combine_the_rest(target.project, ids)}
    return {Judgment: _touch_judged, Candidate: lambda ids: _touch_candidates(target.project, ids)}


def _touch_judged(judgment_ids: Sequence[int]) -> None:
    pairs = dict(Judgment.objects.filter(pk__in=judgment_ids).values_list("pair_id", "pair__query_id"))
    with connection.cursor() as cursor:
        raise_versions(cursor, sorted(pair for pair, query in pairs.items() if query is not None))
        raise_calibrations(cursor, sorted(pair for pair, query in pairs.items() if query is None))


def _touch_candidates(project: Project, candidate_ids: Sequence[int]) -> None:
    """Other candidates of the query are fitted again; questions about a set with a deleted candidate are dropped."""
    queries = Candidate.objects.filter(pk__in=candidate_ids).values("query_id")
    for query in Query.objects.filter(pk__in=queries).order_by("pk").select_for_update(no_key=True):
        Query.objects.filter(pk=query.pk).update(judged_version=F("judged_version") + 1)
    JudgingTask.objects.filter(run__project=project, documents__overlap=list(candidate_ids)).delete()


def _keep_spend(project: Project, attempt_ids: Sequence[int]) -> None:
    """Delete the calls and move what they spent to the project's `DeletedSpend`: triggers lower the run's totals."""
    runs = list(Attempt.objects.filter(pk__in=attempt_ids).order_by().values_list("run_id", flat=True).distinct())
    before = _spent(runs)
    Attempt.objects.filter(pk__in=attempt_ids)._raw_delete(using="default")
    after = _spent(runs)
    DeletedSpend.objects.get_or_create(project=project)
    DeletedSpend.objects.filter(project=project).update(
        **{figure: F(figure) + before[figure] - after[figure] for figure in FIGURES}
    )


def _spent(run_ids: Sequence[int]) -> dict[str, int]:
    return Spend.objects.filter(run__in=run_ids).aggregate(**{figure: Coalesce(Sum(figure), 0) for figure in FIGURES})


def _after(target: Target) -> None:
    """Let the project's fits, counts and calibration follow what was deleted."""
    project = target.project
    if target.kind not in ("query", "document", "candidate", "answers"):
        return
    with transaction.atomic():
        if target.kind == "answers":  # the judges' weights may rest on these answers
            JudgeFit.objects.filter(annotator__in=target.ids).delete()
            forget_project_fit(Project, project.pk, project.rater)
        ProjectFit.objects.filter(project=project).update(judgments=0)  # the prior is chosen again
        Project.with_archived.filter(pk=project.pk).update(calibration_version=F("calibration_version") + 1)
        ScreenState.objects.filter(person__project=project).update(answers=None, passed=0)
    leave_hint("rate", project.pk)


# --- the walks ---------------------------------------------------------------------------


def _rows(target: Target, walk: Walk) -> None:
    walk.delete(target.rows)


def _queries(target: Target, walk: Walk) -> None:
    _unmatched(target, "query", walk)
    walk.delete(target.rows)


def _documents(target: Target, walk: Walk) -> None:
    _unmatched(target, "document", walk)
    walk.delete(target.rows)


def _unmatched(target: Target, path: str, walk: Walk) -> None:
    """Before the rows, whose imported ids it needs."""
    external_ids = list(target.rows.values_list("external_id", flat=True))
    walk.delete(unmatched_grades(target.project, path, external_ids))
    walk.delete(rater_grades(target.project, path, external_ids))


def _answers(target: Target, walk: Walk) -> None:
    """The judgments and grades of annotators, who stay. Answered assignments become free for others."""
    walk.delete(Judgment.objects.filter(annotator__in=target.ids))
    walk.delete(ModelGrade.objects.filter(annotator__in=target.ids))
    walk.delete(RaterGrade.objects.filter(annotator__in=target.ids))
    unanswered = SpotCheck.objects.filter(holder__in=target.ids, judgment__isnull=True, lease_until__isnull=True)
    walk.delete(unanswered.filter(slot__isnull=True))
    unanswered.update(holder=None, seconds=None, swapped=False)


_WALKS: Mapping[str, Callable[[Target, Walk], None]] = {
    "query": _queries,
    "document": _documents,
    "answers": _answers,
    "candidate": _rows,
    "run": _rows,
    "snapshot": _rows,
    "reranker": _rows,
}


def _purge(claim: JobClaim) -> str:
    """Delete an archived project; its own job goes last, with its row. What its payload names is found before."""
    project = Project.with_archived.get(pk=claim.project_id)
    payload = _with_files(claim, project)
    walk = Walk(progress=_progress(claim), kept={Job: [claim.job_id]})
    # Largest tables first, each through its own index; what refers to the project's own row goes last.
    walk.delete(Judgment.objects.filter(annotator__project=project))
    walk.delete(Pair.objects.filter(a__query__project=project))
    walk.delete(Query.objects.filter(project=project))
    walk.delete(Document.objects.filter(project=project))
    walk.delete(Run.objects.filter(project=project))
    walk.delete(Snapshot.objects.filter(pk__in=own_snapshots(project)))
    for model in (TrainingRun, Annotator):
        walk.delete(model._default_manager.filter(project=project))
    _remove_files(payload)
    _finish_purge(claim, project, walk)
    return str(DELETED % {"name": project.slug, "rows": f"{walk.done:,}"})


def _with_files(claim: JobClaim, project: Project) -> dict[str, Any]:
    """The payload with the storage folders and workspaces of the project, stored before their rows are deleted."""
    payload = dict(claim.payload)
    if "files" in payload:
        return payload
    snapshots = Snapshot.objects.filter(pk__in=own_snapshots(project))
    folders = [*snapshots.values_list("location", flat=True), *project.rerankers.values_list("location", flat=True)]
    trainings = TrainingRun.objects.filter(Q(project=project) | Q(snapshot__in=snapshots))
    payload["files"] = sorted({folder for folder in folders if folder})
    payload["workspaces"] = list(trainings.values_list("pk", flat=True))
    Job.objects.filter(claim.held).update(payload=payload)
    return payload


def _finish_purge(claim: JobClaim, project: Project, walk: Walk) -> None:
    """Delete what still refers to the project's row: settings, members, links; then the row, together with this job."""
    walk.delete_references(Project, [project.pk])
    with transaction.atomic():
        hold(claim)
        audit.note("project.purged", project=None, subject=project.slug, rows=walk.done)
        last = Walk()
        last.delete(Project.with_archived.filter(pk=project.pk))


def _remove_files(payload: Mapping[str, Any]) -> None:
    for folder in payload.get("files", []):
        storage().remove(folder)
    for run in payload.get("workspaces", []):
        shutil.rmtree(Path(settings.ZELO_HOME) / "training" / f"run-{int(run)}", ignore_errors=True)
