"""The judging queue: claim, extend, finish, fail, release, reap, cancel. Each is one transaction.

Time is the database's clock alone. A task's fence rises with each claim; a failure counts only under
the fence it was claimed with, while a late answer is accepted as long as there is none. The model is
called between `claim` and `finish`, outside any transaction, by `workers.judging.batches`; `workers.judging.recorder` keeps what it
answered on disk until `finish` or `fail` has it. The states and what each crash costs are in docs/queue.md.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from django.db import connection, transaction

from labeling.database import Cursor, prepared_cursor
from labeling.judgments import Recorded, record_judgments, store_model_grades
from labeling.records import Failure, FailureKind, NewJudgment, Verdict
from workers import failpoints
from workers.budgets.bounds import Bound
from workers.budgets.limits import Budgets, questions_left
from workers.budgets.operator_limits import ANY_LIMIT
from workers.judging import trouble
from workers.judging.attempts import LONGEST_MESSAGE, close_attempts, log_failures, storable
from workers.judging.sets import judgments_of_sets

LEASE_S = 180.0
MAX_ATTEMPTS = 5
LONGEST_RETRY_AFTER_S = 3600.0
BACKOFF_BASE_S = 2.0
BACKOFF_MOST_S = 300.0
MARK_S = 2.0
MOST_MARKS = 1000


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
    documents: tuple[int, ...] = ()

    @classmethod
    def of(cls, values: Sequence[Any]) -> ClaimedTask:
        """From a row, or from a list of the write-ahead log, whose older entries end with `swapped`."""
        identity, fence, attempts, run, pair, annotator, swapped, *rest = values
        return cls(identity, fence, attempts, run, pair, annotator, swapped, tuple(rest[0] or ()) if rest else ())


# The oldest due question first. The index is (annotator, run, next_at, id) of open tasks, so that those which wait for
# another try, or belong to a run that rests, cost nothing; the time comes from a subselect to be usable as its bound.
_CLAIM = """
WITH picked AS (
    SELECT task.id FROM workers_judgingtask task
    WHERE task.state = 'open' AND task.annotator_id = %(annotator)s AND task.run_id = %(run)s
      AND task.next_at <= (SELECT clock_timestamp())
      AND (task.next_at, task.id) > (%(after)s::timestamptz, %(after_id)s::bigint)
    ORDER BY task.next_at, task.id LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
), leased AS (
    UPDATE workers_judgingtask task
    SET state = 'leased', fence = fence + 1, attempts = attempts + 1, leased_by = %(worker)s,
        lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
    FROM picked WHERE task.id = picked.id
    RETURNING task.id, task.fence, task.attempts, task.run_id, task.pair_id, task.annotator_id, task.swapped,
              task.documents, task.next_at
), booked AS (
    INSERT INTO workers_attempt (task_id, fence, call, run_id, annotator_id, outcome, input_tokens, output_tokens,
                                 cost_micros)
    SELECT id, fence, 1, run_id, annotator_id, '', 0, 0, 0 FROM leased
)
SELECT * FROM leased
"""


def claim(
    *, annotator_id: int, worker: str, limit: int, lease_s: float = LEASE_S, careful: bool = False
) -> list[ClaimedTask]:
    """Lease up to `limit` open tasks of one annotator in runs that are being judged, and book an
    attempt for each. Two workers never get the same task; a paused judge gets none, and no more are claimed than
    the budget of their run and the caps of their project allow. `careful`: few at a time, until the judge has answered
    some questions of the run.
    """
    claimed: list[ClaimedTask] = []
    with transaction.atomic(), prepared_cursor() as cursor:
        for run, most in _claimable_runs(cursor, annotator_id, careful=careful):
            claimed += _claim_of_run(cursor, run, annotator_id, worker, min(most, limit - len(claimed)), lease_s)
            if len(claimed) >= limit:
                break
        failpoints.reach("claim.before_commit")
    failpoints.reach("claim.after_commit")
    return claimed


def _claim_of_run(
    cursor: Cursor, run: int, annotator: int, worker: str, limit: int, lease_s: float
) -> list[ClaimedTask]:
    """From where this process claimed last, and again from the beginning where that leaves room."""
    rows: list[Any] = []
    for mark in dict.fromkeys([_marks.get((run, annotator)), _BEGINNING]):
        if mark is None or len(rows) >= limit:
            continue
        values: dict[str, Any] = {
            "annotator": annotator,
            "run": run,
            "limit": limit - len(rows),
            "worker": worker,
            "lease": lease_s,
        }
        cursor.execute(_CLAIM, values | {"after": mark.at, "after_id": mark.id})
        rows += cursor.fetchall()
    _set_mark((run, annotator), rows)
    return [ClaimedTask.of(row[:-1]) for row in sorted(rows, key=lambda row: row[0])]


@dataclass(frozen=True, slots=True)
class _Mark:
    """The position in the queue of a run and judge up to which this process has claimed, and its expiry (monotonic).

    Claimed tasks leave dead entries at the head of the index, and whoever begins there walks over all that no vacuum
    has met yet: 10 ms at 130,000 of them, more than the rest of the claim. A mark costs at most MARK_S of order.
    """

    at: datetime
    id: int
    until: float = math.inf


_BEGINNING = _Mark(datetime(1, 1, 1, tzinfo=UTC), 0)
_marks: dict[tuple[int, int], _Mark] = {}


def _set_mark(key: tuple[int, int], rows: Sequence[Any]) -> None:
    """Go on behind the last of these tasks, for a while; without any, at the beginning."""
    now, before = time.monotonic(), _marks.get(key)
    if not rows or (before is not None and before.until < now):
        _marks.pop(key, None)
        return
    if len(_marks) >= MOST_MARKS:
        _marks.clear()
    at, last = max((row[-1], row[0]) for row in rows)
    _marks[key] = _Mark(at, last, now + MARK_S if before is None else before.until)


_RUNS = f"""
SELECT run.id, COALESCE(annotator.watched_from, annotator.created_at), run.project_id, {ANY_LIMIT},
       run.estimate, run.call_budget, run.token_budget, run.cost_budget_micros, caps.calls, caps.tokens, caps.cost_micros
FROM workers_run run JOIN workers_run_judges judge ON judge.run_id = run.id
JOIN labeling_annotator annotator ON annotator.id = judge.annotator_id
LEFT JOIN workers_caps caps ON caps.project_id = run.project_id
WHERE annotator.id = %s AND annotator.paused_at IS NULL AND run.state = 'judging' ORDER BY run.id
"""


def _claimable_runs(cursor: Cursor, annotator_id: int, *, careful: bool) -> Iterator[tuple[int, int]]:
    """Runs whose questions may be put to this judge, oldest first, and how many of them. What those with a limit have spent
    stays locked until the transaction ends; always the judge first, then the project and the runs in id order, so that no
    two claims wait for each other.
    """
    cursor.execute(_RUNS, [annotator_id])
    rows = cursor.fetchall()
    unproven = [row[0] for row in rows if careful and not trouble.is_proven(row[0], annotator_id, row[1])]
    if unproven:
        trouble.lock_judges(cursor, [annotator_id])
        cursor.execute(_RUNS, [annotator_id])  # the failures of others, waited for, may have paused the judge
        rows = cursor.fetchall()
    for run, since, project, by_operator, estimate, *limits in rows:
        budgets, caps = Budgets(None, *limits[:3], bound=Bound.of(json.loads(estimate))), Budgets(None, *limits[3:])
        most = questions_left(run, project, annotator_id, budgets=budgets, caps=caps, by_operator=by_operator)
        if run in unproven:
            held = trouble.hold_back(cursor, run, annotator_id, since)
            most = most if held is None else min(most, held)
        if most > 0:
            yield run, most


_EXTEND = """
WITH mine AS (
    SELECT task.id FROM workers_judgingtask task
    JOIN unnest(%(ids)s::bigint[], %(fences)s::int[]) AS held (id, fence) ON held.id = task.id AND held.fence = task.fence
    WHERE task.state = 'leased'
    ORDER BY task.id FOR UPDATE OF task SKIP LOCKED
)
UPDATE workers_judgingtask task SET lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
FROM mine WHERE task.id = mine.id
"""


def extend(tasks: Sequence[ClaimedTask], *, lease_s: float = LEASE_S) -> int:
    """Let leases that are still held last `lease_s` seconds from now; returns how many there were."""
    with connection.cursor() as cursor:
        ids, fences = [task.id for task in tasks], [task.fence for task in tasks]
        cursor.execute(_EXTEND, {"ids": ids, "fences": fences, "lease": lease_s})
        return int(cursor.rowcount)


# Locked in id order first: finish, fail, release and cancel never wait in a circle.
_DELETE = """
WITH mine AS (SELECT id FROM workers_judgingtask WHERE id = ANY(%s) ORDER BY id FOR UPDATE)
DELETE FROM workers_judgingtask task USING mine WHERE task.id = mine.id
"""


def finish(answers: Sequence[tuple[ClaimedTask, Verdict]]) -> Recorded:
    """Store the judgments, delete their tasks and close their attempts, all or nothing.

    Safe to repeat: a judgment that is already there stays, and nothing is counted twice. Whoever else may have the
    task by now, and whatever became of it, the first answer is the answer; a second one is counted as a call alone.
    """
    if not answers:
        return Recorded(stored=0, duplicates=0, query_ids=(), project_ids=())
    with transaction.atomic(), prepared_cursor() as cursor:
        cursor.execute(_DELETE, [sorted(task.id for task, _ in answers)])
        close_attempts(cursor, answers)
        store_model_grades(cursor, [(task.annotator_id, each) for task, verdict in answers for each in verdict.grades])
        # Last, because it locks the rows of the queries, for which others wait that answer questions of the same query.
        recorded = record_judgments(_judgments(cursor, answers))
        failpoints.reach("finish.before_commit")
    failpoints.reach("finish.after_commit")
    return recorded


def _lock_tasks(cursor: Cursor, tasks: Sequence[ClaimedTask]) -> list[int]:
    """Lock what is left of these tasks, in id order: fail, release and cancel never wait in a circle."""
    ids = sorted(task.id for task in tasks)
    cursor.execute("SELECT id FROM workers_judgingtask WHERE id = ANY(%s) ORDER BY id FOR UPDATE", [ids])
    return ids


def _judgments(cursor: Cursor, answers: Sequence[tuple[ClaimedTask, Verdict]]) -> list[NewJudgment]:
    """One judgment for a pair; for a set, one for each preference that its answer holds."""
    sets = [(task, verdict) for task, verdict in answers if task.documents]
    of_sets = [replace(each, rationale=storable(each.rationale)) for each in judgments_of_sets(cursor, sets)]
    return [_judgment(task, verdict) for task, verdict in answers if not task.documents] + of_sets


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


_FAIL = """
UPDATE workers_judgingtask task
SET state = CASE WHEN NOT %(counted)s
                   OR (failure.retryable AND task.attempts < %(most)s
                       AND (failure.reason, task.reason, task.message)
                           <> (%(unreadable)s, %(unreadable)s, failure.message)) THEN 'open' ELSE 'dead' END,
    attempts = GREATEST(0, task.attempts - CASE WHEN %(counted)s THEN 0 ELSE 1 END),
    leased_by = '', lease_until = NULL, reason = failure.reason, message = failure.message,
    next_at = clock_timestamp() + make_interval(secs => GREATEST(
        failure.retry_after, LEAST(%(cap)s, %(base)s * 2 ^ (task.attempts - 1)) * (0.5 + random())))
FROM unnest(%(ids)s::bigint[], %(fences)s::int[], %(retryable)s::bool[], %(reasons)s::text[], %(messages)s::text[],
            %(retry_after)s::float8[]) AS failure (id, fence, retryable, reason, message, retry_after)
WHERE task.id = failure.id AND task.fence = failure.fence AND task.state IN ('leased', 'open')
  AND EXISTS (SELECT 1 FROM workers_attempt attempt WHERE attempt.task_id = failure.id
              AND attempt.fence = failure.fence AND attempt.call = 1 AND attempt.outcome IN ('', 'lost', 'reserved'))
"""


def fail(failures: Sequence[tuple[ClaimedTask, Failure]], *, counted: bool = True) -> int:
    """Put tasks back for a retry, or make them dead letters with their reason; returns how many it changed.

    A failure under an old fence is ignored: the task belongs to another worker by now. One that comes after its lease
    was reaped counts while nobody else has the task, and one that is reported twice counts once. One that is not `counted`
    was the endpoint's fault: the call is counted, but not as an attempt of the question. The same unreadable answer twice
    in a row is not asked for again. Pauses judges whose answers fail (`workers.judging.trouble`).
    """
    if not failures:
        return 0
    ordered = sorted(failures, key=lambda each: each[0].id)
    runs: dict[int, set[int]] = {}
    for task, _ in ordered:
        runs.setdefault(task.annotator_id, set()).add(task.run_id)
    with transaction.atomic(), prepared_cursor() as cursor:
        trouble.lock_judges(cursor, runs)
        _lock_tasks(cursor, [task for task, _ in ordered])
        cursor.execute(
            _FAIL,
            {
                "most": MAX_ATTEMPTS,
                "counted": counted,
                "unreadable": FailureKind.UNPARSEABLE.value,
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
        close_attempts(cursor, ordered)
        trouble.watch(cursor, runs)
        failpoints.reach("fail.before_commit")
    failpoints.reach("fail.after_commit")
    log_failures(ordered)
    return touched


def _wait_s(failure: Failure) -> float:
    """The wait that the judge requests, in seconds; invalid values give no wait, and a day is cut to an hour."""
    asked = failure.retry_after_s or 0.0
    return min(asked, LONGEST_RETRY_AFTER_S) if asked > 0.0 else 0.0


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
        failpoints.reach("release.before_commit")
    failpoints.reach("release.after_commit")
    return released


_REAP = """
WITH expired AS (
    SELECT id FROM workers_judgingtask
    WHERE state = 'leased' AND lease_until < clock_timestamp()
    ORDER BY id FOR UPDATE SKIP LOCKED
)
UPDATE workers_judgingtask task
SET state = CASE WHEN attempts < %(most)s THEN 'open' ELSE 'dead' END,
    reason = %(reason)s, message = 'no answer before the lease ended; its worker may have crashed',
    leased_by = '', lease_until = NULL, next_at = clock_timestamp()
FROM expired WHERE task.id = expired.id
RETURNING task.id, task.fence
"""


_DROP = """
WITH ended AS (
    SELECT task.id FROM workers_judgingtask task JOIN workers_run run ON run.id = task.run_id
    WHERE run.state IN ('cancelled', 'failed') AND NOT run.is_unanswered AND task.state <> 'leased'
      AND run.id = ANY(%(runs)s)
    ORDER BY task.id FOR UPDATE OF task SKIP LOCKED
), dropped AS (
    DELETE FROM workers_judgingtask task USING ended WHERE task.id = ended.id RETURNING task.run_id
)
UPDATE workers_run run SET tasks_planned = run.tasks_planned - lost.count
FROM (SELECT run_id, count(*) FROM dropped GROUP BY run_id) lost WHERE run.id = lost.run_id
"""


# By the counts that triggers keep: a scan of all tasks at every round of the reconciler would grow with them.
_ENDED = """
SELECT run.id FROM workers_run run
WHERE run.state IN ('cancelled', 'failed') AND NOT run.is_unanswered AND (%(run)s::bigint IS NULL OR run.id = %(run)s)
  AND (SELECT sum(tasks) FROM workers_taskcount WHERE run_id = run.id) > 0
ORDER BY run.id
"""


def drop_unfinished(*, run_id: int | None = None) -> None:
    """Delete what cancelled and failed runs (or one of them) still wanted to ask; their plan shrinks by as much. Those
    that failed because no judge answered keep their questions for a retry.

    What is leased stays until its answer, its failure or its lease's end; `reap` drops the rest.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_ENDED, {"run": run_id})
        if runs := [row[0] for row in cursor.fetchall()]:
            cursor.execute(_DROP, {"runs": runs})


def reap() -> int:
    """Take back leases that ran out, by the database's clock; returns how many. Those of cancelled runs go."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_REAP, {"most": MAX_ATTEMPTS, "reason": FailureKind.TIMEOUT.value})
        rows = cursor.fetchall()
        cursor.execute(
            "UPDATE workers_attempt attempt SET outcome = 'lost', finished_at = clock_timestamp() "
            "FROM unnest(%s::bigint[], %s::int[]) AS expired (task_id, fence) "
            "WHERE attempt.task_id = expired.task_id AND attempt.fence = expired.fence AND attempt.outcome = ''",
            [[row[0] for row in rows], [row[1] for row in rows]],
        )
        drop_unfinished()
        failpoints.reach("reap.before_commit")
    failpoints.reach("reap.after_commit")
    return len(rows)


def end_leases(token: str) -> int:
    """End the leases of a crashed process, found by the token at the end of its name, and open its tasks again.

    No two processes share a token, on whatever hosts. The lost calls stay counted: they may have been paid.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "UPDATE workers_judgingtask SET lease_until = clock_timestamp() - interval '1 second' WHERE id IN ("
            "SELECT id FROM workers_judgingtask WHERE state = 'leased' AND right(leased_by, %s) = %s "
            "ORDER BY id FOR UPDATE SKIP LOCKED)",
            [len(token) + 1, f":{token}"],
        )
        ended = int(cursor.rowcount)
    if ended:
        reap()
    return ended


# All of them at once and in id order, as `finish` and `fail` lock them: their tasks may be of several runs.
_RETRY = """
WITH dead AS (
    SELECT id FROM workers_judgingtask
    WHERE state = 'dead' AND run_id = ANY(%(runs)s) AND (%(reason)s::text IS NULL OR reason = %(reason)s)
      AND (%(annotator)s::bigint IS NULL OR annotator_id = %(annotator)s)
    ORDER BY id FOR UPDATE
), opened AS (
    UPDATE workers_judgingtask task
    SET state = 'open', attempts = 0, reason = '', message = '', next_at = clock_timestamp()
    FROM dead WHERE task.id = dead.id
    RETURNING task.run_id
)
SELECT run_id, count(*)::int FROM opened GROUP BY run_id
"""

_REOPEN = """
UPDATE workers_run SET state = 'judging', reason = '', is_spent = FALSE, is_unanswered = FALSE, finished_at = NULL
WHERE id IN (SELECT id FROM workers_run WHERE id = ANY(%s) AND (state = 'finished' OR is_unanswered)
             ORDER BY id FOR NO KEY UPDATE)
"""


# A person who orders the retry allows what it takes.
_EXTEND_BOUND = """
UPDATE workers_run run SET estimate = run.estimate || jsonb_build_object(
    'most_calls', (run.estimate->>'most_calls')::bigint
                  + ceil((run.estimate->>'most_calls')::float8 * more.questions / GREATEST(run.tasks_planned, 1))::bigint,
    'most_tokens', (run.estimate->>'most_tokens')::bigint + more.questions * (run.estimate->>'question_tokens')::bigint,
    'most_cost_micros', (run.estimate->>'most_cost_micros')::bigint
                        + more.questions * (run.estimate->>'question_cost_micros')::bigint)
FROM unnest(%s::bigint[], %s::bigint[]) AS more (run_id, questions)
WHERE run.id = more.run_id AND run.estimate->>'question_tokens' IS NOT NULL
"""


def retry_dead(*, run_ids: Sequence[int], reason: str | None = None, annotator_id: int | None = None) -> dict[int, int]:
    """Open dead tasks of these runs again, all or those of one reason or judge, with a fresh count of attempts;
    returns how many by run.

    A run that had finished without them continues. One whose budget was spent continues only if it has budget now; otherwise
    it ends again, and its questions wait for a higher limit.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_RETRY, {"runs": list(run_ids), "reason": reason, "annotator": annotator_id})
        opened: dict[int, int] = dict(cursor.fetchall())
        if opened:
            cursor.execute(_REOPEN, [list(opened)])
            cursor.execute(_EXTEND_BOUND, [list(opened), list(opened.values())])
    return opened


def open_tasks_by_annotator() -> list[tuple[int, int]]:
    """(annotator, project) of everything that could be claimed now."""
    with connection.cursor() as cursor:
        cursor.execute(
            # Order and limit make it one look at the index of open tasks for each run of a judge, however many tasks there are.
            "SELECT annotator.id, annotator.project_id FROM labeling_annotator annotator "
            "WHERE annotator.paused_at IS NULL AND EXISTS ("
            "SELECT 1 FROM workers_run_judges judge JOIN workers_run run ON run.id = judge.run_id "
            "WHERE judge.annotator_id = annotator.id AND run.state = 'judging' AND ("
            "SELECT task.id FROM workers_judgingtask task WHERE task.annotator_id = annotator.id AND task.run_id = run.id "
            "AND task.state = 'open' AND task.next_at <= clock_timestamp() ORDER BY task.next_at, task.id LIMIT 1) "
            "IS NOT NULL) ORDER BY annotator.id"
        )
        return cursor.fetchall()
