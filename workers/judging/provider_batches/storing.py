"""Stores what came back of a batch: answers in any order, failures, and what to do with the questions without either.

Each chunk of a result file is one transaction that locks its tasks first and takes only those that the batch still holds.
So a file may be read any number of times, and its lines may be doubled: each question is settled once.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from django.db import connection, transaction
from django.db.models import F

from labeling.models import Annotator
from labeling.records import Comparison, Failure, FailureKind, Usage, Verdict
from workers import failpoints
from workers.endpoints.batching import BatchApi, BatchCallFailed, BatchingJudge, BatchLine, RemoteBatch
from workers.endpoints.failures import NotAsked
from workers.judging import queue
from workers.judging.provider_batches.forming import custom_id, read_questions
from workers.judging.queue import ClaimedTask
from workers.models import Attempt, ProviderBatch

log = logging.getLogger(__name__)

STORED_AT_ONCE = 500
State = ProviderBatch.State
End = Callable[..., None]

_TOO_LARGE = re.compile(
    r"token_limit_exceeded|enqueued[_ ]token|token limit|too many (?:requests|lines) in|(?:file|batch) (?:is )?too large|"
    r"exceeds the maximum (?:file|batch|number)|request_limit_exceeded|file_size",
    re.IGNORECASE,
)


def is_too_large(code: str, message: str, status: int = 0) -> bool:
    """Whether a provider refused a batch for its size, or for how much of ours is out there."""
    return status == 413 or bool(_TOO_LARGE.search(f"{code} {message}"))


_NAME = re.compile(r"\b\d+-\d+\b")

_TASKS = """
SELECT id, fence, attempts, run_id, pair_id, annotator_id, swapped, documents FROM workers_judgingtask
WHERE state = 'leased' AND run_id = %(run)s AND annotator_id = %(annotator)s AND leased_by = %(holder)s
  AND (%(ids)s::bigint[] IS NULL OR id = ANY(%(ids)s)) ORDER BY id
"""


def tasks_of(batch: ProviderBatch, ids: Sequence[int] | None = None, *, lock: bool = False) -> list[ClaimedTask]:
    """The tasks (or those of them with these ids) that the batch still holds, in id order."""
    values: dict[str, Any] = {
        "run": batch.run_id,
        "annotator": batch.annotator_id,
        "holder": batch.holder,
        "ids": None if ids is None else list(ids),
    }
    with connection.cursor() as cursor:
        cursor.execute(_TASKS + ("FOR UPDATE" if lock else ""), values)
        return [ClaimedTask.of(row) for row in cursor.fetchall()]


def store(batch: ProviderBatch, annotator: Annotator, judge: BatchingJudge, api: BatchApi) -> int:
    """Store the lines of both result files; returns how many different questions they name, with those that cannot be read.

    Safe to repeat. Raises BatchCallFailed.
    """
    seen: set[str] = set()
    broken = 0
    for file_id in dict.fromkeys([batch.output_file_id, batch.error_file_id]):
        if file_id:
            unreadable = 0
            for lines in _chunks(api.lines(file_id)):
                unreadable += sum(line is None for line in lines)
                seen |= {line.custom_id for line in lines if line is not None}
                _store_lines(batch, annotator, judge, [line for line in lines if line is not None])
            if unreadable:
                log.error("%d lines of file %s of batch %s cannot be read", unreadable, file_id, batch.batch_id)
                broken += unreadable
    return len(seen) + broken


def _chunks(lines: Iterator[BatchLine | None]) -> Iterator[list[BatchLine | None]]:
    while chunk := list(itertools.islice(lines, STORED_AT_ONCE)):
        yield chunk


def _store_lines(batch: ProviderBatch, annotator: Annotator, judge: BatchingJudge, lines: Sequence[BatchLine]) -> None:
    """Settle the questions of these lines that the batch still holds; the first line of a question counts."""
    by_id: dict[str, BatchLine] = {}
    for line in lines:
        if not line.is_unprocessed:
            by_id.setdefault(line.custom_id, line)
    tasks = [task for task in tasks_of(batch, _task_ids(by_id)) if custom_id(task) in by_id]
    answers: dict[int, Verdict | Failure] = {}
    for task, comparison in read_questions(annotator, tasks):
        answers[task.id] = (
            comparison if isinstance(comparison, Failure) else _answer(judge, comparison, by_id[custom_id(task)])
        )
    if not answers:
        return
    with transaction.atomic():
        held = tasks_of(batch, list(answers), lock=True)
        given = [(task, answers[task.id]) for task in held]
        verdicts = [(task, answer) for task, answer in given if isinstance(answer, Verdict)]
        unasked = [task for task, answer in given if isinstance(answer, NotAsked)]
        failures = [
            (task, answer) for task, answer in given if isinstance(answer, Failure) and not isinstance(answer, NotAsked)
        ]
        queue.finish(verdicts)
        queue.fail(failures)
        if unasked:
            queue.release(unasked)
        _count(batch, answered=len(verdicts), unanswered=len(failures), returned=len(unasked))
        failpoints.reach("batch.before_stored")
    failpoints.reach("batch.stored")


def _answer(judge: BatchingJudge, comparison: Comparison, line: BatchLine) -> Verdict | Failure:
    """The answer in the line. An error of the judge fails this question alone."""
    try:
        return judge.batch_answer(comparison, line)
    except Exception as error:
        log.exception("the answer to question %d cannot be read", comparison.key)
        return Failure(FailureKind.JUDGE_ERROR, f"{type(error).__name__}: {error}", retryable=False)


def _task_ids(custom_ids: Sequence[str] | dict[str, BatchLine]) -> list[int]:
    """The tasks that are named; other people's names and nonsense are skipped."""
    heads = (name.partition("-")[0] for name in custom_ids)
    return [int(head) for head in heads if head.isascii() and head.isdigit() and len(head) < 19]


def _count(batch: ProviderBatch, **more: int) -> None:
    ProviderBatch.objects.filter(pk=batch.pk).update(**{name: F(name) + number for name, number in more.items()})


# --- ends ----------------------------------------------------------------------------------


def end(
    batch: ProviderBatch,
    ends: End,
    state: str,
    *,
    failure: Failure | None = None,
    failures: dict[int, Failure] | None = None,
    is_paid: bool = False,
    **changes: object,
) -> None:
    """End the batch, and settle what it still holds, in one transaction.

    Without a `failure` the questions return to the queue and cost nothing; those of a completed batch, which its provider
    left out, have failed. `failures`: of single questions, by task. `is_paid`: the reserved amounts count as spent.
    """
    if state == State.COMPLETED:
        failure = Failure(FailureKind.UNAVAILABLE, "the batch came back without this question", retryable=True)
        is_paid = True
    with transaction.atomic():
        held = tasks_of(batch, lock=True)
        single = failures or {}
        failed = [(task, single.get(task.id, failure)) for task in held]
        usages = _reserved(held) if is_paid else {}
        settled = [
            (task, _priced(reason, usages.get(task.id, Usage()))) for task, reason in failed if reason is not None
        ]
        released = [task for task, reason in failed if reason is None]
        queue.fail(settled)
        if released:
            queue.release(released)
        _count(batch, unanswered=len(settled), returned=len(released))
        ends(state, **changes)
        queue.drop_unfinished(run_id=batch.run_id)
        failpoints.reach("batch.before_ended")
    failpoints.reach("batch.ended")


def refuse(batch: ProviderBatch, remote: RemoteBatch, ends: End, api: BatchApi) -> bool:
    """End a batch that its provider refused as a whole; nothing was asked. Returns False, as a last step does.

    An error of one line fails the question of that line, which the uploaded file names. Where no question can be named,
    the next batch is half as large, until the one that is refused is alone.
    """
    message = (
        "; ".join(f"{error.code}: {error.message}" for error in remote.errors[:3]) or "the provider gave no reason"
    )
    message = f"the provider refused the batch: {message}"[:2000]
    if any(is_too_large(error.code, error.message) for error in remote.errors):
        end(batch, ends, State.FAILED, is_over_limit=True, message=message)
        return False
    tasks = tasks_of(batch)
    singles = _failures_of_lines(batch, remote, tasks, api)
    if not singles and len(tasks) > 1 and any(error.line is not None for error in remote.errors):
        end(batch, ends, State.FAILED, is_over_limit=True, message=message)
        return False
    whole = None if singles else Failure(FailureKind.BAD_REQUEST, message, retryable=False)
    end(batch, ends, State.FAILED, failure=whole, failures=singles, message=message)
    return False


def _failures_of_lines(
    batch: ProviderBatch, remote: RemoteBatch, tasks: Sequence[ClaimedTask], api: BatchApi
) -> dict[int, Failure]:
    """The failures of single questions by task: by the name in an error, or by that in its line of the uploaded file."""
    by_name = {custom_id(task): task.id for task in tasks}
    errors = [error for error in remote.errors if error.line is not None]
    names: dict[int, str] = {}
    if errors:
        try:
            names = {
                place: line.custom_id for place, line in enumerate(api.lines(batch.file_id), 1) if line is not None
            }
        except BatchCallFailed as problem:
            log.warning("file %s of batch %s cannot be read: %s", batch.file_id, batch.batch_id, problem)
    found = {}
    for error in errors:
        said = [name for name in _NAME.findall(error.message) if name in by_name]
        name = said[0] if said else names.get(error.line or 0, "")
        if name in by_name:
            failure = Failure(FailureKind.BAD_REQUEST, f"{error.code}: {error.message}", retryable=False)
            found[by_name[name]] = failure
    return found


def _priced(failure: Failure, usage: Usage) -> Failure:
    return replace(failure, usage=usage)


def _reserved(tasks: Sequence[ClaimedTask]) -> dict[int, Usage]:
    """The reservation of each of these tasks."""
    fences = {task.id: task.fence for task in tasks}
    rows = Attempt.objects.filter(task_id__in=list(fences), call=1, outcome=Attempt.RESERVED)
    found = rows.values_list("task_id", "fence", "input_tokens", "output_tokens", "cost_micros")
    return {task: Usage(read, written, cost) for task, fence, read, written, cost in found if fence == fences[task]}
