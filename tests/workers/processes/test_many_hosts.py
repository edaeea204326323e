"""The same worker command on several hosts: one is cut off and comes back, one is slow, one has a wrong clock.

Real Celery workers with the three URLs over TCP, in network namespaces where this machine allows it; the fake
judge's ledger is the witness of what was paid.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.db import connection

from labeling.models import Judgment
from scoring.rating import rate_stale
from tests.factories.http_panel import KEY, define_endpoints, make_judge, make_texts
from tests.fake_judge.process import FakeJudge, running_fake_judge
from tests.processes.hosts import Host, can_have_namespaces, clock_library, endpoint, hosts
from workers import reconciler
from workers.broker import client
from workers.budgets.spend import totals_of_run
from workers.judging import queue
from workers.models import Attempt, JudgingTask, Run
from workers.monitoring.heartbeats import alive
from workers.runs import advancing, transitions
from workers.runs.ordering import start_run

pytestmark = pytest.mark.django_db(transaction=True)

DAY_S = 86_400
PATIENCE_S = 90.0


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeJudge]:
    with running_fake_judge(tmp_path / "ledger.jsonl", "--seed", "5", "--latency-ms", "150", "--api-key", KEY) as judge:
        yield judge


@pytest.fixture
def running(
    request: pytest.FixtureRequest, fake: FakeJudge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Host]]:
    """A worker that judges over HTTP on each of the hosts that a test names, all alive."""
    names: list[str] = request.param
    define_endpoints(monkeypatch, fake)
    client.valkey().flushdb()
    address = urlsplit(fake.base_url)
    assert address.hostname is not None and address.port is not None
    library = clock_library(tmp_path)
    where = (address.hostname, address.port)
    with hosts(names, tmp_path, judge=where, namespaces=can_have_namespaces()) as made:
        for name, host in made.items():
            host.delay_s = 0.15 if name == "slow" else 0.0
            clock = {"LD_PRELOAD": str(library), "AHEAD_S": str(DAY_S)} if name == "ahead" and library else {}
            environ = {"FAKE_KEY": KEY, "ZELO_ENDPOINTS": endpoint(host, max_concurrency=6, timeout_s=10.0), **clock}
            host.start("judging-http", environ=environ)
        wait_until(lambda: {worker.name.split("@")[0] for worker in alive()} >= set(names), "the workers to come up")
        yield made


def wait_until(is_so: Callable[[], bool], what: str, *, seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        look_after_runs()
        time.sleep(0.2)


def look_after_runs() -> None:
    """What reconciler and rating worker do, in this process."""
    reconciler.reconcile_once()
    for run in Run.objects.filter(state__in=Run.ACTIVE):
        rate_stale(run.project_id)
        advancing.advance(run.pk)


def in_flight(host: str) -> int:
    return JudgingTask.objects.filter(state="leased", leased_by__startswith=f"{host}@").count()


def end_leases(host: str) -> int:
    """As if its leases had run out, without the minutes."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE workers_judgingtask SET lease_until = clock_timestamp() - interval '1 second' "
            "WHERE state = 'leased' AND starts_with(leased_by, %s)",
            [f"{host}@"],
        )
        return int(cursor.rowcount)


def cut_off_and_let_leases_end(host: Host, run: Run) -> int:
    """Nothing is handed out meanwhile, so that the late answers of this host are the first; returns how many leases ended."""
    transitions.pause_run(run)
    host.passing = False
    time.sleep(1.0)  # answers to what was in flight come to the host or wait on its way
    late = end_leases(host.name)
    queue.reap()
    assert late and in_flight(host.name) == 0
    return late


@pytest.mark.long
@pytest.mark.parametrize("running", [["cut", "slow", "ahead"]], indirect=True)
def test_hosts_that_are_cut_off_slow_or_wrong_about_the_time_lose_and_double_nothing(
    running: dict[str, Host], fake: FakeJudge
) -> None:
    project = make_texts(queries=4, documents=24)
    judge = make_judge(project, "shared")
    run = start_run(project, judges=[judge], sampler="all", pair_budget=700, seed=1)
    busy: set[str] = set()

    def all_work() -> bool:
        busy.update(name for name in running if in_flight(name))
        return busy == {"cut", "slow", "ahead"}

    wait_until(all_work, "every host to have questions in flight")
    wait_until(lambda: in_flight("cut") > 0, "questions in flight on the host that is to be cut off")

    late = cut_off_and_let_leases_end(running["cut"], run)
    before = Judgment.objects.count()
    running["cut"].passing = True
    wait_until(lambda: Judgment.objects.count() > before, "a late answer")

    # Cut off for good, as far as the others can tell: they ask its questions again, and it comes back to find them answered.
    transitions.resume_run(run)
    wait_until(lambda: in_flight("cut") > 0, "the host to work again")
    running["cut"].cut()
    in_flight_at_cut = end_leases("cut")
    wait_until(lambda: in_flight("cut") == 0, "its leases to end")
    done = Judgment.objects.count()
    wait_until(lambda: Judgment.objects.count() > done + 20, "the others to go on")
    running["cut"].join()

    run.refresh_from_db()
    wait_until(lambda: Run.objects.get(pk=run.pk).state == Run.State.FINISHED, "the run to end")
    run.refresh_from_db()
    assert run.reason in ("the design is complete", "the budget of 700 pairs is spent")
    assert Judgment.objects.filter(annotator=judge).count() == run.tasks_planned == 700
    assert not JudgingTask.objects.exists()
    wait_until(lambda: not Attempt.objects.filter(outcome="").exists(), "the last late answers")
    ledger = fake.summary()
    assert ledger["paid"] <= totals_of_run(run.pk).calls, "every call that was paid for is in the books"
    assert ledger["paid"] - 700 <= late + in_flight_at_cut, "paid twice at most what was in flight at a cut"
    for host in running.values():
        assert host.end() < 15.0


@pytest.mark.parametrize("running", [["far"]], indirect=True)
def test_host_that_was_cut_off_answers_late_and_goes_on_by_itself_though_all_messages_were_lost(
    running: dict[str, Host], fake: FakeJudge
) -> None:
    far = running["far"]
    project = make_texts(queries=2, documents=24)
    run = start_run(project, judges=[make_judge(project, "wiped")], sampler="all", seed=1)
    wait_until(lambda: Judgment.objects.count() > 20 and in_flight("far") > 0, "the first answers")

    late = cut_off_and_let_leases_end(far, run)
    before = Judgment.objects.count()
    far.passing = True
    wait_until(lambda: Judgment.objects.count() > before, "a late answer")
    wait_until(lambda: fake.summary()["paid"] == Judgment.objects.count(), "all of them, with nothing asked twice")
    assert Judgment.objects.count() <= before + late

    before = Judgment.objects.count()
    assert JudgingTask.objects.filter(state="open").exists(), "something is left to do"
    transitions.resume_run(run)
    client.valkey().flushall()
    wait_until(lambda: Judgment.objects.count() > before, "work to go on", seconds=10.0)
    transitions.cancel_run(run)
    wait_until(lambda: in_flight("far") == 0, "the host to come to rest")
    assert far.end() < 5.0, "with nothing to wait for it stops at once"
