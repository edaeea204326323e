"""Counts the calls of jobs that ask judges beside the queue: trials, teachings and injection probes.

Calls are stored before they are made, as many as a question can take; once the answers are there, the row has those that
were made. After a crash in between, all that may have been paid for stay counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from django.db import transaction
from django.db.models import F

from labeling.records import Failure, Verdict
from workers.budgets.limits import check_caps
from workers.budgets.operator_limits import add_spend, today
from workers.budgets.spend import calls_a_question
from workers.endpoints.failures import NotAsked
from workers.judging.attempts import log_failure
from workers.models import InjectionProbe, JudgeTeaching, JudgeTrial

Paid = InjectionProbe | JudgeTrial | JudgeTeaching
COUNTED = ["calls", "input_tokens", "output_tokens", "cost_micros"]


@dataclass(frozen=True, slots=True)
class Reserved:
    """Calls that are counted before they are made: of which judge, and on which day."""

    calls: int
    annotator_id: int
    day: date


def reserve_calls(job: Paid, questions: int, *, annotator_id: int | None = None) -> Reserved:
    """Store the most calls that so many questions to the job's judge, or to another, can take. Raises CapReached."""
    asked = annotator_id or job.annotator_id
    with transaction.atomic():
        check_caps(job.project_id, asked, questions)
        calls = questions * calls_a_question(asked)
        type(job)._default_manager.filter(pk=job.pk).update(calls=F("calls") + calls)
        reserved = Reserved(calls, asked, today())
        add_spend(asked, day=reserved.day, calls=calls)
    return reserved


def count_calls(job: Paid, answers: Sequence[Verdict | Failure], *, reserved: Reserved) -> None:
    """Replace the reserved calls by those that were made, and add their tokens and cost."""
    usages = [answer.usage for answer in answers]
    calls = sum(map(calls_made, answers)) - reserved.calls
    read, written = sum(usage.input_tokens for usage in usages), sum(usage.output_tokens for usage in usages)
    cost = sum(usage.cost_micros for usage in usages)
    with transaction.atomic():
        type(job)._default_manager.filter(pk=job.pk).update(
            calls=F("calls") + calls,
            input_tokens=F("input_tokens") + read,
            output_tokens=F("output_tokens") + written,
            cost_micros=F("cost_micros") + cost,
        )
        add_spend(reserved.annotator_id, day=reserved.day, calls=calls, read=read, written=written, cost_micros=cost)
    job.refresh_from_db(fields=COUNTED)
    for answer in answers:
        if isinstance(answer, Failure) and not isinstance(answer, NotAsked):
            log_failure(answer, judge=job.annotator_id)


def calls_made(answer: Verdict | Failure) -> int:
    """The calls that one answer took; a question that was not asked took none."""
    return 0 if isinstance(answer, NotAsked) else len(answer.usage.calls) or 1
