"""Trials of judges: a few real pairs of a project, and some with a known answer, before anything is bought.

A trial is a job of the stage `trial`, carried out by a worker of the judge's queue, or by a command in its own process.
Its answers are shown and not stored as judgments: a judge that nobody has chosen must not change scores. Its calls count as
the project's. The rules of the verdict are in `workers.jobs.trial_verdict`.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from django.db import connection, transaction

from labeling import audit
from labeling.access.redaction import redact
from labeling.models import Annotator, Candidate
from labeling.plugins import Judge, get_plugin
from labeling.records import Comparison, Failure, FailureKind, TextRecord, Verdict
from labeling.stored_texts import read_stored, stored_json, stored_text
from scoring.annotators.known_answers import draw_known_pairs
from scoring.sampling.draw import comparable_query_ids
from workers.broker.hints import leave_hint
from workers.budgets.spend import calls_a_question
from workers.endpoints.exchanges import Exchange, listening
from workers.endpoints.session import ask_within_limits
from workers.jobs.leasing import (
    MOST_ATTEMPTS,
    JobClaim,
    carry_out,
    carry_out_here,
    create_claimed,
    hold,
    waiting_job_ids,
)
from workers.jobs.paid_calls import count_calls, reserve_calls
from workers.jobs.trial_verdict import Tried, verdict_on
from workers.judging.batches import prepared_judge
from workers.models import Job, JudgeTrial

STAGE = stored_text("trial")
QUESTIONS = KNOWN = 5
MOST_QUERIES = 200
# The most calls at once; a trial ends early where the first questions all fail.
CALLS_AT_ONCE = 8
ENOUGH_FAILED = 3
SHOWN_CHARACTERS = 20_000

GIVEN_UP = f"the worker crashed {MOST_ATTEMPTS} times during the trial; see its log, then test the judge again"
DONE = stored_text("the judge was asked %(n)s questions", one="the judge was asked %(n)s question")


class TrialRefused(ValueError):
    """The judge cannot be tried; the message says what to change."""


@dataclass(frozen=True, slots=True)
class TrialQuestion:
    """A pair to ask about, and P(a is the more relevant) where it is known from gold, grades or people."""

    comparison: Comparison
    known: float | None


def order_trial(judge: Annotator, *, by: Any = None) -> JudgeTrial:
    """Store a trial and send the hint that starts it. Raises TrialRefused."""
    _check(judge)
    with transaction.atomic():
        job = Job.objects.create(project=judge.project, stage=STAGE)
        trial = _store(judge, job.pk, by=by)
        transaction.on_commit(lambda: leave_hint("trial", job.pk))
    return trial


def try_now(judge: Annotator) -> JudgeTrial:
    """Store a trial and carry it out in this process; no worker can take it. Raises TrialRefused."""
    _check(judge)
    with transaction.atomic():
        claim = create_claimed(judge.project, STAGE, worker=f"command@{socket.gethostname()}:{os.getpid()}")
        trial = _store(judge, claim.job_id)
    carry_out_here(claim, _ask_and_report, given_up=GIVEN_UP)
    return JudgeTrial.objects.select_related("job", "annotator").get(pk=trial.pk)


def run_trial(job_id: int, *, worker: str = "") -> None:
    """Carry a trial out unless another worker does; an error is written into its job."""
    carry_out(job_id, STAGE, _ask_and_report, worker=worker, given_up=GIVEN_UP)


def waiting_trial_ids() -> list[int]:
    """Jobs that wait for a worker: new ones, and those whose lease has run out."""
    return waiting_job_ids(STAGE)


def _check(judge: Annotator) -> None:
    if problems := cast("type[Judge]", get_plugin("judge", judge.plugin)).problems(judge.options):
        raise TrialRefused(f"judge {judge.name!r} is not available: {'; '.join(problems)}")
    if not comparable_query_ids(judge.project_id, None):
        raise TrialRefused(
            f"project {judge.project.slug!r} has no query with two candidates or more; import documents first"
        )


def _store(judge: Annotator, job_id: int, *, by: Any = None) -> JudgeTrial:
    trial = JudgeTrial.objects.create(project=judge.project, annotator=judge, job_id=job_id, created_by=by)
    subject = f"{judge.name} ({judge.pk})"
    audit.note("trial.ordered", project=judge.project, actor=by, subject=subject, trial=trial.pk)
    return trial


# --- asking ------------------------------------------------------------------------------


def _ask_and_report(claim: JobClaim) -> str:
    """Ask, judge the judge and store the report; returns what was done."""
    trial = JudgeTrial.objects.select_related("project", "annotator").get(job_id=claim.job_id)
    if not trial.report:  # else a worker crashed between storing it and ending the job
        questions = choose_questions(trial.annotator, np.random.default_rng(trial.pk))
        if not questions:
            raise TrialRefused("no query has two candidates of different texts; import documents first")
        rows = _ask(trial, questions)
        report = {**_verdict(rows), "rows": rows}
        with transaction.atomic():
            hold(claim)
            _forget_raw(trial)
            trial.report = report
            trial.save(update_fields=["report"])
    return DONE % {"n": len(trial.report["rows"])}


def _forget_raw(trial: JudgeTrial) -> None:
    """Delete the requests and raw answers of earlier trials of this judge."""
    for earlier in JudgeTrial.objects.filter(annotator=trial.annotator, pk__lt=trial.pk).exclude(report={}):
        for row in earlier.report.get("rows", []):
            row["exchanges"] = []
        earlier.save(update_fields=["report"])


def choose_questions(judge: Annotator, rng: np.random.Generator) -> list[TrialQuestion]:
    """Up to QUESTIONS random pairs of the project, and up to KNOWN other pairs with a known answer; every other is swapped."""
    queries = comparable_query_ids(judge.project_id, None)
    chosen = sorted(rng.permutation(queries)[:MOST_QUERIES].tolist())
    known = [(a, b) for a, b, _ in draw_known_pairs(chosen, KNOWN, rng)]
    pairs = [*_random_pairs(chosen, set(known), rng), *known]
    truth = _known_answers(known)
    rows = Candidate.objects.select_related("query", "document").in_bulk({side for pair in pairs for side in pair})
    return [
        TrialQuestion(_comparison(judge, place, rows[a], rows[b]), truth.get((a, b)))
        for place, (a, b) in enumerate(pairs)
    ]


def _random_pairs(
    queries: Sequence[int], taken: set[tuple[int, int]], rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Up to QUESTIONS pairs of candidates of one query each, of different texts, from as many queries as there are."""
    found: dict[tuple[int, int], None] = {}
    some = rng.permutation(np.array(queries))[:QUESTIONS].tolist()
    for place in range(4 * QUESTIONS):
        rows = (
            Candidate.objects.filter(query=some[place % len(some)])
            .order_by("id")
            .values_list("id", "document__text_hash")
        )
        texts = dict(rows)
        a, b = sorted(rng.choice(np.array(list(texts)), 2, replace=False).tolist())
        if (a, b) not in taken and texts[a] != texts[b]:
            found[a, b] = None
        if len(found) == QUESTIONS:
            break
    return list(found)


_KNOWN = """
SELECT a.id, b.id, COALESCE(
    (SELECT gold.preference FROM labeling_pair pair JOIN labeling_goldanswer gold ON gold.pair_id = pair.id
     WHERE pair.a_id = a.id AND pair.b_id = b.id),
    (sign(a.grade - b.grade) + 1) / 2,
    (SELECT avg(answer.preference) FROM labeling_pair pair JOIN labeling_live_judgment answer ON answer.pair_id = pair.id
     WHERE pair.a_id = a.id AND pair.b_id = b.id AND answer.by_person AND answer.kind = 'preference'))::float8
FROM unnest(%s::bigint[], %s::bigint[]) AS wanted (a_id, b_id)
JOIN labeling_candidate a ON a.id = wanted.a_id JOIN labeling_candidate b ON b.id = wanted.b_id
"""


def _known_answers(pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], float]:
    """P(a is the more relevant) of these pairs: gold, else grades, else the mean of people."""
    with connection.cursor() as cursor:
        cursor.execute(_KNOWN, [[a for a, _ in pairs], [b for _, b in pairs]])
        return {(a, b): truth for a, b, truth in cursor.fetchall() if truth is not None}


def _comparison(judge: Annotator, place: int, a: Candidate, b: Candidate) -> Comparison:
    query = TextRecord(a.query_id, a.query.text)
    return Comparison(
        key=place,
        query_a=query,
        query_b=query,
        a=TextRecord(a.document_id, a.document.text),
        b=TextRecord(b.document_id, b.document.text),
        swapped=place % 2 == 1,
        instruction=judge.project.instruction,
    )


def _ask(trial: JudgeTrial, questions: Sequence[TrialQuestion]) -> list[dict[str, Any]]:
    """A row for each question that was asked; it ends early where none of the first is answered."""
    judge = prepared_judge(trial.annotator_id)
    at_once = max(1, CALLS_AT_ONCE // calls_a_question(trial.annotator_id))
    rows: list[dict[str, Any]] = []
    for start in range(0, len(questions), at_once):
        batch = questions[start : start + at_once]
        reserved = reserve_calls(trial, len(batch))
        with listening() as heard:
            answers = answers_of(judge, [each.comparison for each in batch])
        count_calls(trial, answers, reserved=reserved)
        rows += [_row(question, answer, heard) for question, answer in zip(batch, answers, strict=True)]
        if len(rows) >= ENOUGH_FAILED and all(row["preference"] is None for row in rows):
            break
    return rows


def answers_of(judge: Judge, batch: Sequence[Comparison]) -> list[Verdict | Failure]:
    """One answer for each; an exception of the plugin fails them all, as in a run."""
    try:
        answers = ask_within_limits(judge, batch)
    except Exception as error:  # a plugin may be anybody's
        failure = Failure(FailureKind.JUDGE_ERROR, f"{type(error).__name__}: {error}", retryable=True)
        return [failure] * len(batch)
    if len(answers) != len(batch) or not all(isinstance(each, Verdict | Failure) for each in answers):
        message = f"the judge gave {len(answers)} answers to {len(batch)} questions, or answers of another type"
        return [Failure(FailureKind.JUDGE_ERROR, message, retryable=False)] * len(batch)
    return answers


def _row(question: TrialQuestion, answer: Verdict | Failure, heard: Sequence[Exchange]) -> dict[str, Any]:
    """The question, its answer and its calls as JSON; without keys, and no longer than a page can show."""
    comparison, usage = question.comparison, answer.usage
    mine = [each for each in heard if each.key in (None, comparison.key)]
    verdict = answer if isinstance(answer, Verdict) else None
    failure = answer if isinstance(answer, Failure) else None
    return {
        "query": _shown(comparison.query_a.text),
        "a": _shown(comparison.a.text),
        "b": _shown(comparison.b.text),
        "swapped": comparison.swapped,
        "known": question.known,
        "preference": verdict.preference if verdict else None,
        "kind": answer.kind.value,
        "message": _shown(redact(failure.message)) if failure else "",
        "rationale": _shown(verdict.rationale) if verdict else "",
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_micros": usage.cost_micros,
        "latency_s": round(usage.latency_s, 3),
        "exchanges": [
            {
                "request": _shown(redact(_as_json(each.request))),
                "status": each.status,
                "reply": _shown(redact(each.reply)),
            }
            for each in mine
        ],
    }


def _as_json(request: Any) -> str:
    return json.dumps(request, ensure_ascii=False, indent=2)


def _shown(text: str) -> str:
    text = text.replace("\x00", " ").encode("utf-8", "replace").decode()
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


def _verdict(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The verdict as JSON, with the reason; the message of a failure says what to do."""
    tried = [Tried(row["kind"], row["message"], row["preference"], row["swapped"], row["known"]) for row in rows]
    found = verdict_on(tried)
    return {"verdict": found.verdict, "reason": stored_json(found.reason)}


def reason_of(trial: JudgeTrial) -> str:
    """The reason of the verdict, as a sentence that can be translated."""
    return read_stored(trial.report.get("reason", ""))
