"""Whatever goes wrong over HTTP ends in a state of its own in the database, and never in a vote.

The fake judge is a process of its own; tasks go through the queue and the judging loop as in a worker.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test import Client

from labeling.importing.dataset import export_judgments
from labeling.models import Annotator, Judgment, Project
from labeling.plugins import registered
from labeling.records import FailureKind
from scoring.exports.exporting import export
from scoring.models import Score
from scoring.rating import rate_stale
from tests.factories.http_panel import KEY, define_endpoints, make_judge, make_texts, work_off
from tests.factories.rows import make_user
from tests.fake_judge.faults import FAULTS
from tests.fake_judge.modes import EVERY_MODE, ONE_MODE
from tests.fake_judge.process import FakeJudge, running_fake_judge
from workers.judging import batches, trouble
from workers.judging.failures import failure_counts, retry_failures
from workers.judging.queue import MAX_ATTEMPTS
from workers.models import Attempt, JudgeTrouble, JudgingTask, Run
from workers.runs.advancing import advance
from workers.runs.ordering import start_run

pytestmark = pytest.mark.django_db(transaction=True)

EXPECTED = {(fault, "logprob"): (kind, retryable) for fault, (kind, retryable, _) in EVERY_MODE.items()}
EXPECTED |= {("rate_limited_date", "logprob"): (FailureKind.RATE_LIMITED, True)}
EXPECTED |= {(fault, mode): (kind, retryable) for mode, fault, kind, retryable in ONE_MODE}
OUTAGES = {FailureKind.TIMEOUT, FailureKind.UNAVAILABLE}


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeJudge]:
    ledger = tmp_path_factory.mktemp("faults") / "ledger.jsonl"
    with running_fake_judge(ledger, "--seed", "5", "--api-key", KEY, "--retry-after", "0.05") as judge:
        for fault in FAULTS:
            judge.set_judge(fault, fault_rates={fault: 1.0})
        yield judge


@pytest.fixture(autouse=True)
def endpoint(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    # Limits of each model by itself: what one fault does to its endpoint leaves the others alone.
    changes: list[dict[str, Any]] = [{}, {"name": "impatient", "timeout_s": 0.25}, {"name": "slow", "rpm": 1.0}]
    define_endpoints(monkeypatch, fake, *({"limits_per_model": True} | change for change in changes))


def ask(judges: list[Annotator]) -> None:
    JudgingTask.objects.filter(state="open").update(next_at=Now())
    for judge in judges:
        batches.judge_open(judge.pk, worker="w@host:1")


def states() -> dict[tuple[str, str], tuple[str, str]]:
    """(fault, mode) to (state, reason) of its only task."""
    rows = JudgingTask.objects.select_related("annotator")
    return {
        (task.annotator.options["model"], task.annotator.options["mode"]): (task.state, task.reason) for task in rows
    }


def test_every_fault_is_known_to_this_test() -> None:
    assert {fault for fault, _ in EXPECTED} == set(FAULTS)


def test_every_fault_ends_in_its_own_visible_state_and_none_in_a_vote() -> None:
    project = make_texts(documents=2)
    judges = [
        make_judge(project, fault, mode=mode, **({"endpoint": "impatient"} if fault in {"hang", "trickle"} else {}))
        for fault, mode in EXPECTED
    ]
    run = start_run(project, judges=judges, sampler="all", seed=1)
    advance(run.pk)
    rate_limited = {key: ("open", "") for key, (kind, _) in EXPECTED.items() if kind is FailureKind.RATE_LIMITED}
    ask(judges)
    first = {key: ("open" if retryable else "dead", kind.value) for key, (kind, retryable) in EXPECTED.items()}
    assert states() == first | rate_limited
    for _ in range(MAX_ATTEMPTS - 1):
        ask(judges)
    # What the endpoint does to every question buries none of them.
    outage = {key: ("open", kind.value) for key, (kind, _) in EXPECTED.items() if kind in OUTAGES}
    buried = {key: ("dead", kind.value) for key, (kind, _) in EXPECTED.items()}
    assert states() == buried | outage | rate_limited
    assert not Judgment.objects.exists()
    rate_stale(project.pk)
    assert not Score.objects.filter(comparisons__gt=0).exists()
    shown = {each.reason: each.dead for each in failure_counts(project)}
    dead = [kind for key, (kind, _) in EXPECTED.items() if key not in outage | rate_limited]
    assert shown == {kind.value: dead.count(kind) for kind in FailureKind}
    booked = {kind.value for kind, _ in EXPECTED.values()} - {FailureKind.RATE_LIMITED.value}
    assert set(Attempt.objects.values_list("outcome", flat=True)) == booked


def test_after_the_fault_the_same_question_is_answered(fake: FakeJudge) -> None:
    project = make_texts(documents=4)
    judge = make_judge(project, "recovering")
    fake.set_judge("recovering", fault_rates={"refusal": 1.0})
    run = start_run(project, judges=[judge], sampler="all", seed=1)
    work_off(run, [judge], rounds=1)
    assert JudgingTask.objects.filter(state="dead", reason="refusal").count() == 5, "those of its trial"
    fake.set_judge("recovering", fault_rates={})
    assert retry_failures(project) == 5
    work_off(run, [judge])
    assert run.state == "finished"
    assert Judgment.objects.count() == Score.objects.filter(comparisons=3).count() + 2 == 6


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"fault_rates": {"unauthorized": 1.0}}, "HTTP 401"),
        ({"dialect": ["other_validation"]}, "HTTP 500"),
    ],
)
def test_a_wrong_key_and_a_rejected_request_pause_the_judge_with_what_to_correct(
    fake: FakeJudge, settings: dict[str, Any], says: str
) -> None:
    project, model = make_texts(documents=6), f"wrong {says}"
    fake.set_judge(model, **settings)
    judge = make_judge(project, model)
    run = work_off(start_run(project, judges=[judge], sampler="all", seed=1), [judge])
    judge.refresh_from_db()
    remedy = {
        "HTTP 401": "correct the key that the endpoint's definition names, then retry",
        "HTTP 500": "the endpoint does not accept messages; change the judge's options or its extra_body",
    }[says]
    for shown in (judge.pause_reason, JudgeTrouble.objects.get(annotator=judge).message, run.reason):
        assert f"endpoint 'fake': {says}" in shown and remedy in shown
    assert (run.state, run.is_unanswered) == (Run.State.FAILED, True), "no outage that is waited for"
    assert 1 <= sum(line["model"] == model for line in fake.ledger()) <= trouble.TRIAL


def test_a_call_that_was_never_made_costs_no_attempt_and_waits() -> None:
    project = make_texts(documents=4)
    judge = make_judge(project, "paced", endpoint="slow", batch_deadline_s=0.6)
    run = start_run(project, judges=[judge], sampler="all", seed=1)
    advance(run.pk)
    assert batches.judge_open(judge.pk, worker="w@host:1") >= 1
    waiting = JudgingTask.objects.filter(state="open")
    assert waiting.count() == 6 - Judgment.objects.count() >= 4
    assert set(waiting.values_list("attempts", "reason", "leased_by")) == {(0, "", "")}
    made = Judgment.objects.count()
    assert batches.judge_open(judge.pk, worker="w@host:2") == 0  # the rate is that of all workers
    assert Attempt.objects.count() == Judgment.objects.count() == made


def test_the_key_is_in_no_table_log_export_or_answer(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    project = make_texts(documents=6)
    judges = [make_judge(project, name) for name in ("fine", "unauthorized", "html", "bad_request")]
    run = start_run(project, judges=judges, sampler="all", seed=1)
    work_off(run, judges, rounds=2)
    assert Judgment.objects.count() == 15 and JudgingTask.objects.exists()
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        tables = [row[0] for row in cursor.fetchall()]
        for table in tables:
            cursor.execute(f'SELECT count(*) FROM "{table}" whole WHERE whole::text LIKE %s', [f"%{KEY}%"])
            assert cursor.fetchone()[0] == 0, table
    assert len(tables) > 20
    assert KEY not in caplog.text
    client.force_login(make_user(is_superuser=True))
    base = f"/api/v1/projects/{project.slug}"
    for address in (f"{base}/failures", f"{base}/judges/scorecards", f"{base}/runs", f"/p/{project.slug}/failures/"):
        answer = client.get(address)
        assert answer.status_code == 200 and KEY not in answer.content.decode()
    assert KEY not in _everything_exported(project)


def _everything_exported(project: Project) -> str:
    """Every export of scores, and that of the judgments, as text."""
    stream = io.BytesIO()
    for name in registered("exporter"):
        export(project, name, stream)
    export_judgments(project, stream)
    return stream.getvalue().decode(errors="replace")
