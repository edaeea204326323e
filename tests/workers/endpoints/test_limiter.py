"""Flow control as workers meet it: several processes, one real endpoint, the rows of the real database."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from django.conf import settings
from django.db.models.functions import Now

from labeling.models import Annotator, Judgment
from tests.factories.http_panel import KEY, define_endpoints, make_texts
from tests.factories.working import open_questions
from tests.fake_judge.process import FakeJudge, running_fake_judge
from tests.processes.worker_process import workers
from workers import stopping
from workers.endpoints import limiter
from workers.endpoints.gates import BREAK_AFTER, Channel, Limits, Report
from workers.judging import batches, streaming, trouble
from workers.judging.pausing import resume_judge
from workers.models import Attempt, EndpointShare, EndpointState, JudgingTask

pytestmark = pytest.mark.django_db(transaction=True)


def judge_on(judge_id: int, seconds: float, home: str, environ: Mapping[str, str]) -> None:
    """What a process does: judge as workers do, until nothing is open or its time is over."""
    os.environ.update(environ)
    settings.ZELO_HOME = home
    until = time.monotonic() + seconds
    while time.monotonic() < until and JudgingTask.objects.exclude(state="dead").exists():
        batches.judge_open(judge_id, worker=f"w@host:{os.getpid()}")
        time.sleep(0.1)


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeJudge]:
    arguments = ["--seed", "3", "--api-key", KEY, "--latency-ms", "50"]
    with running_fake_judge(tmp_path / "ledger.jsonl", *arguments) as judge:
        yield judge


@contextlib.contextmanager
def judging_processes(
    judge: Annotator, count: int, home: Path, *, seconds: float = 60.0
) -> Iterator[list[ForkServerProcess]]:
    """So many of them, on the database of this test, each with a home of its own."""
    environ = {name: os.environ[name] for name in ("ZELO_ENDPOINTS", "FAKE_KEY")}
    with workers(home) as staff:
        yield [staff.start(judge_on, judge.pk, seconds, str(home / str(number)), environ) for number in range(count)]


def wait_for_end(processes: list[ForkServerProcess]) -> None:
    for process in processes:
        process.join(90)
        assert process.exitcode == 0


def most_holders() -> int:
    return EndpointShare.objects.filter(until__gt=Now(), slots__gt=0).count()


# --- one limit, several processes --------------------------------------------------------


def test_two_processes_share_one_limit_of_calls_in_flight(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    define_endpoints(monkeypatch, fake, {"max_concurrency": 6})
    _, judge = open_questions(240)
    with judging_processes(judge, 2, tmp_path) as processes:
        holders = 0
        while any(process.is_alive() for process in processes):
            holders = max(holders, most_holders())
            time.sleep(0.2)
        wait_for_end(processes)
    assert holders == 2  # both had a part in it
    assert fake.summary()["most_in_flight"] == 6
    assert Judgment.objects.count() == fake.summary()["calls"] == 240
    assert not EndpointShare.objects.exists()


def test_requests_a_minute_hold_for_two_processes_together(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    define_endpoints(monkeypatch, fake, {"rpm": 1200.0})
    _, judge = open_questions(120)
    with judging_processes(judge, 2, tmp_path) as processes:
        wait_for_end(processes)
    times = sorted(line["time"] for line in fake.ledger())
    assert len(times) == Judgment.objects.count() == 120
    # Twenty a second and a second's worth at once; with a limit for each process it would be over after two seconds.
    assert times[-1] - times[0] > (120 - 20 - 20) / 20


@pytest.mark.parametrize("minute_s", [4.0, pytest.param(60.0, marks=pytest.mark.long)])
def test_an_endpoint_that_answers_429_for_a_minute_pauses_everybody_and_buries_nothing(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, minute_s: float
) -> None:
    define_endpoints(monkeypatch, fake, {"max_concurrency": 16})
    fake.control("faults", {"retry_after_s": minute_s / 4})
    _, judge = open_questions(200)
    with judging_processes(judge, 2, tmp_path, seconds=minute_s + 60.0) as processes:
        while fake.summary()["calls"] < 50:
            time.sleep(0.05)
        fake.set_faults(rate_limited=1.0)
        time.sleep(1.0)
        while fake.summary()["by_fault"].get("rate_limited", 0) == 0:
            time.sleep(0.05)
        rate_limited_from = time.time()
        assert EndpointState.objects.get().mode in {"paused", "closed"}
        time.sleep(minute_s)
        fake.set_faults()
        rate_limited_until = time.time()
        assert not JudgingTask.objects.filter(state="dead").exists()
        assert not JudgingTask.objects.filter(state="open", attempts__gt=0).exists()
        wait_for_end(processes)
    rate_limited = [line for line in fake.ledger() if line["fault"] == "rate_limited"]
    during = [line for line in rate_limited if rate_limited_from <= line["time"] <= rate_limited_until]
    # What was in flight at both, and after each pause half as many as before: far from the thousands there was time for.
    assert len(rate_limited) <= 16 + 16 + 8 + 4 + 2 + 16
    assert len(during) <= 40
    assert Judgment.objects.count() == 200
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {"preference"}
    assert Attempt.objects.count() == 200 == sum(line["paid"] for line in fake.ledger())
    [row] = EndpointState.objects.all()
    assert row.rate_limited == len(rate_limited)


@pytest.mark.parametrize("fault", ["rate_limited_silent", "rate_limited_date", "rate_limited_ms"])
def test_every_form_of_429_pauses_the_endpoint(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    define_endpoints(monkeypatch, fake)
    fake.control("faults", {"retry_after_s": 30.0})
    fake.set_faults(**{fault: 1.0})
    _, judge = open_questions(40)
    batches.judge_open(judge.pk, worker="w@host:1")
    [view] = limiter.endpoint_states()
    assert view.rate_limited >= 1 and "429" in view.last_error
    assert set(JudgingTask.objects.values_list("state", "attempts")) == {("open", 0)}
    assert not Attempt.objects.exists()
    if fault != "rate_limited_silent":
        assert view.state == "paused" and view.wait_s > 25.0
        calls = fake.summary()["calls"]
        JudgingTask.objects.update(next_at=Now())
        assert batches.judge_open(judge.pk, worker="w@host:2") == 0
        assert fake.summary()["calls"] == calls


# --- out of order ------------------------------------------------------------------------


def test_an_outage_opens_the_breaker_and_buries_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with running_fake_judge(tmp_path / "gone.jsonl", "--api-key", KEY) as gone:
        define_endpoints(monkeypatch, gone)
        port = gone.base_url.rpartition(":")[2].partition("/")[0]
    monkeypatch.setattr(streaming, "PATIENCE_S", 0.3)  # nobody else gives slots back
    project, judge = open_questions(30)
    for _ in range(8):
        batches.judge_open(judge.pk, worker="w@host:1")
        JudgingTask.objects.update(next_at=Now())
    [view] = limiter.endpoint_states(project)
    assert view.state in {"open", "half_open"} and view.outages >= BREAK_AFTER and "ConnectError" in view.last_error
    assert not JudgingTask.objects.exclude(state="open").exists()
    assert sum(JudgingTask.objects.values_list("attempts", flat=True)) < 30
    assert set(Attempt.objects.values_list("input_tokens", flat=True)) == {0}
    with running_fake_judge(tmp_path / "back.jsonl", "--api-key", KEY, "--port", port) as back:
        until = time.monotonic() + 60.0
        while JudgingTask.objects.exists() and time.monotonic() < until:
            JudgingTask.objects.update(next_at=Now())
            batches.judge_open(judge.pk, worker="w@host:1")
            time.sleep(0.1)
        assert back.summary()["calls"] == 30
    assert Judgment.objects.count() == 30
    assert limiter.endpoint_states()[0].state == "closed"


def test_while_the_breaker_is_open_nothing_is_claimed(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    define_endpoints(monkeypatch, fake)
    _, judge = open_questions(10)
    channel = batches.prepared_judge(judge.pk).channel()  # type: ignore[attr-defined]
    grant = limiter.visit(channel, "other", Report(wanted=1))
    limiter.visit(channel, "other", Report(epoch=grant.epoch, slots=1, outages=BREAK_AFTER, error="no route"))
    EndpointState.objects.update(until=Now() + connection_interval(seconds=60))
    assert batches.judge_open(judge.pk, worker="w@host:1") == 0
    assert set(JudgingTask.objects.values_list("fence", flat=True)) == {0}
    assert fake.summary()["calls"] == 0


def connection_interval(*, seconds: float) -> object:
    from datetime import timedelta

    return timedelta(seconds=seconds)


@pytest.mark.parametrize("fault", ["unauthorized", "quota", "payment_required", "http_500", "disconnect"])
def test_what_every_question_would_meet_buries_few(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    define_endpoints(monkeypatch, fake)
    monkeypatch.setattr(streaming, "PATIENCE_S", 0.3)  # nobody else gives slots back
    fake.set_faults(**{fault: 1.0})
    _, judge = open_questions(60)
    for _ in range(3):
        batches.judge_open(judge.pk, worker="w@host:1")
        JudgingTask.objects.update(next_at=Now())
    is_paused = fault in {"unauthorized", "quota", "payment_required"}  # no retry helps, until somebody acts
    assert fake.summary()["calls"] <= (trouble.TRIAL if is_paused else 44)
    assert JudgingTask.objects.filter(state="dead").count() < BREAK_AFTER
    assert limiter.endpoint_states()[0].state in {"open", "half_open"}
    fake.set_faults()
    assert resume_judge(judge) == is_paused
    until = time.monotonic() + 30.0
    while JudgingTask.objects.exclude(state="dead").exists() and time.monotonic() < until:
        EndpointState.objects.filter(mode="open").update(until=Now())
        JudgingTask.objects.update(next_at=Now())
        batches.judge_open(judge.pk, worker="w@host:1")
    assert Judgment.objects.count() == 60 - JudgingTask.objects.filter(state="dead").count()


def test_answers_that_cannot_be_read_are_real_attempts_and_bury(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    define_endpoints(monkeypatch, fake)
    fake.set_faults(html=1.0)
    _, judge = open_questions(2)  # of which each is asked twice: fewer calls than pause the judge
    for _ in range(6):
        JudgingTask.objects.update(next_at=Now())
        batches.judge_open(judge.pk, worker="w@host:1")
    assert set(JudgingTask.objects.values_list("state", "reason", "attempts")) == {("dead", "unparseable", 2)}
    assert fake.summary()["calls"] == Attempt.objects.count() == 4
    assert limiter.endpoint_states()[0].state == "closed"


# --- stopping, dying, showing ------------------------------------------------------------


def test_a_worker_that_is_told_to_stop_awaits_its_calls_and_hands_the_rest_back(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    define_endpoints(monkeypatch, fake, {"max_concurrency": 4})
    fake.control("settings", {"latency_s": 0.5})
    _, judge = open_questions(60)
    stop = threading.Timer(0.8, stopping.note_stopping)
    stop.start()
    try:
        answered = batches.judge_open(judge.pk, worker="w@host:1")
    finally:
        stop.join()
        stopping.note_stopping(False)
    assert answered == Judgment.objects.count() == fake.summary()["calls"] == Attempt.objects.count() > 0
    assert set(JudgingTask.objects.values_list("state", "attempts")) == {("open", 0)}
    assert not EndpointShare.objects.exists()


def test_slots_of_a_dead_process_come_back_when_it_is_found(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = Channel("id", "fake", "http://host/v1", "", Limits(concurrency=8))
    limiter.visit(channel, "w@host:1:token:5", Report(wanted=8))
    assert limiter.visit(channel, "w@host:2:other:5", Report(wanted=8)).slots == 0
    limiter.forget("token")
    assert limiter.visit(channel, "w@host:2:other:5", Report(wanted=8)).slots == 8


def test_an_endpoint_is_shown_to_its_projects_and_without_its_key(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    define_endpoints(monkeypatch, fake, {"rpm": 6000.0, "max_concurrency": 5})
    project, judge = open_questions(10)
    batches.judge_open(judge.pk, worker="w@host:1")
    [view] = limiter.endpoint_states(project)
    assert (view.name, view.base_url, view.state, view.in_flight, view.concurrency) == (
        "fake",
        fake.base_url,
        "closed",
        0,
        5,
    )
    assert view.calls == view.rpm_used == 10 and view.tpm_used > 100 and view.last_error == ""
    assert KEY not in repr(view) + repr(EndpointState.objects.values().get())
    assert limiter.endpoint_states(make_texts(documents=2)) == []


def test_one_key_is_one_endpoint_whatever_it_is_called(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.endpoints.registry import get_endpoint

    monkeypatch.setenv("OTHER_KEY", "another")
    changes = {"name": "renamed", "base_url": fake.base_url + "/"}, {"name": "theirs", "api_key_env": "OTHER_KEY"}
    define_endpoints(monkeypatch, fake, {}, *changes, {"name": "each", "limits_per_model": True})
    same, renamed, theirs, each = (get_endpoint(name) for name in ("fake", "renamed", "theirs", "each"))
    assert same.channel("m").identity == same.channel("n").identity == renamed.channel("m").identity
    assert theirs.channel("m").identity != same.channel("m").identity
    assert each.channel("m").identity != each.channel("n").identity
