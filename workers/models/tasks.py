"""Judging tasks and the calls that were made for them. Their transitions are in `workers.judging.queue`."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from labeling.models import Annotator, Pair, visible_through
from labeling.records import AnswerKind, FailureKind
from workers.models.runs import Run

FAILURE_KINDS = [(kind.value, kind.value.replace("_", " ")) for kind in FailureKind]


class JudgingTask(models.Model):
    """Unfinished work: one question to one judge in one order. Deleted by the transaction that
    stores the judgment; dead letters stay with their reason.

    `documents`: of a question about a set, the ids of its candidates in the order in which they are shown (backwards where
    `swapped`); the pair is one of the set's.
    """

    class State(models.TextChoices):
        OPEN = "open", "open"
        LEASED = "leased", "being asked"
        DEAD = "dead", "dead"

    # Run and annotator are checked once a statement, by the keys of `TaskCount` and by triggers (`0035_tasks_checked_at_once`).
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="tasks", db_constraint=False)
    # Without indexes of their own: `judging_task_once` begins with the pair, `judging_task_due` with the annotator.
    pair = models.ForeignKey(Pair, on_delete=models.CASCADE, related_name="tasks", db_index=False)
    annotator = models.ForeignKey(
        Annotator, on_delete=models.CASCADE, related_name="tasks", db_index=False, db_constraint=False
    )
    swapped = models.BooleanField(default=False)
    documents = ArrayField(models.BigIntegerField(), null=True, blank=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    fence = models.PositiveIntegerField(default=0)
    leased_by = models.CharField(max_length=200, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField(db_default=Now())
    reason = models.CharField(max_length=30, choices=FAILURE_KINDS, blank=True)
    message = models.TextField(blank=True)

    objects = visible_through("run__project").as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["pair", "annotator", "swapped"], name="judging_task_once"),
            models.CheckConstraint(
                condition=Q(state="leased", lease_until__isnull=False) & ~Q(leased_by="")
                | Q(state__in=["open", "dead"], lease_until__isnull=True, leased_by=""),
                name="judging_task_lease_fits_state",
            ),
            models.CheckConstraint(condition=~Q(state="dead") | ~Q(reason=""), name="judging_task_dead_has_reason"),
            models.CheckConstraint(
                condition=Q(documents__isnull=True) | Q(documents__len__gte=3), name="judging_task_set_has_three"
            ),
        ]
        indexes = [
            models.Index(
                fields=["annotator", "run", "next_at", "id"], condition=Q(state="open"), name="judging_task_due"
            ),
            models.Index(fields=["lease_until"], condition=Q(state="leased"), name="judging_task_leased"),
            models.Index(fields=["run", "reason"], condition=Q(state="dead"), name="judging_task_dead"),
            # Those that failed and wait for a retry too; all others are in none of its entries.
            models.Index(fields=["run"], condition=~Q(reason=""), name="judging_task_failed"),
        ]


class TaskCount(models.Model):
    """The number of a judge's tasks in a run, in any state, spread over some rows (`shard`).

    Triggers on `JudgingTask` keep them, as those on `Attempt` keep `Spend`: counting the tasks of a large run takes seconds. Read the
    sums by `workers.runs.progress.count_tasks`.
    """

    run = models.ForeignKey(
        Run, on_delete=models.CASCADE, related_name="task_counts", db_constraint=False, db_index=False
    )
    annotator_id = models.BigIntegerField()
    shard = models.SmallIntegerField()
    tasks = models.BigIntegerField(default=0)

    objects = visible_through("run__project").as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "annotator_id", "shard"], name="task_count_once")]


class Attempt(models.Model):
    """One paid call, written before it is made. No foreign key to the task: tasks are deleted, calls stay.

    `latency_ms` is what the judge measured of the call itself; None where it measured nothing. A failed call has its
    `message`, whether a retry could help, and whether the endpoint's outage caused it: then it says nothing of the judge.
    """

    # The outcomes of calls that were answered. The trigger that keeps `Spend` counts the same (migration 0007_books).
    ANSWERED = tuple(kind.value for kind in AnswerKind)
    # The outcome of a question in a batch that is out. Its tokens and cost are the upper bounds that are reserved for it.
    RESERVED = "reserved"

    task_id = models.BigIntegerField()
    fence = models.PositiveIntegerField()
    call = models.PositiveSmallIntegerField(default=1)
    # Run and judge are checked once a statement (`0038_attempts_checked_at_once`). Their indexes are attempt_by_run_and_end and
    # attempt_by_judge_and_end.
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="attempts", db_index=False, db_constraint=False)
    annotator = models.ForeignKey(
        Annotator, on_delete=models.PROTECT, related_name="attempts", db_index=False, db_constraint=False
    )
    outcome = models.CharField(max_length=30, blank=True)
    message = models.TextField(blank=True, db_default="")
    is_retryable = models.BooleanField(default=False, db_default=False)
    is_outage = models.BooleanField(default=False, db_default=False)
    input_tokens = models.PositiveIntegerField(default=0)
    output_tokens = models.PositiveIntegerField(default=0)
    cost_micros = models.PositiveBigIntegerField(default=0)
    latency_ms = models.PositiveIntegerField(null=True, blank=True)
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = visible_through("run__project").as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["task_id", "fence", "call"], name="attempt_once")]
        indexes = [
            models.Index(fields=["run", "finished_at"], name="attempt_by_run_and_end"),
            models.Index(fields=["annotator", "finished_at"], name="attempt_by_judge_and_end"),
            # Few calls fail, and the page of failures lists the latest of them.
            models.Index(
                fields=["run", "id"],
                condition=Q(outcome__in=[kind.value for kind in FailureKind]),
                name="attempt_failed",
            ),
        ]
