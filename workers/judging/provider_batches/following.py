"""Follows one batch: upload, create, poll, cancel, download. A process may be killed between any two lines.

Before a request that must not be made twice, its intention is committed (`intended_at`). Whoever finds an intention looks
for the file or batch at the provider, by our marker, before the request is made again; and waits first, so that a
request on its way has arrived. The fence lets a process that lost its database connection change nothing afterwards.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.db.models import DateTimeField, ExpressionWrapper, F, Q
from django.db.models.functions import Now

from labeling.models import Annotator
from labeling.records import Failure, FailureKind
from workers import failpoints
from workers.endpoints.batching import BatchApi, BatchCallFailed, BatchingJudge, RemoteBatch
from workers.endpoints.failures import Excused
from workers.endpoints.registry import get_endpoint
from workers.judging import queue
from workers.judging.provider_batches import storing
from workers.judging.provider_batches.forming import READ_AT_ONCE, read_questions, request_line
from workers.models import ProviderBatch, Run
from workers.stopping import is_stopping

log = logging.getLogger(__name__)
State = ProviderBatch.State

FIRST_POLL_S, LONGEST_POLL_S, POLLS_OF_AGE = 5.0, 600.0, 0.05
LONGEST_RETRY_S = 900.0
LONGEST_MESSAGE = 2000
# The slowest upload that is waited for; its time is by its size.
BYTES_A_SECOND = 250_000
# The window that a batch is created with, and how much longer it is waited for before it is cancelled.
WINDOW_S, MARGIN_S = 86_400.0, 7_200.0
# The time that a cancelled batch may take to end before its available results are taken.
CANCELLED_WITHIN_S = 1_800.0
# The number of times that a completed batch without all answers is read again before the missing ones fail.
MOST_SHORT_READS = 6
# Statuses for cancelling a batch that has ended or is being cancelled already.
ALREADY_OVER = {400, 404, 409}
# A batch that its provider does not know is given up after so many polls.
MOST_MISSING = 5


class Superseded(RuntimeError):
    """Another process follows the batch by now."""


def due_batches(annotator: Annotator | None = None) -> Any:
    """Batches that are out and whose next step is due, oldest first."""
    unwanted = Q(cancel_sent_at__isnull=True, state__in=[State.UPLOADING, State.CREATING, State.RUNNING], tries=0) & (
        Q(cancel_asked_at__isnull=False) | Q(run__state__in=[Run.State.CANCELLED, Run.State.FAILED])
    )
    due = ProviderBatch.objects.filter(Q(next_at__lte=Now()) | unwanted, state__in=ProviderBatch.OUT).order_by("id")
    return due if annotator is None else due.filter(annotator=annotator)


def follow(batch: ProviderBatch, annotator: Annotator, judge: BatchingJudge) -> None:
    """Take all steps of this batch that are due. Raises django.db.Error; every other error waits for the next try."""
    _, _, limits, api = judge.batch_channel()
    step = _Step(batch, annotator, judge, api, limits.poll_s)
    try:
        step.begin()
        while not is_stopping() and step.take():
            pass
    except Superseded:
        log.warning("another process polls batch %s", batch.marker)


class _Step:
    """The next steps of one batch, as the holder of its fence."""

    def __init__(
        self, batch: ProviderBatch, annotator: Annotator, judge: BatchingJudge, api: BatchApi, poll_s: float
    ) -> None:
        self.batch, self.annotator, self.judge, self.api, self.poll_s = batch, annotator, judge, api, poll_s
        self.is_posting = False  # whether the call that is being made is the intended one

    def begin(self) -> None:
        """Take the fence."""
        ProviderBatch.objects.filter(pk=self.batch.pk).update(fence=F("fence") + 1)
        self.batch.refresh_from_db()

    def take(self) -> bool:
        """One step; False where the next one has to wait, or there is none."""
        steps: dict[str, Callable[[], bool]] = {
            State.UPLOADING: self._upload,
            State.CREATING: self._create,
            State.RUNNING: self._poll,
            State.STORING: self._store,
        }
        step = steps.get(self.batch.state)
        if step is None:
            return False
        try:
            return step()
        except BatchCallFailed as error:
            return self._failed(error)

    # --- steps ---------------------------------------------------------------------------

    def _upload(self) -> bool:
        batch = self.batch
        if batch.intended_at is not None:
            if self._is_too_early(self._upload_s()):
                return False
            found = self.api.find_file(batch.file_name)
            if found:
                return self._note(state=State.CREATING, file_id=found, intended_at=None)
        if self._is_unwanted():
            return self._end(State.CANCELLED)
        with tempfile.TemporaryFile() as content:
            if not self._write(content):
                return self._end(State.FAILED, message="none of its questions could be read")
            self._intend()
            failpoints.reach("batch.before_upload")
            content.seek(0)
            file_id = self.api.upload(batch.file_name, content, timeout_s=self._upload_s())
        failpoints.reach("batch.uploaded")
        self._note(state=State.CREATING, file_id=file_id, intended_at=None)
        failpoints.reach("batch.upload_noted")
        return True

    def _upload_s(self) -> float:
        return self.poll_s + self.batch.size / BYTES_A_SECOND

    def _write(self, content: Any) -> int:
        """Write the file of its questions; returns how many there are. Those that cannot be read fail."""
        url, lines = get_endpoint(self.batch.endpoint).batch_url, 0
        tasks = storing.tasks_of(self.batch)
        for start in range(0, len(tasks), READ_AT_ONCE):
            for task, comparison in read_questions(self.annotator, tasks[start : start + READ_AT_ONCE]):
                if isinstance(comparison, Failure):
                    queue.fail([(task, comparison)])
                    continue
                content.write(request_line(task, url, self.judge.batch_question(comparison).body))
                lines += 1
        return lines

    def _create(self) -> bool:
        batch, timeout_s = self.batch, self.poll_s
        if batch.intended_at is not None:
            if self._is_too_early(timeout_s):
                return False
            found = self.api.find_batch(str(batch.marker), batch.file_id)
            if found is not None:
                return self._note_created(found)
        if self._is_unwanted():
            return self._end(State.CANCELLED)
        self._intend()
        failpoints.reach("batch.before_create")
        created = self.api.create(batch.file_id, str(batch.marker), timeout_s=timeout_s)
        failpoints.reach("batch.created")
        self._note_created(created)
        failpoints.reach("batch.create_noted")
        return True

    def _note_created(self, remote: RemoteBatch) -> bool:
        """Note its id; the first poll comes soon, because small batches and refusals take seconds."""
        return self._note(
            state=State.RUNNING, batch_id=remote.id, intended_at=None, sent_at=Now(), provider_status=remote.status,
            next_at=_later(min(self.poll_s, FIRST_POLL_S)),
        )  # fmt: skip

    def _poll(self) -> bool:
        batch = self.batch
        is_overdue = self._is_older("sent_at", WINDOW_S + MARGIN_S)
        if (self._is_unwanted() or is_overdue) and batch.cancel_sent_at is None:
            self._cancel()
        elif not ProviderBatch.objects.filter(pk=batch.pk, next_at__lte=Now()).exists():
            return False
        remote = self.api.retrieve(batch.batch_id)
        self._note(provider_status=remote.status, completed=remote.completed, failed=remote.failed, message="", tries=0)
        if not remote.is_over and not (is_overdue and self._is_older("cancel_sent_at", CANCELLED_WITHIN_S)):
            self._note(next_at=_later(self._wait_s()))
            return False
        if remote.status == "failed" and not remote.output_file_id and not remote.error_file_id:
            return storing.refuse(batch, remote, self._ends, self.api)
        self._note(
            state=State.STORING, output_file_id=remote.output_file_id, error_file_id=remote.error_file_id, next_at=Now()
        )
        failpoints.reach("batch.end_noted")
        return True

    def _is_older(self, field: str, seconds: float) -> bool:
        """Whether the time in this column is so long ago, by the database's clock."""
        then = {"pk": self.batch.pk, f"{field}__lte": Now() - timedelta(seconds=seconds)}
        return ProviderBatch.objects.filter(**then).exists()

    def _wait_s(self) -> float:
        """Seconds until the next poll: the longer a batch is out, the rarer."""
        if self.batch.cancel_sent_at is not None:
            return min(self.poll_s, FIRST_POLL_S)
        out = ProviderBatch.objects.filter(pk=self.batch.pk).values_list(Now() - F("created_at"), flat=True).get()
        return min(max(self.poll_s, LONGEST_POLL_S), max(self.poll_s, POLLS_OF_AGE * out.total_seconds()))

    def _cancel(self) -> None:
        try:
            self.api.cancel(self.batch.batch_id)
        except BatchCallFailed as error:
            if error.status not in ALREADY_OVER:
                raise
            log.info("batch %s was over before it could be cancelled: %s", self.batch.batch_id, error)
        failpoints.reach("batch.cancel_sent")
        self._note(cancel_sent_at=Now())

    def _store(self) -> bool:
        if self.batch.short_reads:
            remote = self.api.retrieve(self.batch.batch_id)  # its result files may have come meanwhile
            files = {"output_file_id": remote.output_file_id, "error_file_id": remote.error_file_id}
            self._note(completed=remote.completed, failed=remote.failed, **{k: v for k, v in files.items() if v})
        read = storing.store(self.batch, self.annotator, self.judge, self.api)
        ends = {
            "completed": State.COMPLETED, "expired": State.EXPIRED, "cancelled": State.CANCELLED, "failed": State.FAILED
        }  # fmt: skip
        state = ends.get(self.batch.provider_status)
        if state == State.COMPLETED and self._is_short(read):
            return False
        if state is None:  # it never ended, and may be paid for all the same
            message = (
                f"the provider did not end the batch within {(WINDOW_S + MARGIN_S) / 3600:.0f} h; it was cancelled"
            )
            failure = Excused(FailureKind.UNAVAILABLE, message, retryable=True)
            self._end(State.EXPIRED, failure=failure, is_paid=True, message=message)
        else:
            self._end(state)
        self._delete_file()
        return False

    def _is_short(self, read: int) -> bool:
        """Whether a completed batch came without a file, or with fewer lines than it counts; then it is read again later.

        The questions without an answer were paid, and are not retried before that. The last read counts as it is.
        """
        batch = self.batch
        left = len(storing.tasks_of(batch))
        counted = batch.completed + batch.failed
        is_whole = bool(batch.output_file_id or batch.error_file_id) and read >= counted > 0
        if not left or is_whole or batch.short_reads >= MOST_SHORT_READS:
            return False
        wait_s = min(LONGEST_RETRY_S, self.poll_s * 2**batch.short_reads)
        message = f"the provider reports the batch as completed, but {left} of {batch.requests} answers are missing; reading again"
        self._note(short_reads=batch.short_reads + 1, message=message, next_at=_later(wait_s))
        log.warning("batch %s: %s in %.0f s", batch.marker, message, wait_s)
        return True

    # --- ends and errors -----------------------------------------------------------------

    def _end(self, state: str, **changes: Any) -> bool:
        """End the batch; its unanswered questions are free again, or have failed where they may have been paid."""
        storing.end(self.batch, self._ends, state, **changes)
        if self.batch.state != State.COMPLETED and not self.batch.batch_id:
            self._delete_file()
        return False

    def _ends(self, state: str, **changes: Any) -> None:
        """Write the end; called inside the transaction that settles its questions."""
        self._note(state=state, finished_at=Now(), intended_at=None, **changes)

    def _failed(self, error: BatchCallFailed) -> bool:
        """Wait after an error, or end the batch where no retry helps."""
        batch = self.batch
        # A definite refusal of the intended call clears the intention: the provider has done nothing.
        is_cleared = self.is_posting and not error.is_unknown
        self.is_posting = False
        fate: dict[str, Any] = {"intended_at": None} if is_cleared else {}
        tries = batch.tries + 1
        message = str(error)[:LONGEST_MESSAGE]
        if is_cleared and storing.is_too_large(error.code, str(error), error.status):
            storing.end(batch, self._ends, State.FAILED, is_over_limit=True, message=message)
            return False
        is_missing = error.status in {404, 410} and batch.state in (State.RUNNING, State.STORING)
        # Reading is free, and the provider works on whatever a gateway answers meanwhile: only a lost batch is given up.
        is_out = batch.state in (State.RUNNING, State.STORING)
        if is_out and self._is_older("sent_at", WINDOW_S + 2 * MARGIN_S):
            message = f"the batch is overdue, and cannot be read: {message}"[:LONGEST_MESSAGE]
            overdue = Excused(FailureKind.UNAVAILABLE, message, retryable=True)
            storing.end(batch, self._ends, State.EXPIRED, failure=overdue, is_paid=True, message=message)
            return False
        if error.retryable or (is_out and not is_missing) or (is_missing and tries < MOST_MISSING):
            wait_s = max(error.retry_after_s or 0.0, min(LONGEST_RETRY_S, self.poll_s * 2 ** min(tries - 1, 10)))
            self._note(tries=tries, message=message, next_at=_later(wait_s), **fate)
            log.warning("batch %s waits %.0f s: %s", batch.marker, wait_s, message)
            return False
        kind = FailureKind.UNAVAILABLE if is_missing else FailureKind.BAD_REQUEST
        is_unclear = batch.state == State.CREATING and batch.intended_at is not None and not is_cleared
        may_be_paid = batch.state in (State.RUNNING, State.STORING) or is_unclear
        # A batch that its provider has lost says nothing of the judge.
        failure = (Excused if is_missing else Failure)(kind, message, retryable=is_missing)
        storing.end(batch, self._ends, State.FAILED, failure=failure, is_paid=may_be_paid, message=message)
        return False

    def _delete_file(self) -> None:
        """Delete the uploaded questions; where that fails they stay at the provider, at no cost."""
        if self.batch.file_id:
            try:
                self.api.delete_file(self.batch.file_id)
            except BatchCallFailed as error:
                log.info("file %s could not be deleted at the provider: %s", self.batch.file_id, error)

    def _is_unwanted(self) -> bool:
        ended = [Run.State.CANCELLED, Run.State.FAILED]
        return (
            self.batch.cancel_asked_at is not None or Run.objects.filter(pk=self.batch.run_id, state__in=ended).exists()
        )

    def _is_too_early(self, after_s: float) -> bool:
        """Whether the intended request may still be on its way."""
        waited = ProviderBatch.objects.filter(
            pk=self.batch.pk, intended_at__lte=Now() - timedelta(seconds=after_s)
        ).exists()
        if not waited:
            self._note(next_at=ExpressionWrapper(F("intended_at") + timedelta(seconds=after_s), DateTimeField()))
        return not waited

    def _intend(self) -> None:
        """Commit the intention to make a request that must not be made twice."""
        self._note(intended_at=Now())
        self.is_posting = True

    def _note(self, **changes: Any) -> bool:
        """Commit changes of the row under its fence; True. Raises Superseded."""
        if "state" in changes:
            self.is_posting = False
            changes = {"tries": 0, "message": "", "next_at": Now(), **changes}
        if not ProviderBatch.objects.filter(pk=self.batch.pk, fence=self.batch.fence).update(**changes):
            raise Superseded(str(self.batch.marker))
        self.batch.refresh_from_db()
        return True


def _later(seconds: float) -> Any:
    return Now() + timedelta(seconds=seconds)
