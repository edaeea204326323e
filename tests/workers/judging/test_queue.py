"""The judging queue on real PostgreSQL: claims by concurrent workers, fences, failures, leases, cancelling."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, transaction

from labeling.models import Judgment, Rationale
from labeling.records import AnswerKind, Failure, FailureKind, Usage, Verdict
from tests.factories.rows import make_run, make_tasks
from tests.factories.working import claim, end_lease, make_due
from tests.processes.threads import at_once
from workers.judging import queue
from workers.judging.queue import ClaimedTask
from workers.models import Attempt, Job, JudgingTask, Run
from workers.runs import advancing, planning, transitions

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


def failure(kind: FailureKind = FailureKind.TIMEOUT, *, retryable: bool = True, **fields: object) -> Failure:
    return Failure(kind, "no answer", retryable=retryable, **fields)  # type: ignore[arg-type]


def test_claim_leases_the_oldest_tasks_and_books_an_attempt_for_each() -> None:
    tasks = make_tasks(5)
    claimed = claim(tasks[0], 3)
    assert [each.id for each in claimed] == [task.id for task in tasks[:3]]
    assert {(each.fence, each.attempts) for each in claimed} == {(1, 1)}
    assert set(Attempt.objects.values_list("task_id", "fence", "call", "outcome")) == {
        (each.id, 1, 1, "") for each in claimed
    }
    assert JudgingTask.objects.filter(state="leased", leased_by="w@host:1", lease_until__isnull=False).count() == 3


@pytest.mark.django_db(transaction=True)
def test_no_two_of_many_workers_get_the_same_task() -> None:
    tasks = make_tasks(120)

    def work(name: str) -> list[int]:
        mine: list[int] = []
        while claimed := claim(tasks[0], 7, worker=name):
            mine += [each.id for each in claimed]
        return mine

    lists = at_once(*[lambda name=f"w@host:{n}": work(name) for n in range(6)])
    every = [task_id for mine in lists for task_id in mine]
    assert sorted(every) == [task.id for task in tasks]
    assert sum(bool(mine) for mine in lists) > 1


@pytest.mark.django_db(transaction=True)
def test_concurrent_answers_of_one_batch_store_each_judgment_once_without_deadlock() -> None:
    tasks = make_tasks(60)
    first = claim(tasks[0])
    end_lease(*first)
    queue.reap()
    second = claim(tasks[0])
    stored = at_once(
        lambda: queue.finish([(each, Verdict(0.9)) for each in first]).stored,
        lambda: queue.finish([(each, Verdict(0.1)) for each in reversed(second)]).stored,
    )
    assert sorted(stored) == [0, 60]
    assert Judgment.objects.count() == 60
    assert not JudgingTask.objects.exists()


def test_finish_stores_the_answer_deletes_the_task_and_raises_the_version() -> None:
    (task,) = make_tasks()
    (claimed,) = claim(task)
    usage = Usage(input_tokens=11, output_tokens=2, cost_micros=7)
    recorded = queue.finish([(claimed, Verdict(0.25, rationale="because", usage=usage))])
    assert (recorded.stored, recorded.duplicates) == (1, 0)
    judgment = Judgment.objects.get()
    assert (judgment.pair_id, judgment.preference, judgment.swapped) == (task.pair_id, 0.25, task.swapped)
    assert judgment.rationale.text == "because"
    assert not JudgingTask.objects.exists()
    attempt = Attempt.objects.get()
    assert (attempt.outcome, attempt.input_tokens, attempt.cost_micros) == ("preference", 11, 7)
    assert attempt.finished_at is not None
    task.pair.query.refresh_from_db()
    assert task.pair.query.judged_version == 1


def test_finish_twice_changes_nothing_the_second_time() -> None:
    (task,) = make_tasks()
    claimed = claim(task)
    queue.finish([(each, Verdict(0.25)) for each in claimed])
    again = queue.finish([(each, Verdict(0.75)) for each in claimed])
    assert (again.stored, again.duplicates) == (0, 1)
    assert Judgment.objects.get().preference == 0.25
    task.pair.query.refresh_from_db()
    assert task.pair.query.judged_version == 1


def test_finish_of_nothing_is_nothing() -> None:
    assert queue.finish([]).stored == 0


@pytest.mark.parametrize("kind", [AnswerKind.BOTH_IRRELEVANT, AnswerKind.CANNOT_JUDGE])
def test_an_answer_that_is_no_preference_is_kept_and_ends_the_task(kind: AnswerKind) -> None:
    (task,) = make_tasks()
    queue.finish([(claim(task)[0], Verdict(None, kind))])
    assert Judgment.objects.get().kind == kind
    assert not Judgment.objects.preferences().exists()
    assert not JudgingTask.objects.exists()


def test_text_that_no_database_stores_is_mended_rather_than_lost() -> None:
    (task,) = make_tasks()
    queue.finish([(claim(task)[0], Verdict(0.5, rationale="a\x00b\ud800c"))])
    assert Rationale.objects.get().text == "a b?c"


def test_late_answer_is_accepted_while_there_is_none() -> None:
    (task,) = make_tasks()
    (late,) = claim(task)
    end_lease(late)
    assert queue.reap() == 1
    assert queue.finish([(late, Verdict(0.6))]).stored == 1
    assert not JudgingTask.objects.exists(), "nobody is asked again for what has been answered"


def test_late_answer_does_not_replace_the_one_that_came_first() -> None:
    (task,) = make_tasks()
    (late,) = claim(task)
    end_lease(late)
    queue.reap()
    (second,) = claim(task, worker="w@host:2")
    queue.finish([(second, Verdict(0.2))])
    assert queue.finish([(late, Verdict(0.9))]).duplicates == 1
    assert Judgment.objects.get().preference == 0.2


def test_failure_waits_longer_each_time_and_then_dies_with_its_reason() -> None:
    (task,) = make_tasks()
    waits = []
    for _ in range(queue.MAX_ATTEMPTS):
        (claimed,) = claim(task)
        assert queue.fail([(claimed, failure(FailureKind.RATE_LIMITED))]) == 1
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT EXTRACT(EPOCH FROM next_at - clock_timestamp())::float8 FROM workers_judgingtask WHERE id = %s",
                [task.id],
            )
            waits.append(cursor.fetchone()[0])
        make_due(task.id)
    task.refresh_from_db()
    assert (task.state, task.reason, task.message) == ("dead", "rate_limited", "no answer")
    for number, wait in enumerate(waits[:-1]):
        base = queue.BACKOFF_BASE_S * 2**number
        assert 0.5 * base - 1.0 <= wait <= 1.5 * base
    assert not Judgment.objects.exists()
    assert list(Attempt.objects.values_list("outcome", flat=True)) == ["rate_limited"] * queue.MAX_ATTEMPTS


def test_failed_task_is_not_handed_out_before_its_time() -> None:
    (task,) = make_tasks()
    queue.fail([(claim(task)[0], failure(retry_after_s=120.0))])
    assert claim(task) == []
    make_due(task.id)
    assert len(claim(task)) == 1


@pytest.mark.parametrize("asked", [float("nan"), float("inf"), -5.0, 1e300])
def test_a_wait_that_makes_no_sense_does_not_lose_the_failure(asked: float) -> None:
    (task,) = make_tasks()
    assert queue.fail([(claim(task)[0], failure(retry_after_s=asked))]) == 1
    task.refresh_from_db()
    assert task.state == "open"


def test_failure_that_retrying_cannot_help_is_dead_at_once() -> None:
    (task,) = make_tasks()
    queue.fail([(claim(task)[0], failure(FailureKind.CONTENT_FILTER, retryable=False))])
    task.refresh_from_db()
    assert (task.state, task.reason) == ("dead", "content_filter")


def test_failure_under_an_old_fence_is_ignored() -> None:
    (task,) = make_tasks()
    (old,) = claim(task)
    end_lease(old)
    queue.reap()
    (new,) = claim(task, worker="w@host:2")
    assert queue.fail([(old, failure(retryable=False))]) == 0
    task.refresh_from_db()
    assert (task.state, task.leased_by, task.fence) == ("leased", "w@host:2", new.fence)


def test_reap_takes_back_only_leases_that_ran_out() -> None:
    tasks = make_tasks(3)
    gone, kept = claim(tasks[0], 2)
    end_lease(gone)
    assert queue.reap() == 1
    states = dict(JudgingTask.objects.values_list("id", "state"))
    assert states == {gone.id: "open", kept.id: "leased", tasks[2].id: "open"}
    assert Attempt.objects.get(task_id=gone.id).outcome == "lost"
    assert Attempt.objects.get(task_id=kept.id).outcome == ""


def test_task_whose_worker_dies_each_time_is_buried() -> None:
    (task,) = make_tasks()
    for _ in range(queue.MAX_ATTEMPTS):
        end_lease(*claim(task))
        queue.reap()
    task.refresh_from_db()
    assert (task.state, task.reason) == ("dead", "timeout")


def test_release_counts_no_attempt_and_leaves_nothing_in_the_books() -> None:
    (task,) = make_tasks()
    assert queue.release(claim(task)) == 1
    task.refresh_from_db()
    assert (task.state, task.attempts) == ("open", 0)
    assert not Attempt.objects.exists()
    assert claim(task)[0].fence == 2, "the old fence is spent"


def test_the_leases_of_a_dead_process_are_ended_alone_though_others_have_its_name() -> None:
    tasks = make_tasks(4)
    names = ("j@h:10:aaaa", "j@h:10:bbbb", "j@h:11:aaaab", "aaaa")
    mine, *others = (claim(tasks[0], 1, worker=name)[0] for name in names)
    assert queue.end_leases("aaaa") == 1
    assert list(JudgingTask.objects.filter(state="open").values_list("id", flat=True)) == [mine.id]
    assert Attempt.objects.get(task_id=mine.id).outcome == "lost"
    assert JudgingTask.objects.filter(state="leased", id__in=[each.id for each in others]).count() == 3


def seconds_left(task_id: int) -> float:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT EXTRACT(EPOCH FROM lease_until - clock_timestamp())::float8 FROM workers_judgingtask WHERE id = %s",
            [task_id],
        )
        return float(cursor.fetchone()[0])


def test_extending_touches_only_leases_that_are_still_held() -> None:
    tasks = make_tasks(3)
    held, lost, answered = claim(tasks[0])
    end_lease(lost)
    queue.reap()
    (again,) = claim(tasks[0], worker="w@host:2")
    queue.finish([(answered, Verdict(0.5))])
    assert queue.extend([held, lost, answered], lease_s=900.0) == 1
    assert seconds_left(held.id) > 800 > seconds_left(again.id)


class TestLate:
    """Answers and failures that come when their lease has been reaped."""

    def reaped(self) -> tuple[JudgingTask, ClaimedTask]:
        (task,) = make_tasks()
        (late,) = claim(task)
        end_lease(late)
        queue.reap()
        return task, late

    def test_answer_is_accepted_while_another_works_on_it_whose_own_stays_in_the_books(self) -> None:
        task, late = self.reaped()
        (second,) = claim(task, worker="w@host:2")
        assert queue.finish([(late, Verdict(0.9, usage=Usage(cost_micros=5)))]).stored == 1
        assert not JudgingTask.objects.exists()
        assert queue.finish([(second, Verdict(0.1, usage=Usage(cost_micros=7)))]).duplicates == 1
        assert Judgment.objects.get().preference == 0.9
        books = Attempt.objects.order_by("fence").values_list("fence", "outcome", "cost_micros")
        assert list(books) == [(1, "preference", 5), (2, "preference", 7)]

    def test_answer_brings_a_dead_task_to_its_end(self) -> None:
        task, late = self.reaped()
        (second,) = claim(task)
        queue.fail([(second, failure(FailureKind.REFUSAL, retryable=False))])
        assert JudgingTask.objects.get().state == "dead"
        assert queue.finish([(late, Verdict(0.4))]).stored == 1
        assert not JudgingTask.objects.exists()

    def test_failure_counts_while_nobody_else_has_the_task(self) -> None:
        task, late = self.reaped()
        assert queue.fail([(late, failure(FailureKind.REFUSAL, retryable=False))]) == 1
        task.refresh_from_db()
        assert (task.state, task.reason) == ("dead", "refusal")

    def test_failure_that_is_told_twice_counts_once(self) -> None:
        (task,) = make_tasks()
        (claimed,) = claim(task)
        queue.fail([(claimed, failure(FailureKind.REFUSAL, retryable=False))])
        queue.retry_dead(run_ids=[task.run_id])
        assert queue.fail([(claimed, failure(FailureKind.REFUSAL, retryable=False))]) == 0
        task.refresh_from_db()
        assert task.state == "open"


def test_every_call_that_a_question_took_is_booked_once() -> None:
    first, second = make_tasks(2)
    claimed = {each.id: each for each in claim(first)}
    calls = (Usage(10, 1, 3, 0.5), Usage(11, 1, 4, 0.25), Usage(12, 1, 5))
    three = Usage(33, 3, 12, 0.75, calls)
    for _ in range(2):
        queue.finish([(claimed[first.id], Verdict(0.6, usage=three))])
        queue.fail([(claimed[second.id], failure(FailureKind.LABEL_MASS, usage=Usage(7, 1, 2)))])
    rows = Attempt.objects.order_by("task_id", "call").values_list("call", "outcome", "input_tokens", "cost_micros")
    three_rows = [(1, "preference", 10, 3), (2, "preference", 11, 4), (3, "preference", 12, 5)]
    assert list(rows) == [*three_rows, (1, "label_mass", 7, 2)]
    latencies = Attempt.objects.filter(task_id=first.id).order_by("call").values_list("latency_ms", flat=True)
    assert list(latencies) == [500, 250, None]
    assert not Attempt.objects.filter(finished_at=None).exists()


def test_tasks_of_paused_runs_are_not_handed_out() -> None:
    tasks = make_tasks(2)
    assert transitions.pause_run(tasks[0].run)
    assert claim(tasks[0]) == []
    assert queue.open_tasks_by_annotator() == []
    assert transitions.resume_run(tasks[0].run)
    assert len(claim(tasks[0])) == 2


def test_retrying_the_dead_revives_the_run_that_had_finished_without_them() -> None:
    (task,) = make_tasks()
    queue.fail([(claim(task)[0], failure(FailureKind.REFUSAL, retryable=False))])
    advancing.advance(task.run_id)
    task.run.refresh_from_db()
    assert (task.run.state, task.run.is_unanswered) == (Run.State.FAILED, True)
    assert queue.retry_dead(run_ids=[task.run_id], reason="timeout") == {}
    assert queue.retry_dead(run_ids=[task.run_id], reason="refusal") == {task.run_id: 1}
    task.run.refresh_from_db()
    assert (task.run.state, task.run.finished_at) == (Run.State.JUDGING, None)
    assert claim(task)[0].attempts == 1


@pytest.mark.django_db(transaction=True)
def test_retrying_the_dead_locks_in_the_order_of_ids_over_all_runs() -> None:
    """As `finish` does for a late answer: whoever waits for a low id holds no higher one."""
    tasks = make_tasks(4)
    claimed = claim(tasks[0])
    for each in reversed(claimed):  # the last one's row comes first in the table
        queue.fail([(each, failure(FailureKind.REFUSAL, retryable=False))])
    later = Run.objects.create(project=tasks[0].run.project, state=Run.State.JUDGING)
    JudgingTask.objects.filter(pk=tasks[0].pk).update(run=later)

    def is_waiting() -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted")
            return cursor.fetchone() is not None

    with ThreadPoolExecutor(1) as other, transaction.atomic():
        rows = JudgingTask.objects.select_for_update(nowait=True)
        rows.get(pk=tasks[0].pk)
        retried = other.submit(lambda: at_once(lambda: queue.retry_dead(run_ids=[tasks[1].run_id, later.pk])))
        deadline = time.monotonic() + 10.0
        while not is_waiting():
            assert time.monotonic() < deadline
        assert len(rows.filter(pk__in=[task.pk for task in tasks])) == 4, "nothing else is held"
    assert retried.result() == [{tasks[1].run_id: 3, later.pk: 1}]


class TestCancelled:
    def test_what_is_leased_may_still_answer_and_the_rest_is_dropped(self) -> None:
        tasks = make_tasks(5)
        claimed = claim(tasks[0], 2)
        assert transitions.cancel_run(tasks[0].run)
        assert JudgingTask.objects.count() == 2
        assert queue.finish([(claimed[0], Verdict(0.7))]).stored == 1

    def test_a_lease_that_ends_or_fails_leaves_no_task_behind(self) -> None:
        tasks = make_tasks(5)
        lost, failed = claim(tasks[0], 2)
        transitions.cancel_run(tasks[0].run)
        queue.fail([(failed, failure())])
        end_lease(lost)
        queue.reap()
        assert not JudgingTask.objects.exists()
        tasks[0].run.refresh_from_db()
        assert tasks[0].run.tasks_planned == 0

    def test_another_run_takes_over_what_was_leased_when_the_first_one_ended(self) -> None:
        tasks = make_tasks(3)
        (leased,) = claim(tasks[0], 1)
        transitions.cancel_run(tasks[0].run)
        again = make_run(tasks[0].run.project, judges=[tasks[0].annotator], sampler="all")
        end_lease(leased)
        queue.reap()
        assert JudgingTask.objects.filter(run=again, state="open").count() == 3
        assert len(claim(tasks[0])) == 3


@pytest.mark.django_db(transaction=True)
def test_claims_go_on_while_a_round_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning locks its run, and booking an attempt refers to that row: neither may wait for the other."""
    tasks = make_tasks(3)
    job = Job.objects.create(
        project_id=tasks[0].run.project_id, run=tasks[0].run, stage="pairs", payload={"round": 2, "after": 0}
    )
    claimed: list[ClaimedTask] = []

    def claim_meanwhile(*args: object, **options: object) -> dict[int, object]:
        def impatiently() -> list[ClaimedTask]:
            with connection.cursor() as cursor:
                cursor.execute("SET statement_timeout = '5s'")
            return claim(tasks[0])

        claimed.extend(at_once(impatiently)[0])
        return {}

    monkeypatch.setattr(planning, "sample_pairs", claim_meanwhile)
    advancing.plan_round(tasks[0].run, job)
    assert len(claimed) == 3
