"""Pauses, resumes and cancels runs. `move` is the only way in which the state of a run changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from labeling import audit
from workers import failpoints
from workers.broker.hints import leave_hint
from workers.judging import queue
from workers.models import Job, Run


def pause_run(run: Run, *, by: Any = None) -> bool:
    """Stop handing out tasks; calls in flight are still stored. False where the run was not judging."""
    with transaction.atomic():
        return _move_noted(run, [Run.State.PLANNED, Run.State.JUDGING], Run.State.PAUSED, by=by)


def resume_run(run: Run, *, by: Any = None) -> bool:
    """Hand out tasks again. False where the run was not paused."""
    with transaction.atomic():
        moved = _move_noted(run, [Run.State.PAUSED], Run.State.JUDGING, by=by)
        if moved:
            transaction.on_commit(lambda: _hint_all(run))
    return moved


def _hint_all(run: Run) -> None:
    leave_hint("advance", run.pk)
    for annotator_id in run.judges.values_list("id", flat=True):
        leave_hint("judge", annotator_id)


def cancel_run(run: Run, *, by: Any = None) -> bool:
    """Cancel a run: open tasks are deleted, answers and costs stay. False where it had ended already."""
    with transaction.atomic():
        moved = _move_noted(run, [*Run.ACTIVE, Run.State.PAUSED], Run.State.CANCELLED, by=by)
        if moved:
            queue.drop_unfinished(run_id=run.pk)
            Job.objects.filter(run=run, state__in=[Job.State.OPEN, Job.State.LEASED]).update(
                state=Job.State.CANCELLED, lease_until=None, finished_at=Now()
            )
            run.refresh_from_db()
        failpoints.reach("cancel.before_commit")
    failpoints.reach("cancel.after_commit")
    return moved


def _move_noted(run: Run, before: Sequence[str], after: str, *, by: Any) -> bool:
    """As `move`, with an entry in the audit log."""
    was = run.state
    moved = move(run, before, after)
    if moved:
        done = "resumed" if after == Run.State.JUDGING else str(after)
        audit.note(f"run.{done}", project=run.project, actor=by, subject=f"run {run.pk}", before=str(was))
    return moved


def move(run: Run, before: Sequence[str], after: str, **changes: Any) -> bool:
    """Change the state if it is still one of `before`; exactly one caller succeeds."""
    if after in (Run.State.FINISHED, Run.State.CANCELLED, Run.State.FAILED):
        changes["finished_at"] = Now()
    moved = Run.objects.filter(pk=run.pk, state__in=before).update(state=after, **changes) == 1
    run.refresh_from_db()
    return moved
