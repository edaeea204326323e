"""Forms batches: leases open questions of one judge in one run, and reserves their upper bounds of tokens and money.

A batch is formed when it would be full, or when the round is planned and its oldest question has waited long enough. Its
row, leases, attempts and reservations are one transaction; `following` sends it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.db.models import Min, Sum
from django.db.models.functions import Now

from labeling.database import is_lost, prepared_cursor
from labeling.models import Annotator
from labeling.records import Comparison, Failure, FailureKind
from workers import failpoints
from workers.budgets.bounds import Bound
from workers.budgets.limits import NO_LIMIT, questions_covered
from workers.endpoints.batching import BatchingJudge, BatchLimits
from workers.judging import questions, queue, trouble
from workers.judging.queue import ClaimedTask
from workers.models import Attempt, Job, JudgingTask, ProviderBatch, Run

READ_AT_ONCE = 500
# The lease of a question in a batch ends with the batch, whose row ends it, however long the provider takes.
LEASE_S = 100 * 365.0 * 86400.0
# After a provider has refused a batch as too large, the next one waits so long, unless another comes back first.
REFUSED_WAIT_S = 300.0


@dataclass
class _Draft:
    """Questions for one batch: their tasks and bounds, in the order of the queue; those that cannot be asked apart."""

    tasks: list[int] = field(default_factory=list)
    bounds: list[tuple[int, int, int, int]] = field(default_factory=list)  # bytes, input, output, millionths
    unusable: dict[int, Failure] = field(default_factory=dict)


def form(annotator: Annotator, judge: BatchingJudge) -> list[ProviderBatch]:
    """Form a batch in each run of this judge that is due for one."""
    endpoint, model, limits, _ = judge.batch_channel()
    formed = []
    for run in _runs(annotator):
        last = _last_over(annotator, endpoint, model)
        size_limit = _size_limit(last)
        if last is not None and last.is_over_limit and not _may_try_again(last, limits):
            break
        most = min(limits.requests, size_limit or limits.requests, _trial_room(run, annotator))
        if not most or not _is_due(run, annotator, most, limits):
            continue
        draft = _draft(run, annotator, judge, most=most, limits=limits, tokens=_tokens_left(endpoint, model, limits))
        batch = _commit(run, annotator, draft, endpoint=endpoint, model=model, size_limit=size_limit)
        if batch is not None:
            formed.append(batch)
    return formed


def _runs(annotator: Annotator) -> list[Run]:
    if annotator.paused_at is not None:
        return []
    return list(Run.objects.filter(judges=annotator, state=Run.State.JUDGING).order_by("id"))


def _trial_room(run: Run, annotator: Annotator) -> int:
    """The number of questions to send before the judge has answered in this run: its first batch is a trial."""
    since = annotator.watched_from or annotator.created_at
    with transaction.atomic(), prepared_cursor() as cursor:
        trouble.lock_judges(cursor, [annotator.pk])
        held = trouble.hold_back(cursor, run.pk, annotator.pk, since)
    return NO_LIMIT if held is None else held


def _due_tasks(run: Run, annotator: Annotator) -> Any:
    tasks = JudgingTask.objects.filter(run=run, annotator=annotator, state=JudgingTask.State.OPEN)
    return tasks.filter(next_at__lte=Now())


def _is_due(run: Run, annotator: Annotator, most: int, limits: BatchLimits) -> bool:
    due = _due_tasks(run, annotator)
    if due.order_by("next_at", "id")[most - 1 : most].exists():
        return True
    if Job.objects.filter(run=run, stage__in=["pairs", "calibrate"], state=Job.State.OPEN).exists():
        return False  # the round is still being planned
    waited = timedelta(seconds=limits.wait_s)
    oldest = due.aggregate(oldest=Min("next_at"))["oldest"]
    return oldest is not None and due.filter(next_at__lte=Now() - waited).exists()


# --- the provider's limits ---------------------------------------------------------------


def _last_over(annotator: Annotator, endpoint: str, model: str) -> ProviderBatch | None:
    over = ProviderBatch.objects.filter(annotator=annotator, endpoint=endpoint, model=model)
    over = over.filter(state__in=[ProviderBatch.State.COMPLETED, ProviderBatch.State.FAILED])
    return over.order_by("-finished_at", "-id").first()


def _size_limit(last: ProviderBatch | None) -> int | None:
    """The most requests of the next batch: half of one that was too large, twice a full one that was not."""
    if last is None:
        return None
    if last.is_over_limit:
        return max(1, last.requests // 2)
    if last.state == ProviderBatch.State.COMPLETED and last.size_limit and last.requests >= last.size_limit:
        return 2 * last.size_limit
    return last.size_limit


def _may_try_again(last: ProviderBatch, limits: BatchLimits) -> bool:
    """Whether enough time has passed since the provider refused a batch, or nothing else of ours is out there."""
    out = ProviderBatch.objects.filter(endpoint=last.endpoint, model=last.model, state__in=ProviderBatch.OUT)
    waits = timedelta(seconds=REFUSED_WAIT_S if out.exists() else min(REFUSED_WAIT_S, limits.poll_s))
    return ProviderBatch.objects.filter(pk=last.pk, finished_at__lte=Now() - waits).exists()


def _tokens_left(endpoint: str, model: str, limits: BatchLimits) -> int | None:
    """The tokens that `batch_max_tokens` leaves next to the unfinished batches; None without a limit."""
    if limits.tokens is None:
        return None
    out = ProviderBatch.objects.filter(endpoint=endpoint, model=model, state__in=ProviderBatch.OUT)
    return limits.tokens - int(out.aggregate(out=Sum("input_tokens"))["out"] or 0)


# --- the questions -----------------------------------------------------------------------


def _draft(
    run: Run, annotator: Annotator, judge: BatchingJudge, *, most: int, limits: BatchLimits, tokens: int | None
) -> _Draft:
    """The oldest open questions that fit into one batch."""
    draft, size, read = _Draft(), 0, 0
    rows = list(
        _due_tasks(run, annotator).order_by("next_at", "id").values_list("id", "pair_id", "swapped", "documents")[:most]
    )
    for start in range(0, len(rows), READ_AT_ONCE):
        tasks = [
            ClaimedTask.of((pk, 0, 0, run.pk, pair, annotator.pk, swapped, documents))
            for pk, pair, swapped, documents in rows[start : start + READ_AT_ONCE]
        ]
        for task, asked in _asked(annotator, judge, tasks, Bound.of(run.estimate)):
            if isinstance(asked, Failure):
                draft.unusable[task.id] = asked
                continue
            length, inputs, _, _ = asked
            if length > limits.size or (limits.tokens is not None and inputs > limits.tokens):
                message = f"the question takes {length} bytes and up to {inputs} tokens, more than a batch may hold"
                draft.unusable[task.id] = Failure(FailureKind.CONTEXT_OVERFLOW, message, retryable=False)
                continue
            size, read = size + length, read + inputs
            if size > limits.size or (tokens is not None and read > tokens):
                return draft
            draft.tasks.append(task.id)
            draft.bounds.append(asked)
    return draft


def _asked(
    annotator: Annotator, judge: BatchingJudge, tasks: Sequence[ClaimedTask], limit: Bound | None
) -> Iterator[tuple[ClaimedTask, tuple[int, int, int, int] | Failure]]:
    """The bounds of each question, at most those of the run's estimate, or why it cannot be asked."""
    for task, comparison in read_questions(annotator, tasks):
        if isinstance(comparison, Failure):
            yield task, comparison
            continue
        question = judge.batch_question(comparison)
        length = len(request_line(task, "", question.body))
        most = (question.input_tokens, question.output_tokens, question.cost_micros)
        yield task, (length, *(limit.reserved(*most) if limit else most))


def read_questions(
    annotator: Annotator, tasks: Sequence[ClaimedTask]
) -> Iterator[tuple[ClaimedTask, Comparison | Failure]]:
    """Each task with its texts, or with the failure of one that cannot be read (found by halving the list)."""
    try:
        yield from zip(tasks, questions.comparisons_of(annotator.project_id, tasks), strict=True)
    except Exception as error:  # one bad task must not fail the others
        if is_lost(error):
            raise
        if len(tasks) == 1:
            message = f"the question cannot be read: {type(error).__name__}: {error}"
            yield tasks[0], Failure(FailureKind.JUDGE_ERROR, message, retryable=True)
            return
        half = len(tasks) // 2
        yield from read_questions(annotator, tasks[:half])
        yield from read_questions(annotator, tasks[half:])


def custom_id(task: ClaimedTask) -> str:
    """The name of a question in its batch: its task and the fence of its lease."""
    return f"{task.id}-{task.fence}"


def request_line(task: ClaimedTask, url: str, body: dict[str, Any]) -> bytes:
    """One line of the file of a batch."""
    row = {"custom_id": custom_id(task), "method": "POST", "url": url, "body": body}
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


# --- the transaction ---------------------------------------------------------------------

_LEASE = """
WITH asked AS (
    SELECT * FROM unnest(%(ids)s::bigint[], %(inputs)s::int[], %(outputs)s::int[], %(costs)s::bigint[])
    AS asked (id, input_tokens, output_tokens, cost_micros)
), picked AS (
    SELECT task.id FROM workers_judgingtask task JOIN asked ON asked.id = task.id
    WHERE task.state = 'open' ORDER BY task.id FOR UPDATE OF task SKIP LOCKED
), leased AS (
    UPDATE workers_judgingtask task
    SET state = 'leased', fence = fence + 1, attempts = attempts + 1, leased_by = %(holder)s,
        lease_until = clock_timestamp() + make_interval(secs => %(lease)s)
    FROM picked WHERE task.id = picked.id
    RETURNING task.id, task.fence, task.attempts, task.run_id, task.pair_id, task.annotator_id, task.swapped,
              task.documents
), booked AS (
    INSERT INTO workers_attempt (task_id, fence, call, run_id, annotator_id, outcome, input_tokens, output_tokens,
                                 cost_micros)
    SELECT leased.id, fence, 1, run_id, annotator_id, %(reserved)s, input_tokens, output_tokens, cost_micros
    FROM leased JOIN asked ON asked.id = leased.id
)
SELECT * FROM leased ORDER BY id
"""


def _commit(
    run: Run, annotator: Annotator, draft: _Draft, *, endpoint: str, model: str, size_limit: int | None
) -> ProviderBatch | None:
    """Lease what the budgets cover, and write the batch; None where nothing was left. Unusable questions fail."""
    marker = uuid.uuid4()
    batch = ProviderBatch(marker=marker, run=run, annotator=annotator, endpoint=endpoint, model=model, requests=0)
    bounds = [(inputs + outputs, cost) for _, inputs, outputs, cost in draft.bounds]
    with transaction.atomic():
        is_alone = not ProviderBatch.objects.filter(run=run, state__in=ProviderBatch.OUT).exists()
        covered = questions_covered(run.pk, run.project_id, annotator.pk, bounds, is_alone=is_alone)
        asked = dict(zip(draft.tasks[:covered], draft.bounds[:covered], strict=True))
        sent = [asked[task.id] for task in _lease(asked, batch.holder, lease_s=LEASE_S)]
        unusable = _lease(dict.fromkeys(draft.unusable, (0, 0, 0, 0)), f"unusable:{marker}", lease_s=queue.LEASE_S)
        if sent:
            batch.requests, batch.size_limit = len(sent), size_limit
            batch.size, batch.input_tokens, batch.output_tokens, batch.cost_micros = map(sum, zip(*sent, strict=True))
            batch.save()
        failpoints.reach("batch.before_formed")
    failpoints.reach("batch.formed")
    queue.fail([(task, draft.unusable[task.id]) for task in unusable])
    return batch if sent else None


def _lease(asked: dict[int, tuple[int, int, int, int]], holder: str, *, lease_s: float) -> list[ClaimedTask]:
    values = list(asked.values())
    with connection.cursor() as cursor:
        cursor.execute(
            _LEASE,
            {
                "ids": list(asked),
                "inputs": [each[1] for each in values],
                "outputs": [each[2] for each in values],
                "costs": [each[3] for each in values],
                "holder": holder,
                "lease": lease_s,
                "reserved": Attempt.RESERVED,
            },
        )
        return [ClaimedTask.of(row) for row in cursor.fetchall()]
