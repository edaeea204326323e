"""Stores the answers of judges so that no paid answer is lost: first in a write-ahead log on disk, then in the database.

`keep` writes an answer to disk the moment it arrives. `store` writes a batch to the database, and retries while that is
unreachable. `recover` stores what crashed processes of this host left on disk. Judges that can repeat an answer at no
cost (`can_drift = False`) skip the disk.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from operator import attrgetter
from typing import Any, TypeVar

from django.db import Error, connection

from labeling.database import is_lost
from labeling.records import AnswerKind, Failure, FailureKind, PlacedPreference, PointwiseGrade, Usage, Verdict
from workers import failpoints
from workers.endpoints import limiter
from workers.endpoints.failures import Excused, NotAsked
from workers.judging import queue
from workers.judging.queue import ClaimedTask
from workers.judging.spool import REJECTED, Leftover, encode, leftovers, own_spool, spool_folder

log = logging.getLogger(__name__)

Answer = Verdict | Failure
Answered = Sequence[tuple[ClaimedTask, Answer]]
Result = TypeVar("Result")

STORED_AT_ONCE = 1000
# So long a process retries while the database is unreachable; then it leaves the answers on disk.
PATIENCE_S = 900.0
FIRST_RETRY_S, LONGEST_RETRY_S = 0.1, 2.0
# Answers that can be neither stored nor put aside (the disk is full) are retried after so long.
AGAIN_S = 60.0
# Bounds of the wait of a task that its judge had no room for: not a busy loop, and no longer than a rate limit lasts.
SHORTEST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0


def holder_name(process: str) -> str:
    """The name under which a process leases: its own, and a token by which `recover` finds the leases of a crashed one."""
    database_mark()  # cached here, because the event loop must not query the database
    return f"{process}:{own_spool().token}"


def keep(task: ClaimedTask, answer: Answer) -> None:
    """Write an answer to disk; from here on a crash of this process does not lose it."""
    if not isinstance(answer, NotAsked) and own_spool().write(_key(task), _encode(task, answer)):
        failpoints.reach("spool.written")


def keep_all(answered: Answered) -> None:
    """Write those of these answers to disk that are not there yet, in one go."""
    made = {
        _key(task): functools.partial(_encode, task, answer)
        for task, answer in answered
        if not isinstance(answer, NotAsked)
    }
    if own_spool().write_all(made):
        failpoints.reach("spool.written")


def store(answered: Answered, *, spooled: bool) -> int:
    """Store answers and failures, release tasks that were not asked; returns the number of answers.

    Retries while the database is unreachable, up to PATIENCE_S. Then it raises, as it does for any other error: the
    answers stay on disk for `recover`.
    """
    spool = own_spool() if spooled else None
    if spool is not None:
        keep_all(answered)
        spool.sync()
        failpoints.reach("spool.synced")
    try:
        _patiently(lambda: _settle(answered))
    except Exception:
        if spool is not None:
            spool.let_go()
        raise
    if spool is not None:
        spool.drop([_key(task) for task, _ in answered])
    return sum(isinstance(answer, Verdict) for _, answer in answered)


def _settle(answered: Answered) -> None:
    queue.finish([(task, answer) for task, answer in answered if isinstance(answer, Verdict)])
    asked = [(task, answer) for task, answer in answered if isinstance(answer, Failure)]
    queue.fail([(task, answer) for task, answer in asked if not isinstance(answer, NotAsked | Excused)])
    queue.fail([(task, answer) for task, answer in asked if isinstance(answer, Excused)], counted=False)
    unasked = [(task, answer) for task, answer in asked if isinstance(answer, NotAsked)]
    if unasked:
        queue.release([task for task, _ in unasked], wait_s=_wait_s([answer for _, answer in unasked]))


def _wait_s(unasked: Sequence[Failure]) -> float:
    """The wait of tasks whose call was not made: as long as the judge says, within bounds."""
    asked = max((answer.retry_after_s or 0.0 for answer in unasked), default=0.0)
    return min(max(asked, SHORTEST_WAIT_S), LONGEST_WAIT_S)


def _patiently(act: Callable[[], Result]) -> Result:
    """Call `act`, and retry while the database is unreachable. `act` must be safe to repeat."""
    deadline, pause_s = time.monotonic() + PATIENCE_S, FIRST_RETRY_S
    while True:
        try:
            return act()
        except Error as error:
            if not is_lost(error) or connection.in_atomic_block or time.monotonic() + pause_s > deadline:
                raise
            log.warning("answers wait for the database; retrying in %.1f s: %s", pause_s, error)
            connection.close()
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_RETRY_S)


# --- recovery after a crash --------------------------------------------------------------


def recover() -> int:
    """Store the answers that crashed processes of this host left, then end their leases; returns how many there were.

    Cheap where there are none: it lists one folder. Raises OperationalError where the database is unreachable, and then
    changes nothing. Several processes may recover at the same time. Answers for another database, and answers that can be
    neither stored nor put aside, stay where they are.
    """
    mark, now = database_mark(), time.monotonic()
    found = (each for each in leftovers(spool_folder()) if _left.get(_sight(each, mark), -math.inf) < now)
    return sum(_recover(leftover, mark) for leftover in found)


# Files that had to stay, by database, name and size: until when this process does not look at them again.
_left: dict[tuple[str, str, int], float] = {}


def _sight(leftover: Leftover, mark: str) -> tuple[str, str, int]:
    return mark, leftover.path.name, leftover.size


def _recover(leftover: Leftover, mark: str) -> int:
    leftover.read()
    failpoints.reach("recover.read")
    answered = list(_readable(leftover, mark))
    for start in range(0, len(answered), STORED_AT_ONCE):
        _settle_or_reject(answered[start : start + STORED_AT_ONCE], leftover)
    failpoints.reach("recover.stored")
    ended = queue.end_leases(leftover.token) if leftover.token else 0
    if leftover.token:
        limiter.forget(leftover.token)
    failpoints.reach("recover.before_removal")
    leftover.remove()
    if leftover.is_needed:
        _left[_sight(leftover, mark)] = time.monotonic() + AGAIN_S if leftover.stuck else math.inf
    if answered or ended:
        log.warning("stored %d answers that a process left on disk, and ended %d of its leases", len(answered), ended)
    return len(answered)


def _readable(leftover: Leftover, mark: str) -> Iterator[tuple[ClaimedTask, Answer]]:
    """The usable answers of a file. Answers for another database are counted and stay."""
    for value in leftover.values:
        try:
            if value["database"] == mark:
                yield _decode(value)
            else:
                leftover.foreign += 1
        except (KeyError, TypeError, ValueError) as error:
            log.error("an answer in %s cannot be used (%r); it goes to %s", leftover.path, error, REJECTED)
            leftover.reject(encode(value))
    if leftover.foreign:
        log.warning(
            "%s holds %d answers of another database; it is kept until a worker of that database starts with this ZELO_HOME",
            leftover.path,
            leftover.foreign,
        )


@functools.cache
def database_mark() -> str:
    """A value that identifies this database, and changes when a new one is created at the same address."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT min(applied)::text FROM django_migrations")
        return str(cursor.fetchone()[0])


def _settle_or_reject(answered: Answered, leftover: Leftover) -> None:
    """Store answers together; put aside those that the database rejects permanently, for example of a deleted project."""
    try:
        _settle(answered)
    except Exception as error:  # one bad answer must not keep the others from being stored
        if is_lost(error):
            raise
        if len(answered) > 1:
            half = len(answered) // 2
            _settle_or_reject(answered[:half], leftover)
            _settle_or_reject(answered[half:], leftover)
            return
        task, answer = answered[0]
        log.error("the answer to question %d cannot be stored (%s); it goes to %s", task.id, error, REJECTED)
        leftover.reject(encode(_encode(task, answer)))


# --- an answer as JSON -------------------------------------------------------------------


def _key(task: ClaimedTask) -> Hashable:
    return task.id, task.fence


def _encode(task: ClaimedTask, answer: Answer) -> dict[str, Any]:
    if isinstance(answer, Verdict):
        kind, fields = "verdict", dict(zip(_VERDICT_FIELDS, _verdict_values(answer), strict=True))
        if answer.placed:
            fields["placed"] = [[each.one, each.other, each.preference] for each in answer.placed]
        if answer.grades:
            fields["grades"] = [[each.query_id, each.document_id, each.value] for each in answer.grades]
    else:
        kind = "excused" if isinstance(answer, Excused) else "failure"
        fields = dict(zip(_FAILURE_FIELDS, _failure_values(answer), strict=True))
    fields["usage"] = _encode_usage(answer.usage)
    return {"database": database_mark(), "task": _task_values(task), kind: fields}


_TASK = [field.name for field in dataclasses.fields(ClaimedTask)]
_task_values = attrgetter(*_TASK)
_VERDICT_FIELDS = ("preference", "kind", "rationale", "truncated")
_verdict_values = attrgetter(*_VERDICT_FIELDS)
_FAILURE_FIELDS = ("kind", "message", "retryable", "retry_after_s")
_failure_values = attrgetter(*_FAILURE_FIELDS)


def _encode_usage(usage: Usage) -> list[Any]:
    calls = [_encode_usage(call) for call in usage.calls]
    return [usage.input_tokens, usage.output_tokens, usage.cost_micros, usage.latency_s, calls]


def _decode(value: dict[str, Any]) -> tuple[ClaimedTask, Answer]:
    task = ClaimedTask.of(value["task"])
    fields = dict(value.get("verdict") or value.get("excused") or value["failure"])
    fields["usage"] = _decode_usage(fields["usage"])
    if "verdict" in value:
        fields["placed"] = tuple(PlacedPreference(*each) for each in fields.get("placed", ()))
        fields["grades"] = tuple(PointwiseGrade(*each) for each in fields.get("grades", ()))
        return task, Verdict(**{**fields, "kind": AnswerKind(fields["kind"])})
    made = Excused if "excused" in value else Failure
    return task, made(**{**fields, "kind": FailureKind(fields["kind"])})


def _decode_usage(values: Sequence[Any]) -> Usage:
    inputs, outputs, cost, latency, calls = values
    return Usage(inputs, outputs, cost, latency, tuple(_decode_usage(call) for call in calls))
