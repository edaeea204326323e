"""The judging queue: claim, finish, fail, release, reap, cancel. Each is one transaction.

Time is the database's clock alone. A task's fence rises with each claim; a failure counts only under
the fence it was claimed with, while a late answer is accepted as long as there is none. The model is
called between `claim` and `finish`, outside any transaction, by `workers.judging`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from labeling.judgments import Recorded, record_judgments
from labeling.records import Failure, FailureKind, NewJudgment, Usage, Verdict
from workers.budgets import NO_LIMIT, Budgets, calls_left, lock_books

LEASE_S = 180.0
MAX_ATTEMPTS = 5
LONGEST_RETRY_AFTER_S = 3600.0
LONGEST_MESSAGE = 2000
BACKOFF_BASE_S = 2.0
BACKOFF_MOST_S = 300.0


@dataclass(frozen=True, slots=True)
class ClaimedTask:
    """A leased question; only the holder of this fence may say that it failed."""

    id: int
    fence: int
    attempts: int
    run_id: int
    pair_id: int
    annotator_id: int
    swapped: bool


_CLAIM = """
WITH picked AS (
    SELECT task.id FROM workers_judgingtask task
    WHERE task.state = 'open' AND task.annotator_id = %(annotator)s AND task.next_at <= clock_timestamp()
      AND task.run_id = ANY(%(runs)s)
    ORDER BY task.id LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), leased AS (
    UPDATE workers_judgingtask task
    SET state = 'leased', fence = fence + 1, attempts = attempts + 1, leased_by = %(worker)s,
        lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
    FROM picked WHERE task.id = picked.id
    RETURNING task.id, task.fence, task.attempts, task.run_id, task.pair_id, task.annotator_id, task.swapped
), booked AS (
    INSERT INTO workers_attempt (task_id, fence, call, run_id, annotator_id, outcome, input_tokens, output_tokens,
                                 cost_micros)
    SELECT id, fence, 1, run_id, annotator_id, '', 0, 0, 0 FROM leased
)
SELECT * FROM leased ORDER BY id
"""


def claim(*, annotator_id: int, worker: str, limit: int, lease_s: float = LEASE_S) -> list[ClaimedTask]:
    """Lease up to `limit` open tasks of one annotator in runs that are being judged, and book an
    attempt for each. Two workers never get the same task; a paused judge gets none, and of a run no more are
    claimed than its budget of calls, tokens or money allows.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        claimed: list[ClaimedTask] = []
        for runs, most in _claimable_runs(cursor, annotator_id):
            if len(claimed) >= limit:
                break
            most = min(most, limit - len(claimed))
            cursor.execute(
                _CLAIM, {"annotator": annotator_id, "runs": runs, "limit": most, "worker": worker, "lease": lease_s}
            )
            claimed += [ClaimedTask(*row) for row in cursor.fetchall()]
        return claimed


def _claimable_runs(cursor: CursorWrapper, annotator_id: int) -> Iterator[tuple[list[int], int]]:
    """Runs whose questions may be put to this judge, oldest first, and how many of them: all runs at once, but
    each one that bounds its calls by itself. Those stay locked until the transaction ends, so that no call
    beyond the budget is made; always in id order, so that no two claims wait for each other.
    """
    cursor.execute(
        "SELECT run.id, call_budget, token_budget, cost_budget_micros "
        "FROM workers_run run JOIN workers_run_judges judge ON judge.run_id = run.id "
        "JOIN labeling_annotator annotator ON annotator.id = judge.annotator_id "
        "WHERE annotator.id = %s AND annotator.paused_at IS NULL AND run.state = 'judging' ORDER BY run.id",
        [annotator_id],
    )
    rows = [(run, Budgets(calls=calls, tokens=tokens, cost_micros=cost)) for run, calls, tokens, cost in cursor]
    for is_bounded, group in itertools.groupby(rows, key=lambda row: row[1].bounds_calls):
        if not is_bounded:
            yield [run for run, _ in group], NO_LIMIT
            continue
        for run, budgets in group:
            lock_books(run)
            if (room := calls_left(budgets, run, annotator_id)) > 0:
                yield [run], room


def finish(answers: Sequence[tuple[ClaimedTask, Verdict]]) -> Recorded:
    """Store the judgments, delete their tasks and close their attempts, all or nothing.

    Safe to repeat: a judgment that is already there stays, and nothing is counted twice.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        ids = _lock_tasks(cursor, [task for task, _ in answers])
        recorded = record_judgments([_judgment(task, verdict) for task, verdict in answers])
        cursor.execute("DELETE FROM workers_judgingtask WHERE id = ANY(%s)", [ids])
        _close_attempts(cursor, [(task, verdict.kind.value, verdict.usage) for task, verdict in answers])
    return recorded


def _lock_tasks(cursor: CursorWrapper, tasks: Sequence[ClaimedTask]) -> list[int]:
    """Lock what is left of these tasks, in id order: finish, fail, release and cancel never wait in a circle."""
    ids = sorted(task.id for task in tasks)
    cursor.execute("SELECT id FROM workers_judgingtask WHERE id = ANY(%s) ORDER BY id FOR UPDATE", [ids])
    return ids


def _judgment(task: ClaimedTask, verdict: Verdict) -> NewJudgment:
    return NewJudgment(
        pair_id=task.pair_id,
        annotator_id=task.annotator_id,
        swapped=task.swapped,
        preference=verdict.preference,
        kind=verdict.kind,
        rationale=storable(verdict.rationale),
        truncated=verdict.truncated,
    )


def storable(text: str) -> str:
    """The text without what PostgreSQL refuses: NUL becomes a space, a lone surrogate a question mark."""
    return text.replace("\x00", " ").encode("utf-8", "replace").decode("utf-8")


_FAIL = """
UPDATE workers_judgingtask task
SET state = CASE WHEN failure.retryable AND task.attempts < %(most)s THEN 'open' ELSE 'dead' END,
    leased_by = '', lease_until = NULL, reason = failure.reason, message = failure.message,
    next_at = clock_timestamp() + make_interval(secs => GREATEST(
        failure.retry_after, LEAST(%(cap)s, %(base)s * 2 ^ (task.attempts - 1)) * (0.5 + random())))
FROM unnest(%(ids)s::bigint[], %(fences)s::int[], %(retryable)s::bool[], %(reasons)s::text[], %(messages)s::text[],
            %(retry_after)s::float8[]) AS failure (id, fence, retryable, reason, message, retry_after)
WHERE task.id = failure.id AND task.fence = failure.fence AND task.state = 'leased'
"""


def fail(failures: Sequence[tuple[ClaimedTask, Failure]]) -> int:
    """Put tasks back for a later try, or bury them with their reason; returns how many it touched.

    A failure under an old fence is ignored: the task belongs to another worker by now.
    """
    if not failures:
        return 0
    ordered = sorted(failures, key=lambda each: each[0].id)
    with transaction.atomic(), connection.cursor() as cursor:
        _lock_tasks(cursor, [task for task, _ in ordered])
        cursor.execute(
            _FAIL,
            {
                "most": MAX_ATTEMPTS,
                "base": BACKOFF_BASE_S,
                "cap": BACKOFF_MOST_S,
                "ids": [task.id for task, _ in ordered],
                "fences": [task.fence for task, _ in ordered],
                "retryable": [failure.retryable for _, failure in ordered],
                "reasons": [failure.kind.value for _, failure in ordered],
                "messages": [storable(failure.message[:LONGEST_MESSAGE]) for _, failure in ordered],
                "retry_after": [_wait_s(failure) for _, failure in ordered],
            },
        )
        touched: int = cursor.rowcount
        _close_attempts(cursor, [(task, failure.kind.value, failure.usage) for task, failure in ordered])
    return touched


def _wait_s(failure: Failure) -> float:
    """What the judge asks to wait, in seconds; nonsense is no wait, and a day is cut to an hour."""
    asked = failure.retry_after_s or 0.0
    return min(asked, LONGEST_RETRY_AFTER_S) if asked > 0.0 else 0.0


def _close_attempts(cursor: CursorWrapper, outcomes: Sequence[tuple[ClaimedTask, str, Usage]]) -> None:
    cursor.execute(
        "UPDATE workers_attempt attempt SET outcome = o.outcome, input_tokens = o.input_tokens, "
        "output_tokens = o.output_tokens, cost_micros = o.cost, latency_ms = o.latency_ms, "
        "finished_at = clock_timestamp() "
        "FROM unnest(%s::bigint[], %s::int[], %s::text[], %s::int[], %s::int[], %s::bigint[], %s::int[]) "
        "AS o (task_id, fence, outcome, input_tokens, output_tokens, cost, latency_ms) "
        "WHERE attempt.task_id = o.task_id AND attempt.fence = o.fence AND attempt.call = 1",
        [
            [task.id for task, _, _ in outcomes],
            [task.fence for task, _, _ in outcomes],
            [outcome for _, outcome, _ in outcomes],
            [usage.input_tokens for _, _, usage in outcomes],
            [usage.output_tokens for _, _, usage in outcomes],
            [usage.cost_micros for _, _, usage in outcomes],
            [round(usage.latency_s * 1000) if usage.latency_s else None for _, _, usage in outcomes],
        ],
    )


def release(tasks: Sequence[ClaimedTask], *, wait_s: float = 0.0) -> int:
    """Hand back leases whose call was never made: no attempt is counted. Not claimed again for `wait_s` seconds."""
    with transaction.atomic(), connection.cursor() as cursor:
        _lock_tasks(cursor, tasks)
        keys = [[task.id for task in tasks], [task.fence for task in tasks]]
        cursor.execute(
            "UPDATE workers_judgingtask task SET state = 'open', leased_by = '', lease_until = NULL, "
            "attempts = attempts - 1, next_at = clock_timestamp() + make_interval(secs => %s) "
            "FROM unnest(%s::bigint[], %s::int[]) AS mine (id, fence) "
            "WHERE task.id = mine.id AND task.fence = mine.fence AND task.state = 'leased'",
            [wait_s, *keys],
        )
        released: int = cursor.rowcount
        cursor.execute(
            "DELETE FROM workers_attempt attempt USING unnest(%s::bigint[], %s::int[]) AS mine (id, fence) "
            "WHERE attempt.task_id = mine.id AND attempt.fence = mine.fence",
            keys,
        )
    return released


_REAP = """
WITH expired AS (
    SELECT id FROM workers_judgingtask
    WHERE state = 'leased' AND lease_until < clock_timestamp()
    ORDER BY id FOR UPDATE SKIP LOCKED
)
UPDATE workers_judgingtask task
SET state = CASE WHEN attempts < %(most)s THEN 'open' ELSE 'dead' END,
    reason = %(reason)s, message = 'no answer before the lease ended; its worker may have died',
    leased_by = '', lease_until = NULL, next_at = clock_timestamp()
FROM expired WHERE task.id = expired.id
RETURNING task.id, task.fence
"""


_DROP = """
WITH ended AS (
    SELECT task.id FROM workers_judgingtask task JOIN workers_run run ON run.id = task.run_id
    WHERE run.state IN ('cancelled', 'failed') AND task.state <> 'leased' AND (%(run)s::bigint IS NULL OR run.id = %(run)s)
    ORDER BY task.id FOR UPDATE OF task SKIP LOCKED
), dropped AS (
    DELETE FROM workers_judgingtask task USING ended WHERE task.id = ended.id RETURNING task.run_id
)
UPDATE workers_run run SET tasks_planned = run.tasks_planned - lost.count
FROM (SELECT run_id, count(*) FROM dropped GROUP BY run_id) lost WHERE run.id = lost.run_id
"""


def drop_unfinished(*, run_id: int | None = None) -> None:
    """Delete what cancelled and failed runs (or one of them) still wanted to ask; their plan shrinks by as much.

    What is leased stays until its answer, its failure or its lease's end; `reap` drops the rest.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_DROP, {"run": run_id})


def reap() -> int:
    """Take back leases that ran out, by the database's clock; returns how many. Those of cancelled runs go."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_REAP, {"most": MAX_ATTEMPTS, "reason": FailureKind.TIMEOUT.value})
        rows = cursor.fetchall()
        cursor.execute(
            "UPDATE workers_attempt attempt SET outcome = 'lost', finished_at = clock_timestamp() "
            "FROM unnest(%s::bigint[], %s::int[]) AS gone (task_id, fence) "
            "WHERE attempt.task_id = gone.task_id AND attempt.fence = gone.fence AND attempt.outcome = ''",
            [[row[0] for row in rows], [row[1] for row in rows]],
        )
        drop_unfinished()
    return len(rows)


def release_worker(name: str) -> int:
    """End the leases of every process of the worker `name`; for its successor's start, and for nobody else.

    The next `reap` opens the tasks. The lost calls stay in the books: they may have been paid.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE workers_judgingtask SET lease_until = clock_timestamp() - interval '1 second' "
            "WHERE state = 'leased' AND starts_with(leased_by, %s)",
            [f"{name}:"],
        )
        return int(cursor.rowcount)


def retry_dead(*, run_id: int, reason: str | None = None, annotator_id: int | None = None) -> int:
    """Open dead tasks of a run again, all or those of one reason or judge, with a fresh count of attempts.

    A run that had finished without them is judged on.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE workers_judgingtask SET state = 'open', attempts = 0, reason = '', message = '', "
            "next_at = clock_timestamp() WHERE state = 'dead' AND run_id = %s AND (%s::text IS NULL OR reason = %s) "
            "AND (%s::bigint IS NULL OR annotator_id = %s)",
            [run_id, reason, reason, annotator_id, annotator_id],
        )
        opened = int(cursor.rowcount)
        if opened:
            cursor.execute(
                "UPDATE workers_run SET state = 'judging', reason = '', finished_at = NULL "
                "WHERE id = %s AND state = 'finished'",
                [run_id],
            )
    return opened


def open_tasks_by_annotator() -> list[tuple[int, int]]:
    """(annotator, project) of everything that could be claimed now."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT annotator.id, annotator.project_id FROM labeling_annotator annotator "
            "WHERE annotator.paused_at IS NULL AND EXISTS ("
            "SELECT 1 FROM workers_judgingtask task JOIN workers_run run ON run.id = task.run_id "
            "WHERE task.annotator_id = annotator.id AND task.state = 'open' AND run.state = 'judging' "
            "AND task.next_at <= clock_timestamp()) ORDER BY annotator.id"
        )
        return cursor.fetchall()
