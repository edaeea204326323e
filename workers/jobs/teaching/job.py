"""Teaches a judge: shows a copy of it people's answers, asks both about held-out pairs, and says whether it is better.

A teaching is a job of the stage `teaching`, carried out by a worker of the judge's queue, or by a command in its own
process. Its answers are shown and not stored as judgments; its calls count as the project's. The choice of questions and the
answers of each batch are stored, so that a worker that takes over asks only the rest.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, cast

import numpy as np
from django.db import transaction
from django.db.models.functions import Now

from labeling import audit
from labeling.access.annotators import get_judge
from labeling.access.redaction import redact
from labeling.models import Annotator
from labeling.plugins import Judge, get_plugin, registered
from labeling.records import Failure, Verdict
from labeling.stored_texts import read_stored, stored_json, stored_text
from scoring.annotators.known_answers import PeoplesAnswer
from workers.broker.hints import leave_hint
from workers.budgets.limits import FIRST_QUESTIONS, CapReached, check_caps, is_limited
from workers.budgets.operator_limits import lock_for
from workers.budgets.spend import calls_a_question
from workers.jobs.leasing import (
    MOST_ATTEMPTS,
    JobClaim,
    carry_out,
    carry_out_here,
    create_claimed,
    hold,
    report_progress,
    unfinished_jobs,
    waiting_job_ids,
)
from workers.jobs.paid_calls import count_calls, reserve_calls
from workers.jobs.teaching.plan import (
    HeldOut,
    TeachingOptions,
    TeachingRefused,
    examples_from,
    held_out_questions,
    split_answers,
)
from workers.jobs.teaching.verdict import Answered, failed_from_the_start, verdict_on
from workers.jobs.trial import answers_of
from workers.judging.batches import prepared_judge
from workers.models import Job, JudgeTeaching

STAGE = stored_text("teaching")
# The most calls at once; a teaching ends early where one of the judges answers none of its first questions.
CALLS_AT_ONCE = 16
ENOUGH_FAILED = 5
LONGEST_MESSAGE = 500

GIVEN_UP = f"the worker crashed {MOST_ATTEMPTS} times during the teaching; see its log, then teach the judge again"
DONE = stored_text(
    "both judges were asked %(n)s held-out questions", one="both judges were asked %(n)s held-out question"
)

Report = Callable[[int, int], None]


def can_be_taught(plugin: str) -> bool:
    """Whether judges of this plugin have the option `examples`; False where it is not installed."""
    return plugin in _teachable()


def _teachable() -> list[str]:
    return [name for name, plugin in registered("judge").items() if "examples" in plugin.Options.model_fields]


def order_teaching(judge: Annotator, options: TeachingOptions | None = None, *, by: Any = None) -> JudgeTeaching:
    """Store a teaching and send the hint that starts it. Raises TeachingRefused."""
    options = options or TeachingOptions()
    _check(judge, options)
    with transaction.atomic():
        job = Job.objects.create(project=judge.project, stage=STAGE)
        teaching = _store(judge, job.pk, options, by=by)
        transaction.on_commit(lambda: leave_hint("teach", job.pk))
    return teaching


def teach_now(judge: Annotator, options: TeachingOptions, *, report: Report | None = None) -> JudgeTeaching:
    """Store a teaching and carry it out in this process; no worker can take it. Raises TeachingRefused."""
    _check(judge, options)
    with transaction.atomic():
        claim = create_claimed(judge.project, STAGE, worker=f"command@{socket.gethostname()}:{os.getpid()}")
        teaching = _store(judge, claim.job_id, options)
    carry_out_here(claim, lambda claim: _teach(claim, report), given_up=GIVEN_UP)
    return JudgeTeaching.objects.select_related("job", "annotator", "taught").get(pk=teaching.pk)


def cancel_teaching(teaching: JudgeTeaching, *, by: Any = None) -> bool:
    """Cancel a teaching; False where it had ended. Calls that are being made are still paid; what was answered stays."""
    unfinished = [Job.State.OPEN, Job.State.LEASED]
    with transaction.atomic():
        moved = Job.objects.filter(pk=teaching.job_id, stage=STAGE, state__in=unfinished).update(
            state=Job.State.CANCELLED, lease_until=None, leased_by="", finished_at=Now()
        )
        if not moved:
            return False
        subject = f"{teaching.annotator.name} ({teaching.annotator_id})"
        audit.note("teaching.cancelled", project=teaching.project, actor=by, subject=subject, teaching=teaching.pk)
    teaching.job.refresh_from_db()
    return True


def run_teaching(job_id: int, *, worker: str = "") -> None:
    """Carry a teaching out unless another worker does; an error is written into its job."""
    carry_out(job_id, STAGE, _teach, worker=worker, given_up=GIVEN_UP)


def waiting_teaching_ids() -> list[int]:
    """Jobs that wait for a worker: new ones, and those whose lease has run out."""
    return waiting_job_ids(STAGE)


def reason_of(teaching: JudgeTeaching) -> str:
    """The reason of the verdict, as a sentence that can be translated."""
    return read_stored(teaching.report.get("reason", ""))


def _check(judge: Annotator, options: TeachingOptions) -> None:
    if not can_be_taught(judge.plugin):
        raise TeachingRefused(
            f"judge {judge.name!r} ({judge.plugin}) has no option 'examples', so it cannot be shown people's answers; "
            f"teach a judge of {' or '.join(_teachable())}"
        )
    if judge.paused_at is not None:
        reason = str(read_stored(judge.pause_reason))
        raise TeachingRefused(f"judge {judge.name!r} is paused ({reason}); resume it on the page Judges, then teach it")
    if problems := cast("type[Judge]", get_plugin("judge", judge.plugin)).problems(judge.options):
        raise TeachingRefused(f"judge {judge.name!r} is not available: {'; '.join(problems)}")
    unfinished = unfinished_jobs(judge.project, STAGE).filter(teaching__annotator=judge).first()
    if unfinished is not None:
        raise TeachingRefused(f"judge {judge.name!r} is being taught already; wait for job {unfinished.pk} to end")
    split_answers(judge.project, options)
    try:
        with transaction.atomic():
            check_caps(judge.project_id, judge.pk, 1)
    except CapReached as error:
        raise TeachingRefused(str(error)) from error


def _store(judge: Annotator, job_id: int, options: TeachingOptions, *, by: Any = None) -> JudgeTeaching:
    teaching = JudgeTeaching.objects.create(
        project=judge.project, annotator=judge, job_id=job_id, created_by=by, options=options.model_dump()
    )
    subject = f"{judge.name} ({judge.pk})"
    audit.note("teaching.ordered", project=judge.project, actor=by, subject=subject, teaching=teaching.pk)
    return teaching


# --- teaching and asking -----------------------------------------------------------------


def _teach(claim: JobClaim, report: Report | None = None) -> str:
    """Choose the examples, ask both judges, judge them and store the report; returns what was done."""
    teaching = JudgeTeaching.objects.select_related("project", "annotator__project", "taught").get(job_id=claim.job_id)
    if not teaching.report:  # else a worker crashed between storing it and ending the job
        options = TeachingOptions.model_validate(teaching.options)
        if teaching.taught is None:
            split = split_answers(teaching.project, options)
            teaching.taught = _make_taught(teaching, examples_from(teaching.project, split, options))
            teaching.held_out = [asdict(each) for each in split.held_out]
            teaching.save(update_fields=["taught", "held_out"])
        held_out = [PeoplesAnswer(**each) for each in teaching.held_out]
        _ask(claim, teaching, held_out_questions(teaching.annotator, held_out), report)
        _conclude(claim, teaching, options)
    return DONE % {"n": len(teaching.rows)}


def _make_taught(teaching: JudgeTeaching, examples: Sequence[Any]) -> Annotator:
    judge = teaching.annotator
    options = {**judge.options, "examples": [example.model_dump() for example in examples]}
    name = f"{judge.name[:160]} + {len(examples)} examples ({teaching.pk})"
    return get_judge(teaching.project, judge.plugin, options, name=name)


def _conclude(claim: JobClaim, teaching: JudgeTeaching, options: TeachingOptions) -> None:
    found = verdict_on(_answered(teaching.rows), np.random.default_rng([options.seed, 3]))
    usage = {who: _usage(teaching.rows, who) for who in ("old", "taught")}
    assert teaching.taught is not None
    examples = len(teaching.taught.options["examples"])
    with transaction.atomic():
        hold(claim)
        teaching.report = {**found, "reason": stored_json(found["reason"]), "usage": usage, "examples": examples}
        teaching.save(update_fields=["report"])


def _answered(rows: Sequence[dict[str, Any]]) -> list[Answered]:
    return [
        Answered(
            row["query"],
            row["known"],
            row["old"]["preference"],
            row["taught"]["preference"],
            row["taught"]["message"] or row["old"]["message"],
        )
        for row in rows
    ]


def _usage(rows: Sequence[dict[str, Any]], who: str) -> dict[str, int]:
    """Questions, answers, tokens and cost of one of the judges."""
    mine = [row[who] for row in rows]
    totals = {name: sum(each[name] for each in mine) for name in ("input_tokens", "output_tokens", "cost_micros")}
    return {"questions": len(mine), "answers": sum(each["preference"] is not None for each in mine), **totals}


def _ask(claim: JobClaim, teaching: JudgeTeaching, questions: Sequence[HeldOut], report: Report | None) -> None:
    """Ask both judges what is not in `rows` yet; ends early where one of them answers none of its first questions."""
    report_progress(claim, len(teaching.rows), len(questions))
    while len(teaching.rows) < len(questions):
        batch = questions[len(teaching.rows) :][: _at_once(teaching)]
        old, taught = _answers(teaching, batch)
        rows = [_row(question, *both) for question, *both in zip(batch, old, taught, strict=True)]
        with transaction.atomic():
            hold(claim)
            teaching.rows = [*teaching.rows, *rows]
            teaching.save(update_fields=["rows"])
        report_progress(claim, len(teaching.rows), len(questions))
        if report is not None:
            report(len(teaching.rows), len(questions))
        if len(teaching.rows) >= ENOUGH_FAILED and failed_from_the_start(_answered(teaching.rows)) is not None:
            return


def _at_once(teaching: JudgeTeaching) -> int:
    """Questions of a batch. A cap allows few at once to a judge whose price is not known yet, as the taught one's."""
    judges = _both(teaching)
    most = FIRST_QUESTIONS if is_limited(teaching.project_id, judges) else CALLS_AT_ONCE
    calls = max(map(calls_a_question, judges))
    return max(1, most // calls)


def _both(teaching: JudgeTeaching) -> list[int]:
    return [judge for judge in (teaching.annotator_id, teaching.taught_id) if judge is not None]


def _answers(teaching: JudgeTeaching, batch: Sequence[HeldOut]) -> list[list[Verdict | Failure]]:
    """Both judges' answers to a batch, counted. Raises CapReached before any call where the project's caps forbid one."""
    judges = _both(teaching)
    with transaction.atomic():
        lock_for(judges)
        reserved = [reserve_calls(teaching, len(batch), annotator_id=judge) for judge in judges]
    found = []
    for judge, calls in zip(judges, reserved, strict=True):
        found.append(answers_of(prepared_judge(judge), [each.comparison for each in batch]))
        count_calls(teaching, found[-1], reserved=calls)
    return found


def _row(question: HeldOut, old: Verdict | Failure, taught: Verdict | Failure) -> dict[str, Any]:
    return {
        "query": question.query,
        "a": question.comparison.a.id,
        "b": question.comparison.b.id,
        "swapped": question.comparison.swapped,
        "known": question.known,
        "old": _said(old),
        "taught": _said(taught),
    }


def _said(answer: Verdict | Failure) -> dict[str, Any]:
    """One answer as JSON, without keys."""
    message = "" if isinstance(answer, Verdict) else answer.message
    return {
        "preference": answer.preference if isinstance(answer, Verdict) else None,
        "kind": answer.kind.value,
        "message": redact(message).replace("\x00", " ")[:LONGEST_MESSAGE],
        "input_tokens": answer.usage.input_tokens,
        "output_tokens": answer.usage.output_tokens,
        "cost_micros": answer.usage.cost_micros,
    }
