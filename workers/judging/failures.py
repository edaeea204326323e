"""Questions without an answer, by reason: the name of each reason, the counts, the commonest message, and the retry.

A failure's message says what happened and what to do; pages and commands show it and add no remedy of their own. A failure is a state of its own and never a vote: it never enters a fit. The page and the REST API of failures read these;
`workers.judging.queue.retry_dead` makes the transition back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import Aggregate, Count, Q, QuerySet, TextField

from labeling import audit
from labeling.models import Annotator, Project
from labeling.records import FailureKind
from workers.broker.hints import leave_hint
from workers.judging.pausing import resume_judge, resume_troubled
from workers.judging.queue import retry_dead
from workers.models import Attempt, JudgingTask


@dataclass(frozen=True, slots=True)
class Meaning:
    """The name of a reason for readers."""

    label: str


MEANINGS: Mapping[FailureKind, Meaning] = {
    FailureKind.TIMEOUT: Meaning("no answer in time"),
    FailureKind.UNAVAILABLE: Meaning("endpoint unreachable or failing"),
    FailureKind.RATE_LIMITED: Meaning("rejected by a rate limit"),
    FailureKind.REFUSAL: Meaning("the model declined"),
    FailureKind.UNPARSEABLE: Meaning("unreadable answer"),
    FailureKind.LABEL_MASS: Meaning("the answer is none of the expected labels"),
    FailureKind.CONTEXT_OVERFLOW: Meaning("prompt too long for the model"),
    FailureKind.CONTENT_FILTER: Meaning("blocked by the provider's content filter"),
    FailureKind.OVER_BUDGET: Meaning("quota, balance or budget used up"),
    FailureKind.NOT_RECORDED: Meaning("no recorded answer"),
    FailureKind.BAD_REQUEST: Meaning("request or settings rejected"),
    FailureKind.JUDGE_ERROR: Meaning("error in the judge"),
}


class MostFrequent(Aggregate):
    """The most frequent value of a group, the first in order of equally frequent ones (PostgreSQL's `mode`)."""

    function = "mode"
    template = "%(function)s() WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = TextField()


@dataclass(frozen=True, slots=True)
class FailureCount:
    """One reason: `dead` questions stay unanswered until somebody retries them, the workers retry `waiting` ones.

    `message` is the most frequent one of this reason, with its remedy; empty where the reason did not occur.
    """

    reason: str
    label: str
    message: str
    dead: int
    waiting: int


@dataclass(frozen=True, slots=True)
class FailureFilter:
    """A selection of failures; None matches all."""

    reason: str | None = None
    annotator_id: int | None = None
    run_id: int | None = None


def failed_tasks(project: Project, chosen: FailureFilter = FailureFilter()) -> QuerySet[JudgingTask]:
    """Questions of the project whose last call failed: dead ones, and those that wait for a retry."""
    tasks = JudgingTask.objects.filter(run__project=project).exclude(reason="")
    tasks = tasks.filter(state__in=[JudgingTask.State.OPEN, JudgingTask.State.DEAD])
    if chosen.reason is not None:
        tasks = tasks.filter(reason=chosen.reason)
    if chosen.annotator_id is not None:
        tasks = tasks.filter(annotator_id=chosen.annotator_id)
    if chosen.run_id is not None:
        tasks = tasks.filter(run_id=chosen.run_id)
    return tasks


def failed_calls(project: Project, *, annotator_id: int | None = None, reason: str | None = None) -> QuerySet[Attempt]:
    """The calls of the project's runs that failed, newest first; those of questions that were answered later too."""
    calls = Attempt.objects.filter(run__project=project, outcome__in=[reason] if reason else list(FailureKind))
    if annotator_id is not None:
        calls = calls.filter(annotator_id=annotator_id)
    return calls.order_by("-id")


def failure_counts(project: Project, chosen: FailureFilter = FailureFilter()) -> list[FailureCount]:
    """All reasons, the most frequent first; reasons that did not occur have zeros."""
    others = FailureFilter(annotator_id=chosen.annotator_id, run_id=chosen.run_id)
    rows = failed_tasks(project, others).order_by().values("reason")
    found = {
        row["reason"]: (row["common"], row["dead"], row["all"] - row["dead"])
        for row in rows.annotate(
            all=Count("pk"),
            dead=Count("pk", filter=Q(state=JudgingTask.State.DEAD)),
            common=MostFrequent("message"),
        )
    }
    counts = [
        FailureCount(kind.value, meaning.label, *found.get(kind.value, ("", 0, 0)))
        for kind, meaning in MEANINGS.items()
    ]
    return sorted(counts, key=lambda each: -(each.dead + each.waiting))


def retry_failures(project: Project, chosen: FailureFilter = FailureFilter(), *, by: Any = None) -> int:
    """Retry the dead letters that `chosen` selects, in all runs; returns how many. Their judges in trouble are resumed."""
    dead = failed_tasks(project, chosen).filter(state=JudgingTask.State.DEAD)
    judges = list(dead.order_by().values_list("annotator_id", flat=True).distinct())
    runs = list(dead.order_by("run_id").values_list("run_id", flat=True).distinct())
    with transaction.atomic():
        opened = retry_dead(run_ids=runs, reason=chosen.reason, annotator_id=chosen.annotator_id)
        total = sum(opened.values())
        for judge in Annotator.objects.filter(pk__in=judges):
            resume_troubled(judge, by=by)
        if total:
            details = {"questions": total, "reason": chosen.reason or "all", "judge": chosen.annotator_id}
            subject = ", ".join(f"run {run_id}" for run_id in sorted(opened))
            audit.note("tasks.requeued", project=project, actor=by, subject=subject, **details)
    for annotator_id in judges:
        leave_hint("judge", annotator_id)
    return total


def resume_and_retry(judge: Annotator, *, by: Any = None) -> tuple[bool, int]:
    """Resume a paused judge and retry its dead letters in all runs; whether it was paused, and how many there were."""
    with transaction.atomic():
        resumed = resume_judge(judge, by=by)
        return resumed, retry_failures(judge.project, FailureFilter(annotator_id=judge.pk), by=by)
