"""Counts the calls of jobs that ask judges beside the queue: trials, teachings and injection probes.

Calls are stored before they are made, as many as a question can take; once the answers are there, the row has those that
were made. After a crash in between, all that may have been paid for stay counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction
from django.db.models import F

from labeling.records import Failure, Verdict
from workers.budgets.limits import check_caps
from workers.budgets.spend import calls_a_question
from workers.endpoints.failures import NotAsked
from workers.judging.attempts import log_failure
from workers.models import InjectionProbe, JudgeTeaching, JudgeTrial

Paid = InjectionProbe | JudgeTrial | JudgeTeaching
COUNTED = ["calls", "input_tokens", "output_tokens", "cost_micros"]


def reserve_calls(job: Paid, questions: int, *, annotator_id: int | None = None) -> int:
    """Store the most calls that so many questions to the job's judge, or to another, can take, and return their number.
    Raises CapReached.
    """
    asked = annotator_id or job.annotator_id
    with transaction.atomic():
        check_caps(job.project_id, asked, questions)
        calls = questions * calls_a_question(asked)
        type(job)._default_manager.filter(pk=job.pk).update(calls=F("calls") + calls)
    return calls


def count_calls(job: Paid, answers: Sequence[Verdict | Failure], *, reserved: int) -> None:
    """Replace the reserved calls by those that were made, and add their tokens and cost."""
    usages = [answer.usage for answer in answers]
    type(job)._default_manager.filter(pk=job.pk).update(
        calls=F("calls") + sum(map(calls_made, answers)) - reserved,
        input_tokens=F("input_tokens") + sum(usage.input_tokens for usage in usages),
        output_tokens=F("output_tokens") + sum(usage.output_tokens for usage in usages),
        cost_micros=F("cost_micros") + sum(usage.cost_micros for usage in usages),
    )
    job.refresh_from_db(fields=COUNTED)
    for answer in answers:
        if isinstance(answer, Failure) and not isinstance(answer, NotAsked):
            log_failure(answer, judge=job.annotator_id)


def calls_made(answer: Verdict | Failure) -> int:
    """The calls that one answer took; a question that was not asked took none."""
    return 0 if isinstance(answer, NotAsked) else len(answer.usage.calls) or 1
