"""Carries out the work of one judge whose questions go out in batches: forms what is due, and follows what is out.

`workers.judging.batches` calls it for such a judge instead of asking; one process at a time does, under an advisory lock.
Pages, REST and commands call `ask_to_cancel`.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from django.db import Error, connection, transaction
from django.db.models.functions import Now

from labeling import audit
from labeling.models import Annotator
from labeling.records import Failure, FailureKind
from workers.broker.hints import leave_hint
from workers.endpoints.batching import BatchingJudge
from workers.judging import queue
from workers.judging.provider_batches.following import due_batches, follow
from workers.judging.provider_batches.forming import form
from workers.models import ProviderBatch
from workers.stopping import is_stopping

log = logging.getLogger(__name__)

REFUSED_AT_ONCE = 1000


class BatchIsOver(ValueError):
    """The batch has ended, so it cannot be cancelled."""


def deliver(annotator: Annotator, judge: BatchingJudge, *, worker: str) -> int:
    """Follow the batches of this judge that are due, and form new ones; returns how many questions were answered."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtext('zelo.batches'), %s)", [annotator.pk])
        if not cursor.fetchone()[0]:
            return 0
    try:
        return _deliver(annotator, judge, worker)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(hashtext('zelo.batches'), %s)", [annotator.pk])


def _deliver(annotator: Annotator, judge: BatchingJudge, worker: str) -> int:
    try:
        judge.batch_channel()
    except (LookupError, ValueError) as error:
        _refuse_all(annotator, worker, str(error))
        return 0
    answered = 0
    for batch in [*due_batches(annotator), *form(annotator, judge)]:
        if is_stopping():
            break
        answered += _follow(batch, annotator, judge)
    return answered


def _follow(batch: ProviderBatch, annotator: Annotator, judge: BatchingJudge) -> int:
    """Follow one batch; an error of one never keeps the others waiting."""
    before = batch.answered
    try:
        follow(batch, annotator, judge)
    except Error:
        raise
    except Exception:
        log.exception("batch %s could not be polled; retrying", batch.marker)
        ProviderBatch.objects.filter(pk=batch.pk).update(next_at=_in_a_minute())
    batch.refresh_from_db()
    if batch.state in ProviderBatch.OVER:
        leave_hint("advance", batch.run_id)
        leave_hint("judge", batch.annotator_id)
    return batch.answered - before


def _in_a_minute() -> Any:
    return Now() + timedelta(minutes=1)


def _refuse_all(annotator: Annotator, worker: str, message: str) -> None:
    """Fail the open questions of a judge whose endpoint cannot be called, as `openai-http` does."""
    failure = Failure(FailureKind.BAD_REQUEST, message, retryable=False)
    while tasks := queue.claim(annotator_id=annotator.pk, worker=worker, limit=REFUSED_AT_ONCE):
        queue.fail([(task, failure) for task in tasks])


def judges_with_due_batches() -> list[int]:
    """The judges with a batch whose next step is due."""
    return list(due_batches().order_by().values_list("annotator_id", flat=True).distinct())


def ask_to_cancel(batch: ProviderBatch, *, by: Any = None) -> ProviderBatch:
    """Cancel a batch at its provider. Answers that it has already given are kept; the other questions return to the queue.

    Raises BatchIsOver.
    """
    with transaction.atomic():
        open_ = ProviderBatch.objects.filter(pk=batch.pk, state__in=ProviderBatch.OUT)
        if not open_.exists():
            raise BatchIsOver(f"batch {batch.pk} is over; its unanswered questions are in the queue already")
        if open_.filter(cancel_asked_at__isnull=True).update(cancel_asked_at=Now()):
            audit.note(
                "batch.cancelled",
                project=batch.run.project,
                actor=by,
                subject=f"batch {batch.pk}",
                questions=batch.requests,
                judge=batch.annotator.name,
            )
            transaction.on_commit(lambda: leave_hint("judge", batch.annotator_id))
    batch.refresh_from_db()
    return batch
