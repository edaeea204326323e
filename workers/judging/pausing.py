"""Pauses, resumes, retires and brings back judges. A paused judge gets no questions from `workers.judging.queue.claim`.

A person pauses one, `workers.judging.drift` one that became worse, `workers.judging.trouble` one whose answers fail.
A retired judge is paused permanently: it is not offered for new runs, its unfinished questions are dropped, and its answers remain.
"""

from __future__ import annotations

import logging
from typing import Any

from django.db import connection, transaction
from django.db.models.functions import Now

from labeling import audit
from labeling.models import Annotator
from labeling.stored_texts import stored_text
from workers.broker.hints import leave_hint
from workers.models import JudgeTrouble, JudgingTask, Run

log = logging.getLogger(__name__)

RETIRED = stored_text("retired")


class JudgeRetired(ValueError):
    """A retired judge cannot be asked."""

    def __init__(self, annotator: Annotator) -> None:
        super().__init__(f"judge {annotator.name!r} is retired; bring it back on the page Judges, or choose another")


def pause_judge(annotator: Annotator, reason: str, *, by: Any = None) -> bool:
    """Pause the judge and store the reason; False where it was paused already."""
    paused = Annotator.objects.judges().filter(pk=annotator.pk, paused_at__isnull=True)
    with transaction.atomic():
        changed = paused.update(paused_at=Now(), pause_reason=reason) == 1
        if changed:
            _note("judge.paused", annotator, by, reason=reason[:500])
    annotator.refresh_from_db()
    if changed:
        log.warning("judge %s of project %d is paused: %s", annotator.name, annotator.project_id, reason)
    return changed


def _note(action: str, annotator: Annotator, by: Any, **details: Any) -> None:
    audit.note(action, project=annotator.project, actor=by, subject=f"{annotator.name} ({annotator.pk})", **details)


def resume_judge(annotator: Annotator, *, by: Any = None, continues_runs: bool = True) -> bool:
    """Resume a paused judge; what watches it starts again with its next answers. False where it was not paused, or is retired.

    Runs that ended without the answers of a judge in trouble continue, if `continues_runs`.
    """
    paused = Annotator.objects.filter(pk=annotator.pk, paused_at__isnull=False, retired_at__isnull=True)
    with transaction.atomic():
        changed = paused.update(paused_at=None, pause_reason="", watched_from=Now()) == 1
        if changed:
            _end_trouble(annotator, continues_runs=continues_runs)
            _note("judge.resumed", annotator, by)
    annotator.refresh_from_db()
    if changed:
        leave_hint("judge", annotator.pk)
    return changed


def resume_troubled(annotator: Annotator, *, by: Any = None, continues_runs: bool = True) -> bool:
    """Resume a judge that is paused because its answers failed; one that is paused for another reason stays so.

    A new run does not continue earlier ones, which would spend under their own budgets: it takes over their open questions.
    """
    is_troubled = JudgeTrouble.objects.filter(annotator=annotator).exists()
    return is_troubled and resume_judge(annotator, by=by, continues_runs=continues_runs)


_REOPEN = """
UPDATE workers_run SET state = 'judging', reason = '', is_unanswered = FALSE, finished_at = NULL
WHERE id IN (
    SELECT run.id FROM workers_run run WHERE run.is_unanswered AND EXISTS (
        SELECT 1 FROM workers_judgingtask task
        WHERE task.run_id = run.id AND task.annotator_id = %s AND task.state = 'open')
    ORDER BY run.id FOR NO KEY UPDATE OF run
)
RETURNING id
"""


def _end_trouble(annotator: Annotator, *, continues_runs: bool) -> None:
    """Forget the trouble of a judge that is resumed; reopen the runs that ended without its answers, if they continue."""
    JudgeTrouble.objects.filter(annotator=annotator).delete()
    if not continues_runs:
        return
    with connection.cursor() as cursor:
        cursor.execute(_REOPEN, [annotator.pk])
        reopened = [row[0] for row in cursor.fetchall()]
    for run_id in reopened:
        transaction.on_commit(lambda run_id=run_id: leave_hint("advance", run_id))  # type: ignore[misc]


def retire_judge(annotator: Annotator, *, by: Any = None) -> bool:
    """Retire a judge. Calls in flight are still stored. False where it was retired already."""
    judges = Annotator.objects.offered().filter(pk=annotator.pk)
    with transaction.atomic():
        changed = judges.update(retired_at=Now(), paused_at=Now(), pause_reason=RETIRED % {}) == 1
        if changed:
            JudgeTrouble.objects.filter(annotator=annotator).delete()
            JudgingTask.objects.filter(annotator=annotator).exclude(state=JudgingTask.State.LEASED).delete()
            _note("judge.retired", annotator, by)
    annotator.refresh_from_db()
    return changed


def restore_judge(annotator: Annotator, *, by: Any = None) -> bool:
    """Bring a retired judge back, so that it is offered for runs and gets questions. False where it was not retired."""
    retired = Annotator.objects.filter(pk=annotator.pk, retired_at__isnull=False)
    with transaction.atomic():
        changed = retired.update(retired_at=None, paused_at=None, pause_reason="", watched_from=Now()) == 1
        if changed:
            _note("judge.restored", annotator, by)
    annotator.refresh_from_db()
    return changed


def retired_judges(run: Run) -> list[int]:
    """The run's judges that are retired, by id."""
    return list(run.judges.filter(retired_at__isnull=False).order_by("pk").values_list("pk", flat=True))
