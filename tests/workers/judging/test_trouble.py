"""Judges whose answers fail: paused in time by the transaction that stores their failures, whatever others do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from django.db.models.functions import Now

from labeling.models import Annotator, AuditEntry, Judgment, Project
from labeling.records import Failure, FailureKind, Usage, Verdict
from tests.factories.rows import make_judges, make_project, make_run, make_tasks
from tests.factories.working import work_until_over
from tests.processes.threads import at_once
from workers.budgets.limits import Budgets, SpendLimit
from workers.budgets.spend import spend_of_run
from workers.endpoints.failures import Excused
from workers.judging import queue, trouble
from workers.judging.failures import resume_and_retry, retry_failures
from workers.judging.pausing import pause_judge, resume_judge
from workers.judging.queue import ClaimedTask
from workers.judging.trouble import FIRST, IDENTICAL, LAST, Outcome, diagnose
from workers.models import Attempt, JudgeTrouble, JudgingTask, Run
from workers.runs.advancing import advance
from workers.runs.ordering import start_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]

REMEDY = "correct the judge's model; GET /models of the endpoint lists the names"
REFUSED = Failure(FailureKind.BAD_REQUEST, f"HTTP 400: no such model; {REMEDY}", retryable=False)


def outcomes(pattern: str) -> list[Outcome]:
    """Newest first; `.` is an answer, `r` a retryable failure, any other letter an unretryable failure of that message."""
    return [Outcome(1, "" if c == "." else "unparseable", f"{c} 12", is_retryable=c == "r") for c in pattern]


@pytest.mark.parametrize(
    ("newest_first", "is_paused"),
    [
        ("x" * (IDENTICAL - 1) + "." * 9, False),
        ("x" * IDENTICAL + "." * 40, True),
        ("xxxyxxxx" + "." * 42, False),
        ("r" * IDENTICAL + "." * 42, False),
        ("r" * (FIRST // 2) + "." * (FIRST // 2), False),
        ("r" * (FIRST // 2 + 1), True),
        ("r" * (FIRST // 2 + 1) + "." * (FIRST // 2 - 1), True),
        ("r" * (LAST // 2) + "." * (LAST // 2), False),
        ("r" * (LAST // 2 + 1) + "." * (LAST // 2 - 1), True),
        ("r" * (FIRST // 2 + 1) + "." * (FIRST // 2), False),
    ],
)
def test_the_thresholds_in_a_row_of_the_first_and_later_of_the_last(newest_first: str, is_paused: bool) -> None:
    assert (diagnose(outcomes(newest_first)) is not None) == is_paused


def test_failures_are_the_same_but_for_numbers_and_quoted_texts() -> None:
    messages = [f"P(A) + P(B) is 0.{n}; the answer is 'no {n}'" for n in range(IDENTICAL)]
    found = diagnose([Outcome(1, "label_mass", message, is_retryable=False) for message in messages])
    assert found is not None and found.startswith("8 questions in a row failed in the same way: P(A) + P(B) is 0.0")


def project_of(judges: int, *, documents: int = 12) -> tuple[Project, list[Annotator]]:
    project = make_project(queries=1, documents=documents)
    return project, make_judges(project, judges)


def claim(judge: Annotator, limit: int = 100, *, careful: bool = True) -> list[ClaimedTask]:
    return queue.claim(annotator_id=judge.pk, worker="w@host:1", limit=limit, careful=careful)


def fail_all(tasks: Sequence[ClaimedTask], failure: Failure = REFUSED, *, counted: bool = True) -> None:
    queue.fail([(task, failure) for task in tasks], counted=counted)


def test_a_run_begins_with_a_trial_of_each_judge_and_other_judges_go_on() -> None:
    project, (bad, good) = project_of(2)
    run = make_run(project, judges=[bad, good])
    tasks = claim(bad)
    assert len(tasks) == trouble.TRIAL and claim(bad) == [], "no more until the trial is over"
    fail_all(tasks[:-1])
    assert not JudgeTrouble.objects.exists() and claim(bad) == []
    fail_all(tasks[-1:])
    bad.refresh_from_db()
    assert bad.pause_reason.startswith("its trial failed: none of the first 5 questions") and claim(bad) == []
    (found,) = JudgeTrouble.objects.all()
    assert (found.annotator, found.reason, found.message) == (bad, "bad_request", REFUSED.message)
    assert AuditEntry.objects.filter(action="judge.paused").exists()
    run = work_until_over(run)
    assert (run.state, run.is_unanswered) == (Run.State.FINISHED, True)
    assert run.reason.startswith(f"finished without answers of {bad.name}; most frequent failure: HTTP 400")
    assert Judgment.objects.filter(annotator=good).count() == run.pairs_planned
    assert Attempt.objects.filter(annotator=bad).count() == trouble.TRIAL
    rows = (
        Attempt.objects.filter(annotator=bad).order_by().values_list("message", "is_retryable", "is_outage").distinct()
    )
    assert list(rows) == [(REFUSED.message, False, False)], "failed calls are in the log"


def test_a_run_that_nobody_answered_has_failed_and_goes_on_where_its_judge_is_resumed() -> None:
    project, (judge,) = project_of(1)
    run = make_run(project, judges=[judge])
    fail_all(claim(judge))
    advance(run.pk)
    run.refresh_from_db()
    assert (run.state, run.is_unanswered) == (Run.State.FAILED, True)
    assert run.reason == (
        f"finished without answers of {judge.name}; most frequent failure: {REFUSED.message} (request or settings rejected)"
    )
    queue.reap()
    assert JudgingTask.objects.filter(state="dead").count() == trouble.TRIAL, "its questions are kept"
    judge.refresh_from_db()
    assert resume_and_retry(judge) == (True, trouble.TRIAL)
    assert not JudgeTrouble.objects.exists()
    run = work_until_over(run)
    assert (run.state, run.reason, run.is_unanswered) == (Run.State.FINISHED, "the design is complete", False)
    assert Judgment.objects.count() == run.tasks_planned


def test_a_new_run_takes_over_the_questions_of_a_failed_one_and_leaves_that_ended() -> None:
    project, (judge,) = project_of(1)
    failed = make_run(project, judges=[judge])
    fail_all(claim(judge))
    advance(failed.pk)
    asked = JudgingTask.objects.filter(run=failed).count()
    judge.refresh_from_db()
    careful = start_run(project, judges=[judge], sampler="cycles", call_budget=asked // 2, seed=1)
    failed.refresh_from_db()
    assert failed.state == Run.State.FAILED, "a careful second run does not continue the first, which has no budget"
    careful = work_until_over(careful)
    failed.refresh_from_db()
    assert (failed.state, Judgment.objects.count()) == (Run.State.FAILED, asked // 2)
    assert not Attempt.objects.filter(run=failed, outcome__in=Attempt.ANSWERED).exists()


def test_a_new_run_and_a_retry_of_its_questions_end_a_judges_trouble() -> None:
    project, (judge,) = project_of(1)
    run = make_run(project, judges=[judge])
    fail_all(claim(judge))
    assert retry_failures(project) == trouble.TRIAL and not JudgeTrouble.objects.exists()
    fail_all(claim(judge))
    assert JudgeTrouble.objects.exists()
    advance(run.pk)
    again = start_run(project, judges=[judge], seed=2)
    judge.refresh_from_db()
    assert judge.paused_at is None and not JudgeTrouble.objects.exists()
    assert work_until_over(again).reason == "the design is complete"


def test_a_judge_that_somebody_paused_stays_so_and_its_questions_wait() -> None:
    project, (judge, other) = project_of(2)
    run = make_run(project, judges=[judge, other])
    tasks = claim(judge)
    pause_judge(judge, "until Monday")
    fail_all(tasks)
    advance(run.pk)
    assert not JudgeTrouble.objects.exists() and Run.objects.get(pk=run.pk).state == Run.State.JUDGING
    start_run(project, judges=[judge], seed=3)
    judge.refresh_from_db()
    assert judge.pause_reason == "until Monday"


def test_few_calls_are_in_flight_until_a_judge_has_answered() -> None:
    project, (judge,) = project_of(1, documents=30)
    make_run(project, judges=[judge], sampler="all", pair_budget=200)
    first = claim(judge)
    queue.finish([(first[0], Verdict(0.7))])
    fail_all(first[1:])
    some = claim(judge)
    assert len(some) == trouble.UNPROVEN_CALLS and claim(judge) == []
    queue.finish([(task, Verdict(0.7)) for task in some])
    assert len(claim(judge)) == 100, "it has proven itself"


def test_a_judge_that_answers_its_trial_is_held_back_no_longer() -> None:
    project, (judge,) = project_of(1, documents=30)
    make_run(project, judges=[judge], sampler="all", pair_budget=200)
    queue.finish([(task, Verdict(0.7)) for task in claim(judge)])
    assert len(claim(judge)) == 100


def test_workers_at_once_pay_no_more_for_a_judge_that_always_fails() -> None:
    project, (judge,) = project_of(1, documents=30)
    make_run(project, judges=[judge], sampler="all", pair_budget=300)

    def work() -> None:
        for _ in range(20):
            for task in claim(judge, 4):
                fail_all([task])

    at_once(work, work, work, work)
    assert JudgeTrouble.objects.exists()
    assert Attempt.objects.count() <= trouble.TRIAL


def test_later_more_than_half_of_the_last_fifty_pause_it_and_resuming_starts_afresh() -> None:
    project, (judge,) = project_of(1, documents=30)
    make_run(project, judges=[judge], sampler="all", pair_budget=300)
    for _ in range(40):
        (task,) = claim(judge, 1)
        queue.finish([(task, Verdict(0.7))])
    flaky = Failure(FailureKind.REFUSAL, "declined", retryable=True)
    for number in range(LAST // 2 + 1):
        assert not JudgeTrouble.objects.exists(), number
        fail_all(claim(judge, 1), flaky)
    judge.refresh_from_db()
    assert judge.pause_reason == "26 of its last 50 answers failed, most often: declined"
    resume_judge(judge)
    fail_all(claim(judge, 1), flaky)
    assert not JudgeTrouble.objects.exists()


def test_an_outage_says_nothing_of_the_judge_but_a_rejected_key_does() -> None:
    project, (judge,) = project_of(1)
    make_run(project, judges=[judge], sampler="all")
    for _ in range(2 * FIRST):
        JudgingTask.objects.update(next_at=Now())
        fail_all(claim(judge, 1), Excused(FailureKind.UNAVAILABLE, "refused", retryable=True), counted=False)
    assert not JudgeTrouble.objects.exists()
    for _ in range(trouble.TRIAL):
        JudgingTask.objects.update(next_at=Now())
        fail_all(claim(judge, 1), Excused(FailureKind.BAD_REQUEST, "HTTP 401", retryable=False), counted=False)
    assert JudgeTrouble.objects.get().message == "HTTP 401"


def test_the_same_unreadable_answer_is_asked_for_twice_at_most() -> None:
    (task,) = make_tasks(1)
    prose = Failure(FailureKind.UNPARSEABLE, "the reply is not JSON", retryable=True)
    for state in ("open", "dead"):
        JudgingTask.objects.update(next_at=Now())
        (claimed,) = queue.claim(annotator_id=task.annotator_id, worker="w@host:1", limit=1)
        fail_all([claimed], prose)
        task.refresh_from_db()
        assert task.state == state


def test_calls_that_reached_no_model_use_up_no_budget() -> None:
    project, (judge,) = project_of(1)
    run = make_run(project, judges=[judge], sampler="all", call_budget=8)
    first, second, third = queue.claim(annotator_id=judge.pk, worker="w@host:1", limit=3)
    fail_all([first], Failure(FailureKind.UNAVAILABLE, "HTTP 500", retryable=True))
    read = Usage(input_tokens=100, cost_micros=3)
    fail_all([second], Failure(FailureKind.TIMEOUT, "cut off", retryable=True, usage=read))
    queue.finish([(third, Verdict(0.7))])
    spent = spend_of_run(run.pk)
    assert (spent[judge.pk].calls, spent[judge.pk].unreached, spent[judge.pk].made) == (3, 1, 2)
    assert SpendLimit(Budgets.of(run), spent, "the budget").room(judge.pk)[0] == 6
