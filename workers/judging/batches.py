"""Stage 4: asks judges what was claimed for them, and stores answers and failures.

The loop is claim, call, store. The call happens outside any transaction, and `workers.judging.recorder` stores what it
brought. `workers.judging.streaming` keeps judges over HTTP busy, and `workers.judging.provider_batches` sends files of questions where
a judge wants that; all others are asked here, in batches. A judge that raises
has failed, and a failure is never a vote.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence
from typing import cast

from django.db import Error

from labeling.collection import ProjectCollection
from labeling.database import is_lost
from labeling.models import Annotator
from labeling.plugins import BadAnswers, Judge, UnknownPlugin, get_plugin
from labeling.records import Failure, FailureKind, Verdict
from workers import failpoints
from workers.broker.hints import leave_hint
from workers.endpoints.batching import BatchingJudge
from workers.endpoints.conversation import ConversingJudge
from workers.endpoints.failures import NotAsked
from workers.judging import leases, questions, queue, recorder, streaming
from workers.judging.drift import watch_now_and_then
from workers.judging.provider_batches.delivery import deliver
from workers.judging.queue import ClaimedTask
from workers.stopping import is_stopping

log = logging.getLogger(__name__)

SLICE_S = 5.0
STORED_AT_ONCE = 256
JUDGES_KEPT = 16


def judge_open(annotator_id: int, *, worker: str) -> int:
    """Judge open tasks of one annotator for a slice of time; returns how many were answered.

    Where more tasks are left it sends a new hint at once, so that idle processes join in.
    """
    annotator = Annotator.objects.judges().filter(pk=annotator_id).first()
    if annotator is None:
        return 0
    recorder.recover()  # answers that a crashed process has paid for are stored, not requested again
    batching = _batching(annotator)
    judge = None if batching is not None else _conversing(annotator)
    if batching is not None:
        answered = deliver(annotator, batching, worker=worker)
    elif judge is None:
        answered = _in_batches(annotator, worker)
    else:
        answered, is_unfinished = streaming.converse(annotator, judge, worker=worker)
        if is_unfinished:
            leave_hint("judge", annotator.pk)
    if answered:
        watch_now_and_then(annotator)
    return answered


def _in_batches(annotator: Annotator, worker: str) -> int:
    """Claim, ask, store, one batch after the other."""
    limit = _batch_size(annotator.plugin)
    answered = 0
    deadline = time.monotonic() + SLICE_S
    while not is_stopping() and (
        tasks := queue.claim(annotator_id=annotator.pk, worker=worker, limit=limit, careful=True)
    ):
        if len(tasks) == limit:
            leave_hint("judge", annotator.pk)
        answered += judge_claimed(annotator, tasks)
        if time.monotonic() > deadline:
            leave_hint("judge", annotator.pk)
            break
    return answered


def _batching(annotator: Annotator) -> BatchingJudge | None:
    """The judge, if its questions are sent to a provider in batches; None otherwise."""
    try:
        judge = prepared_judge(annotator.pk)
    except Exception as error:
        log.debug("judge %s cannot be constructed: %s", annotator.name, error)
        return None
    return judge if isinstance(judge, BatchingJudge) and judge.is_batched else None


def _conversing(annotator: Annotator) -> ConversingJudge | None:
    """The judge, if it answers one question at a time and can be called; None otherwise: its batches report the error."""
    try:
        judge = prepared_judge(annotator.pk)
        if isinstance(judge, ConversingJudge):
            judge.channel()
            return judge
    except Exception as error:
        log.debug("judge %s is asked in batches: %s", annotator.name, error)
    return None


def _batch_size(plugin: str) -> int:
    """Comparisons in one batch of this judge. The tasks of a judge that is not installed are claimed too, and fail."""
    try:
        return max(1, cast("type[Judge]", get_plugin("judge", plugin)).batch_size)
    except UnknownPlugin:
        return Judge.batch_size


def judge_claimed(annotator: Annotator, tasks: Sequence[ClaimedTask]) -> int:
    """Ask the judge about leased tasks, some at a time, and store the answers; returns how many were answered.

    A worker that is stopping releases the tasks that it has not begun.
    """
    answered = 0
    with leases.held(tasks):
        for start in range(0, len(tasks), STORED_AT_ONCE):
            if is_stopping():
                queue.release(tasks[start:])
                break
            answered += _judge_some(annotator, tasks[start : start + STORED_AT_ONCE])
    return answered


def _judge_some(annotator: Annotator, tasks: Sequence[ClaimedTask]) -> int:
    spooled = _is_spooled(annotator.plugin)
    return recorder.store(_ask(annotator, tasks, spooled=spooled), spooled=spooled)


def _is_spooled(plugin: str) -> bool:
    """Whether each answer is written to disk at once. Not needed where the judge can repeat it at no cost."""
    try:
        return cast("type[Judge]", get_plugin("judge", plugin)).can_drift
    except UnknownPlugin:
        return False


def _ask(annotator: Annotator, tasks: Sequence[ClaimedTask], *, spooled: bool) -> recorder.Answered:
    """One answer for each task. An exception of the plugin, or a wrong number of answers, fails the unanswered tasks.

    Answers of a judge that reports each one are written to disk as they arrive; those of a whole batch, when `recorder.store` gets them.
    Where the database is unreachable before the first call, the tasks are released.
    """
    found: dict[int, Verdict | Failure] = {}
    arrives_alone = False

    def on_answer(place: int, answer: Verdict | Failure) -> None:
        if not isinstance(answer, Verdict | Failure):
            raise BadAnswers(f"judge {annotator.name!r} answered {answer!r:.100}; expected a Verdict or a Failure")
        if place in found or not 0 <= place < len(tasks):
            raise BadAnswers(f"judge {annotator.name!r} answered question {place} of {len(tasks)} twice, or unasked")
        failpoints.reach("call.answered")
        if spooled and arrives_alone:
            recorder.keep(tasks[place], answer)
        found[place] = answer

    try:
        try:
            judge = prepared_judge(annotator.pk)
            arrives_alone = type(judge).judge_each is not Judge.judge_each
            comparisons = questions.comparisons_of(annotator.project_id, tasks)
        except Error as error:
            if not is_lost(error):
                raise
            unasked = NotAsked(FailureKind.JUDGE_ERROR, f"not asked: {error}", retryable=True)
            return [(task, unasked) for task in tasks]
        failpoints.reach("call.before")
        judge.judge_each(comparisons, on_answer)
        if len(found) != len(tasks):
            raise BadAnswers(f"judge {annotator.name!r} answered {len(found)} of {len(tasks)} comparisons")
    except Exception as error:
        log.exception("judge %s failed on %d tasks", annotator.name, len(tasks) - len(found))
        failure = Failure(FailureKind.JUDGE_ERROR, f"{type(error).__name__}: {error}", retryable=True)
        return [(task, found.get(place, failure)) for place, task in enumerate(tasks)]
    return [(task, found[place]) for place, task in enumerate(tasks)]


@functools.lru_cache(maxsize=JUDGES_KEPT)
def prepared_judge(annotator_id: int) -> Judge:
    """The judge of this annotator, constructed and prepared once in each process."""
    annotator = Annotator.objects.get(pk=annotator_id)
    judge = cast(Judge, get_plugin("judge", annotator.plugin).from_dict(annotator.options))
    judge.prepare(ProjectCollection(annotator.project_id, annotator.pk))
    return judge
