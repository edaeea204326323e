"""Recomputes the prior, judge weights and calibration of a project when they are due, and orders calibration runs.

They are due when judgments have grown by half, a run has ended, or cross-query answers have arrived; the tables tell. One
rating worker does this besides refits, so every step is bounded and sends a hint for the rest. `scoring.project_fits` and
`scoring.calibration.calibrate` do the work.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection

from labeling.database import is_lost
from labeling.models import Annotator, Project
from scoring.calibration.calibrate import apply_calibration, fit_calibration
from scoring.project_fits import GROWTH, choose_project_fit
from scoring.rating import stale_query_ids
from workers.broker.hints import leave_hint
from workers.models import Job, Run
from workers.runs.ordering import RunRefused, start_run

log = logging.getLogger(__name__)

FIRST_JUDGMENTS = 200
SLICE_S = 3.0
CALIBRATION_PAUSE_S = 30.0  # between two calibrations while answers still arrive
FAILURE_PAUSE_S = 300.0
LONGEST_ERROR = 2000


@dataclass(frozen=True, slots=True)
class Due:
    """The steps that are due for a project: a new `choice` of prior and judge weights, a new `fit` of biases and relevance,
    and the `rest` of its scores that do not show the latest calibration yet.
    """

    project_id: int
    choice: bool
    fit: bool
    rest: bool


_DUE = """
WITH project AS (
    SELECT id, calibration_version FROM labeling_project
    WHERE archived_at IS NULL AND (%(project)s::bigint IS NULL OR id = %(project)s)
), fitted AS (
    SELECT query.project_id, sum(fit.judgments) AS judgments
    FROM scoring_queryfit fit JOIN labeling_query query ON query.id = fit.query_id
    WHERE query.project_id IN (SELECT id FROM project) GROUP BY 1
), state AS (
    SELECT project.id,
        fitted.judgments >= GREATEST(COALESCE(shared.judgments, 0) * %(growth)s, %(first)s)
            OR ended.at > COALESCE(shared.chosen_at, '-infinity') AS choice,
        shared.project_id IS NOT NULL AND (
            shared.calibrated_at IS NULL OR shared.calibrated_at < shared.chosen_at
            OR ended.at > shared.calibrated_at
            OR project.calibration_version > shared.calibrated_version
               AND shared.calibrated_at < clock_timestamp() - make_interval(secs => %(pause)s)) AS fit,
        EXISTS (SELECT 1 FROM scoring_queryfit fit JOIN labeling_query query ON query.id = fit.query_id
                WHERE query.project_id = project.id AND fit.calibration_id IS DISTINCT FROM latest.id) AS rest
    FROM project JOIN fitted ON fitted.project_id = project.id AND fitted.judgments > 0
    LEFT JOIN scoring_projectfit shared ON shared.project_id = project.id
    LEFT JOIN LATERAL (SELECT id FROM scoring_calibration calibration WHERE calibration.project_id = project.id
                       ORDER BY version DESC LIMIT 1) latest ON true
    LEFT JOIN LATERAL (SELECT max(finished_at) AS at FROM workers_run run
                       WHERE run.project_id = project.id AND run.state = 'finished') ended ON true
    WHERE NOT EXISTS (SELECT 1 FROM workers_job job WHERE job.project_id = project.id AND job.run_id IS NULL
                      AND job.stage = 'calibrate' AND job.state = 'failed'
                      AND job.finished_at > clock_timestamp() - make_interval(secs => %(failure)s))
)
SELECT id, COALESCE(choice, false), fit, rest FROM state WHERE choice OR fit OR rest ORDER BY id
"""


def whats_due(project_id: int | None = None) -> list[Due]:
    """The projects (or this one) with steps that are due; none for some minutes after a failure."""
    parameters = {
        "project": project_id,
        "growth": GROWTH,
        "first": FIRST_JUDGMENTS,
        "pause": CALIBRATION_PAUSE_S,
        "failure": FAILURE_PAUSE_S,
    }
    with connection.cursor() as cursor:
        cursor.execute(_DUE, parameters)
        return [Due(*row) for row in cursor.fetchall()]


def is_settled(run: Run) -> bool:
    """Whether a run has finished and its answers have entered the scores, the prior, the judges' weights and the calibration."""
    return run.state == Run.State.FINISHED and scores_are_settled(run.project_id)


def scores_are_settled(project_id: int) -> bool:
    """Whether all answers of a project have entered the scores, the prior, the judges' weights and the calibration."""
    return not whats_due(project_id) and not stale_query_ids(project_id, limit=1)


def due_project_ids() -> list[int]:
    """The ids of projects with a step that is due."""
    return [due.project_id for due in whats_due()]


def calibrate(project_id: int) -> None:
    """Do the steps that are due for a project, unless another process does; an error is stored as a failed job."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtext('zelo.calibrate'), %s)", [project_id])
        if not cursor.fetchone()[0]:
            return
    try:
        for due in whats_due(project_id):
            _do(due)
    except Exception as error:
        if is_lost(error):
            raise  # the database is unreachable; the reconciler tries again
        log.exception("project %d cannot be calibrated", project_id)
        _note_failure(project_id, error)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(hashtext('zelo.calibrate'), %s)", [project_id])


def _do(due: Due) -> None:
    """Choose, fit, rewrite. The fit of biases waits until every query is fitted with the new prior."""
    if due.choice:
        choose_project_fit(due.project_id)
    if _awaits_refit(due.project_id):
        leave_hint("rate", due.project_id)
        return
    if due.choice or due.fit:
        fit_calibration(due.project_id)
    if not apply_calibration(due.project_id, slice_s=SLICE_S):
        leave_hint("calibrate", due.project_id)


def _awaits_refit(project_id: int) -> bool:
    """Whether some query is still fitted with an older prior or other weights."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT 1 FROM scoring_queryfit fit JOIN labeling_query query ON query.id = fit.query_id "
            "JOIN scoring_projectfit shared ON shared.project_id = query.project_id "
            "WHERE query.project_id = %s AND fit.project_version < shared.version)",
            [project_id],
        )
        return bool(cursor.fetchone()[0])


def _note_failure(project_id: int, error: Exception) -> None:
    """Store the error as a failed job, which also delays the next try for some minutes."""
    reason = f"{type(error).__name__}: {error}".replace("\x00", " ")[:LONGEST_ERROR]
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO workers_job (project_id, stage, payload, state, fence, leased_by, attempts, done, total, "
            "message, error, finished_at) "
            "SELECT id, 'calibrate', '{}', 'failed', 0, '', 1, 0, 0, '', %s, clock_timestamp() "
            "FROM labeling_project WHERE id = %s",
            [reason, project_id],
        )
    Job.objects.filter(
        pk__in=Job.objects.filter(project_id=project_id, run=None, stage="calibrate", state=Job.State.FAILED)
        .order_by("-id")
        .values_list("pk", flat=True)[10:]
    ).delete()


def order_calibration(
    project: Project,
    *,
    judges: Sequence[Annotator] = (),
    by: Any = None,
    sampler_options: Mapping[str, Any] | None = None,
    query_ids: Sequence[int] | None = None,
    pair_budget: int | None = None,
    orders: str = Run.Orders.ONE,
    seed: int | None = None,
) -> Run:
    """Start a run on pairs across queries; the calibration follows its end. Without `judges`, the judges of the last run.
    Raises RunRefused, pydantic.ValidationError.
    """
    chosen = list(judges) or judges_so_far(project)
    if not chosen:
        raise RunRefused(f"project {project.slug!r} has no run yet; choose the judges of the calibration")
    return start_run(
        project,
        judges=chosen,
        by=by,
        sampler="cross-query",
        sampler_options=sampler_options,
        orders=orders,
        query_ids=query_ids,
        pair_budget=pair_budget,
        seed=seed,
    )


def judges_so_far(project: Project) -> list[Annotator]:
    """The judges of the project's last run within queries."""
    last = Run.objects.filter(project=project).exclude(sampler="cross-query").order_by("-id").first()
    if last is None:
        return []
    return list(last.judges.order_by("id"))
