"""Stage 4: asks judges what was claimed for them, and stores answers and failures.

The loop is claim, call, finish: the call happens outside any transaction. A judge that raises has
failed, and a failure is never a vote.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence
from typing import cast

from labeling.collection import ProjectCollection
from labeling.models import Annotator, Pair, Project
from labeling.plugins import Judge, UnknownPlugin, get_plugin
from labeling.records import Comparison, Failure, FailureKind, TextRecord, Verdict
from workers import queue
from workers.hints import leave_hint
from workers.judge_watch import watch_now_and_then
from workers.judges.failures import NotAsked
from workers.queue import ClaimedTask

log = logging.getLogger(__name__)

SLICE_S = 5.0
STORED_AT_ONCE = 256
JUDGES_KEPT = 16
# Between these bounds a question waits that a judge had no room for: long enough not to spin, no longer than a limit holds.
SHORTEST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0


class BadAnswers(ValueError):
    """A judge broke its contract: another number of answers than questions, or something that is no answer."""


def judge_open(annotator_id: int, *, worker: str) -> int:
    """Judge open tasks of one annotator for a slice of time; returns how many were answered.

    Where more is left a new hint goes out at once, so that every idle process joins in.
    """
    annotator = Annotator.objects.judges().filter(pk=annotator_id).first()
    if annotator is None:
        return 0
    limit = _batch_size(annotator.plugin)
    answered = 0
    deadline = time.monotonic() + SLICE_S
    while tasks := queue.claim(annotator_id=annotator_id, worker=worker, limit=limit):
        if len(tasks) == limit:
            leave_hint("judge", annotator_id)
        answered += judge_claimed(annotator, tasks)
        if time.monotonic() > deadline:
            leave_hint("judge", annotator_id)
            break
    if answered:
        watch_now_and_then(annotator)
    return answered


def _batch_size(plugin: str) -> int:
    """How many comparisons a judge takes at once. A judge that is not installed still has to fail its tasks."""
    try:
        return max(1, cast("type[Judge]", get_plugin("judge", plugin)).batch_size)
    except UnknownPlugin:
        return Judge.batch_size


def judge_claimed(annotator: Annotator, tasks: Sequence[ClaimedTask]) -> int:
    """Ask the judge about leased tasks, some at a time, and record what comes back; returns how many
    were answered.
    """
    return sum(
        _judge_some(annotator, tasks[start : start + STORED_AT_ONCE]) for start in range(0, len(tasks), STORED_AT_ONCE)
    )


def _judge_some(annotator: Annotator, tasks: Sequence[ClaimedTask]) -> int:
    answers = _ask(annotator, tasks)
    answered = list(zip(tasks, answers, strict=True))
    verdicts = [(task, answer) for task, answer in answered if isinstance(answer, Verdict)]
    unasked = [(task, answer) for task, answer in answered if isinstance(answer, NotAsked)]
    failures = [
        (task, answer) for task, answer in answered if isinstance(answer, Failure) and not isinstance(answer, NotAsked)
    ]
    queue.finish(verdicts)
    queue.fail(failures)
    if unasked:
        queue.release([task for task, _ in unasked], wait_s=_wait_s([answer for _, answer in unasked]))
    return len(verdicts)


def _wait_s(unasked: Sequence[NotAsked]) -> float:
    """How long questions wait whose call was never made: as long as the judge says, within bounds."""
    asked = max((answer.retry_after_s or 0.0 for answer in unasked), default=0.0)
    return min(max(asked, SHORTEST_WAIT_S), LONGEST_WAIT_S)


def _ask(annotator: Annotator, tasks: Sequence[ClaimedTask]) -> list[Verdict | Failure]:
    """One answer a task. Whatever a plugin raises, or a wrong count, fails the whole batch."""
    try:
        judge = prepared_judge(annotator.pk)
        answers = judge.judge(comparisons_of(annotator.project_id, tasks))
        if len(answers) != len(tasks):
            raise BadAnswers(f"judge {annotator.name!r} gave {len(answers)} answers to {len(tasks)} comparisons")
        strange = [answer for answer in answers if not isinstance(answer, Verdict | Failure)]
        if strange:
            raise BadAnswers(f"judge {annotator.name!r} answered {strange[0]!r:.100}; expected a Verdict or a Failure")
        return answers
    except Exception as error:
        log.exception("judge %s failed on %d tasks", annotator.name, len(tasks))
        failure = Failure(FailureKind.JUDGE_ERROR, f"{type(error).__name__}: {error}", retryable=True)
        return [failure] * len(tasks)


@functools.lru_cache(maxsize=JUDGES_KEPT)
def prepared_judge(annotator_id: int) -> Judge:
    """The judge of this annotator, constructed and prepared once a process."""
    annotator = Annotator.objects.get(pk=annotator_id)
    judge = cast(Judge, get_plugin("judge", annotator.plugin).from_dict(annotator.options))
    judge.prepare(ProjectCollection(annotator.project_id))
    return judge


def comparisons_of(project_id: int, tasks: Sequence[ClaimedTask]) -> list[Comparison]:
    """The questions behind these tasks, in their order, with texts."""
    instruction = Project.objects.values_list("instruction", flat=True).get(pk=project_id)
    pairs = (
        Pair.objects.filter(pk__in={task.pair_id for task in tasks})
        .select_related("a__query", "a__document", "b__query", "b__document")
        .in_bulk()
    )
    return [_comparison(task, pairs[task.pair_id], instruction) for task in tasks]


def _comparison(task: ClaimedTask, pair: Pair, instruction: str) -> Comparison:
    a, b = pair.a, pair.b
    return Comparison(
        key=task.id,
        query_a=TextRecord(a.query_id, a.query.text),
        query_b=TextRecord(b.query_id, b.query.text),
        a=TextRecord(a.document_id, a.document.text),
        b=TextRecord(b.document_id, b.document.text),
        swapped=task.swapped,
        instruction=instruction,
    )
