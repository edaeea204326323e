"""One process that keeps a judge over HTTP busy, when something goes wrong in the middle of its slice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError

from labeling.models import Judgment
from labeling.records import Comparison
from tests.factories.http_panel import KEY, define_endpoints
from tests.factories.working import end_lease, make_due, open_questions
from tests.fake_judge.process import FakeJudge, running_fake_judge
from tests.processes.threads import at_once
from workers import stopping
from workers.endpoints.conversation import Conversation
from workers.judging import batches, questions, queue, streaming, trouble
from workers.judging.queue import ClaimedTask
from workers.models import Attempt, EndpointShare, JudgingTask

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeJudge]:
    arguments = ["--seed", "3", "--api-key", KEY, "--latency-ms", "600"]
    with running_fake_judge(tmp_path / "ledger.jsonl", *arguments) as judge:
        yield judge


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A slice that would wait for ever is stopped, and fails its test by what it left."""
    monkeypatch.setattr(streaming, "STOP_S", 0.5)
    stop = threading.Timer(20.0, stopping.note_stopping)
    stop.start()
    yield
    stop.cancel()
    stop.join()
    stopping.note_stopping(False)


@pytest.mark.usefixtures("ends")
def test_a_question_claimed_again_after_its_lease_ran_out_is_answered_twice_and_waited_for(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    define_endpoints(monkeypatch, fake, {"max_concurrency": 4})
    _, judge = open_questions(1)

    def lapse() -> None:
        while fake.summary()["in_flight"] < 2:  # this question is one itself
            time.sleep(0.02)
        end_lease(*[ClaimedTask(task.id, 0, 0, 0, 0, 0, False) for task in JudgingTask.objects.all()])
        queue.reap()

    watcher = threading.Thread(target=lambda: at_once(lapse))
    watcher.start()
    began = time.monotonic()
    assert batches.judge_open(judge.pk, worker="w@host:1") == 2
    watcher.join()
    assert time.monotonic() - began < 15.0
    assert Judgment.objects.count() == 1 and not JudgingTask.objects.exists()
    assert list(Attempt.objects.values_list("fence", "outcome")) == [(1, "preference"), (2, "preference")]
    assert fake.summary()["calls"] == 2


@pytest.mark.usefixtures("ends")
def test_a_database_that_goes_away_costs_no_answer_that_is_paid_for(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    define_endpoints(monkeypatch, fake, {"max_concurrency": 6})
    _, judge = open_questions(40)
    read, in_flight = questions.comparisons_of, []

    def once(project_id: int, tasks: Sequence[ClaimedTask]) -> list[Comparison]:
        found = fake.summary()
        if found["paid"] > trouble.TRIAL and found["in_flight"] > 1:  # this question is one itself
            in_flight.append(found["in_flight"] - 1)
            raise OperationalError("server closed the connection unexpectedly")
        return read(project_id, tasks)

    monkeypatch.setattr(questions, "comparisons_of", once)
    with pytest.raises(OperationalError, match="unexpectedly"):
        batches.judge_open(judge.pk, worker="w@host:1")
    assert Judgment.objects.count() == fake.summary()["paid"] == Attempt.objects.count() > trouble.TRIAL
    assert in_flight
    assert set(JudgingTask.objects.values_list("state", "attempts")) == {("open", 0)}, "nothing waits for a lease"
    assert not EndpointShare.objects.exists()


@pytest.mark.usefixtures("ends")
def test_a_question_that_cannot_be_read_fails_alone_and_is_dead_after_its_attempts(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    define_endpoints(monkeypatch, fake, {"max_concurrency": 4})
    fake.control("settings", {"latency_s": 0.0})
    _, judge = open_questions(6)
    bad = JudgingTask.objects.order_by("id")[2]
    read = questions.comparisons_of

    def unless_bad(project_id: int, tasks: Sequence[ClaimedTask]) -> list[Comparison]:
        if bad.pair_id in {task.pair_id for task in tasks}:
            raise ValueError("a text that cannot be read")
        return read(project_id, tasks)

    monkeypatch.setattr(questions, "comparisons_of", unless_bad)
    assert batches.judge_open(judge.pk, worker="w@host:1") == 5
    for tried in range(1, queue.MAX_ATTEMPTS + 1):
        left = JudgingTask.objects.get()
        assert (left.pk, left.attempts, left.message) == (bad.pk, tried, "ValueError: a text that cannot be read")
        assert left.state == ("dead" if tried == queue.MAX_ATTEMPTS else "open")
        make_due(bad.pk)
        batches.judge_open(judge.pk, worker="w@host:1")
    assert Judgment.objects.count() == fake.summary()["calls"] == 5
    assert set(Attempt.objects.filter(task_id=bad.pk).values_list("outcome", flat=True)) == {"judge_error"}


def test_a_worker_that_stops_hands_back_at_once_and_waits_for_slow_calls_that_are_paid(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    define_endpoints(monkeypatch, fake, {"max_concurrency": 4})
    fake.control("settings", {"latency_s": 3.0})
    _, judge = open_questions(30)
    seen: list[int] = []

    def stop() -> None:
        while fake.summary()["in_flight"] < 5:  # this question is one itself
            time.sleep(0.02)
        stopping.note_stopping()
        time.sleep(1.0)
        seen.append(JudgingTask.objects.filter(state="leased").count())

    watcher = threading.Thread(target=lambda: at_once(stop))
    watcher.start()
    try:
        assert batches.judge_open(judge.pk, worker="w@host:1") == 4
    finally:
        watcher.join()
        stopping.note_stopping(False)
    assert seen == [4], "what was not asked is free while the calls go on"
    assert Judgment.objects.count() == fake.summary()["paid"] == Attempt.objects.count() == 4
    assert set(JudgingTask.objects.values_list("state", "attempts")) == {("open", 0)}


@pytest.mark.usefixtures("ends")
def test_an_answer_that_cannot_be_kept_at_once_is_stored_all_the_same(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    define_endpoints(monkeypatch, fake, {"max_concurrency": 4})
    _, judge = open_questions(3)
    kept = iter(range(2))

    def keep(*_: Any) -> None:
        if next(kept, None) is not None:
            raise ValueError("no")

    monkeypatch.setattr("workers.judging.recorder.keep", keep)
    assert batches.judge_open(judge.pk, worker="w@host:1") == 3
    assert Judgment.objects.count() == fake.summary()["calls"] == 3


def test_what_a_question_raises_fails_that_question_alone(monkeypatch: pytest.MonkeyPatch, fake: FakeJudge) -> None:
    define_endpoints(monkeypatch, fake, {"max_concurrency": 4})
    _, judge = open_questions(3)
    asking = Conversation.__init__

    def breaks_one(self: Conversation, ask: Any) -> None:
        async def or_raise(comparison: Comparison, gate: Any) -> Any:
            if comparison.key == 1:
                raise RuntimeError("this one")
            return await ask(comparison, gate)

        asking(self, or_raise)

    monkeypatch.setattr(Conversation, "__init__", breaks_one)
    assert batches.judge_open(judge.pk, worker="w@host:1") == 2
    [left] = JudgingTask.objects.all()
    assert (left.state, left.reason, left.message) == ("open", "judge_error", "RuntimeError: this one")
