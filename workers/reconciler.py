"""Finds work without a hint: after a lost message, a crashed worker, or a broker that was down or wiped.

One process per database acts at a time, under an advisory lock. While the broker is down it fits scores itself, so that
they stay up to date; judging waits for the broker.
"""

from __future__ import annotations

import logging
import threading

from django.db import connection
from django.utils import timezone

from scoring.rating import rate_stale, stale_project_ids
from trainer.deployments import request_log
from workers.archives import data_files
from workers.archives import importing as archives
from workers.broker.client import broker_answers
from workers.broker.hints import leave_hint
from workers.deletion import job as deletion
from workers.deletion import projects as archived_projects
from workers.deletion import retention
from workers.jobs import (
    calibration,
    candidates,
    distillation,
    evaluation,
    injection_probe,
    storage_cleanup,
    training,
    trial,
)
from workers.jobs.recipe import job as recipe
from workers.jobs.refinement import job as refinement
from workers.jobs.teaching import job as teaching
from workers.judging import queue, recorder
from workers.judging.provider_batches import delivery
from workers.runs import advancing
from workers.webhooks import delivery as webhooks

log = logging.getLogger(__name__)

PAUSE_S = 2.0
RATING_SLICE_S = 2.0
_night = retention.Night()


def reconcile_once() -> None:
    """Look at the tables once: reap leases and send hints; fit scores here while the broker is down."""
    recorder.recover()  # before leases end, so that no paid question is asked twice
    storage_cleanup.collect_unfinished()
    _prune()
    reaped = queue.reap()
    if reaped:
        log.warning("%d leases ran out and were opened again", reaped)
    if not broker_answers():
        rate_without_broker()
        return
    for annotator_id, _ in queue.open_tasks_by_annotator():
        leave_hint("judge", annotator_id)
    for annotator_id in delivery.judges_with_due_batches():
        leave_hint("judge", annotator_id)
    for project_id in stale_project_ids():
        leave_hint("rate", project_id)
    for project_id in calibration.due_project_ids():
        leave_hint("calibrate", project_id)
    for run_id in advancing.active_run_ids():
        leave_hint("advance", run_id)
    for job_id in injection_probe.waiting_probe_ids():
        leave_hint("probe", job_id)
    for job_id in trial.waiting_trial_ids():
        leave_hint("trial", job_id)
    for job_id in teaching.waiting_teaching_ids():
        leave_hint("teach", job_id)
    for job_id in candidates.waiting_fill_ids():
        leave_hint("fill", job_id)
    for job_id in evaluation.waiting_evaluation_ids():
        leave_hint("evaluate", job_id)
    training.end_failed_runs()
    for job_id in training.waiting_training_ids():
        leave_hint("train", job_id)
    for job_id in distillation.waiting_distillation_ids():
        leave_hint("distill", job_id)
    for job_id in refinement.waiting_refinement_ids():
        leave_hint("refine", job_id)
    for job_id in recipe.waiting_recipe_ids():
        leave_hint("recipe", job_id)
    archived_projects.purge_due()
    request_log.purge_due()
    for job_id in deletion.waiting_deletion_ids():
        leave_hint("delete", job_id)
    for job_id in archives.waiting_archive_ids():
        leave_hint("unpack", job_id)
    for job_id in data_files.waiting_import_ids():
        leave_hint("load", job_id)
    for webhook_id in webhooks.due_webhook_ids():
        leave_hint("deliver", webhook_id)


def _prune() -> None:
    pruned = _night.look(timezone.now())
    if pruned is not None and pruned.rows:
        log.info("old rows deleted: %s", ", ".join(f"{rows} {kind}" for kind, rows in pruned.rows.items()))


def rate_without_broker() -> None:
    """Fit stale queries in this process, some time for each project, so that a large one does not block the others."""
    for project_id in stale_project_ids():
        rated = rate_stale(project_id, slice_s=RATING_SLICE_S)
        log.warning("the broker is down: rated %d queries of project %d here", rated.queries, project_id)


def run_reconciler(stop: threading.Event, pause_s: float = PAUSE_S) -> None:
    """Reconcile until `stop` is set, with a pause of seconds between two looks; a second process waits until the first has ended."""
    while not stop.is_set():
        try:
            if _leads():
                reconcile_once()
        except Exception:  # the database may be restarting; the next round looks at everything again
            log.exception("reconciling failed; retrying")
            connection.close()
        stop.wait(pause_s)


def _leads() -> bool:
    """Whether this process holds the lock of the acting reconciler, or gets it now; it lasts as long as the connection."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() "
            "AND objid = (hashtext('zelo.reconciler')::bigint & 4294967295)::oid) "
            "OR pg_try_advisory_lock(0, hashtext('zelo.reconciler'))"
        )
        return bool(cursor.fetchone()[0])
