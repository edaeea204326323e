"""A failure is on the open project page within ten seconds, with its words; the page is clean in every look."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from labeling.models import Annotator, DatasetImport, Membership, Project
from scoring.models import QueryFit
from tests.browser.checks import Start, faults_in_looks
from tests.browser.conftest import LOOKS
from tests.factories.http_panel import KEY, define_endpoints, make_texts
from tests.factories.http_panel import make_judge as make_hosted
from tests.factories.pages import make_query, make_run, make_user, score
from tests.fake_judge.process import FakeJudge, running_fake_judge
from workers.broker import client
from workers.jobs import leasing
from workers.jobs.leasing import JobClaim
from workers.judging import batches, streaming
from workers.models import EndpointState, Job, JudgeTrouble, JudgingTask
from workers.runs.advancing import advance
from workers.runs.ordering import start_run

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


TESTED, PAUSED = "tests the endpoint with one call", "No automatic retry"
# By fault of the fake judge: its cause; what happens; when it is tried again; what to do.
OF_ENDPOINT = {
    "http_500": ("server error", "Answers are kept", TESTED, "restart the server"),
    "rate_limited": ("rate limited (HTTP 429)", "questions wait", "Calls resume automatically", "a higher limit"),
    "hang": ("no answer in time", "Its questions wait", TESTED, "raise its timeout_s"),
    "unauthorized": ("key refused", "It gets no questions", PAUSED, "Replace the key"),
    "gpu_memory": ("out of GPU memory", "Earlier results are kept", TESTED, "choose a smaller model"),
}
NO_WORKER = (
    "No worker serves",
    "judges are not asked",
    "begins within seconds",
    "python manage.py worker judging-http",
)
NO_BROKER = ("not responding", "No work is lost", "tries to reconnect every few seconds", "Start Valkey or Redis")
FULL_DISK = ("Evaluate failed. Disk full", "nothing new can be stored", PAUSED, "Free some space")
SECONDS = 10  # the page shows a failure within this time


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeJudge]:
    ledger = tmp_path_factory.mktemp("attention") / "ledger.jsonl"
    with running_fake_judge(ledger, "--seed", "5", "--api-key", KEY, "--retry-after", "40") as judge:
        for fault in OF_ENDPOINT:
            judge.set_judge(fault, fault_rates={fault: 1.0})
        yield judge


def _work(judge: Annotator) -> None:
    """What a worker's thread does with the judge's questions."""
    batches.judge_open(judge.pk, worker="w@host:1")
    connection.close()


def _fill_the_disk(claim: JobClaim) -> str:
    with Path("/dev/full").open("w") as full:
        full.write("a result")
        full.flush()
    return "unreached"


def test_each_failure_is_seen_within_ten_seconds_with_its_retry_and_its_remedy(
    visit: Start, owner: User, fake: FakeJudge, monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path
) -> None:
    define_endpoints(
        monkeypatch, fake, {"limits_per_model": True}, {"limits_per_model": True, "name": "slow", "timeout_s": 0.25}
    )
    monkeypatch.setattr(streaming, "PATIENCE_S", 0.5)
    project = make_texts(documents=4)
    Membership.objects.create(project=project, user=owner, role="owner")
    judges = {
        fault: make_hosted(project, fault, **({"endpoint": "slow"} if fault == "hang" else {})) for fault in OF_ENDPOINT
    }
    run = start_run(project, judges=list(judges.values()), sampler="all", seed=1)
    visited = visit(owner)
    page = visited.open(reverse("project", args=[project.slug]))

    def expect_box(key: str, parts: tuple[str, ...]) -> None:
        for part in parts:
            expect(page.locator(f"#{key}")).to_contain_text(part, timeout=SECONDS * 1000)

    advance(run.pk)
    job = Job.objects.create(project=project, stage="evaluate")
    leasing.carry_out(job.pk, "evaluate", _fill_the_disk, worker="w@host:1", given_up="given up")
    with ThreadPoolExecutor(len(judges)) as workers:
        list(workers.map(_work, judges.values()))
    for fault, judge in judges.items():
        expect_box(f"trouble-{judge.pk}", OF_ENDPOINT[fault])
    expect_box(f"job-{job.pk}", FULL_DISK)
    expect_box("queues", NO_WORKER)
    limited = page.locator(f"#trouble-{judges['rate_limited'].pk}")
    expect(limited.locator("time[data-until]")).to_contain_text("in ")
    page.locator(f"#trouble-{judges['http_500'].pk}").get_by_role("button", name="Test this judge").click()
    expect(page.get_by_text("Test of http_500 started.")).to_be_visible()

    settings.ZELO_REDIS_URL = f"unix://{tmp_path}/nobody.sock"
    client.valkey.cache_clear()
    cache.delete("zelo:broker")
    visited.open(reverse("project", args=[project.slug]))
    expect_box("broker", NO_BROKER)
    assert not visited.complaints


@pytest.fixture(autouse=True)
def broker_of_the_settings() -> Iterator[None]:
    yield
    client.valkey.cache_clear()


@pytest.fixture
def troubled(owner: User) -> Project:
    """A project in which much waits for somebody."""
    project = make_texts(documents=4)
    project.name = "Clinical search"
    project.save()
    Membership.objects.create(project=project, user=owner, role="owner")
    waiting = make_hosted(project, "gpt-4.1-mini")
    paused = make_hosted(project, "qwen3-32b", mode="reasoned")
    JudgeTrouble.objects.create(annotator=paused, reason="unavailable", message="HTTP 500: CUDA out of memory")
    Annotator.objects.filter(pk=paused.pk).update(
        paused_at=timezone.now(),
        pause_reason="8 questions in a row failed in the same way: HTTP 500: CUDA out of memory",
    )
    Annotator.objects.create(
        project=project, name="Anna", is_person=True, user=make_user(), config_hash="p" * 64,
        paused_at=timezone.now(), pause_reason="3 of 10 answers to gold pairs were as expected; at least 70% are needed",
    )  # fmt: skip
    query = make_query(project, size=30, text="troponin rise after marathon")
    score(query, [1.5 - 0.1 * at for at in range(30)], stderr=0.5)
    QueryFit.objects.update(islands=2)
    run = make_run(project, planned=481)
    run.judges.add(waiting, paused)
    now = timezone.now()
    EndpointState.objects.create(
        identity="e" * 64, name="fake", base_url="http://127.0.0.1:9/v1", mode="open", until=now + timedelta(seconds=48),
        last_error="HTTP 500", last_error_at=now, down_since=now,
    )  # fmt: skip
    pair = query.pairs.create(a=query.candidates.all()[0], b=query.candidates.all()[1])
    JudgingTask.objects.create(
        run=run,
        pair=pair,
        annotator=waiting,
        state="dead",
        reason="refusal",
        message="I cannot help with comparing these.",
    )
    Job.objects.create(
        project=project, stage="train", state="failed", finished_at=now,
        error="OSError: [Errno 28] No space left on device; no space is left in the workspace",
    )  # fmt: skip
    DatasetImport.objects.create(
        project=project, file="corpus.jsonl", importer="zbench-jsonl", summary="", left_out=7, left_out_rows=b"x"
    )
    return project


def test_the_page_is_clean_in_every_look(visit: Start, owner: User, troubled: Project) -> None:
    visited = visit(owner)
    page = visited.open(reverse("project", args=[troubled.slug]))
    expect(page.locator(".need")).to_have_count(6)
    page.wait_for_selector("#figures h2")
    page.locator("#more-judgments summary").click()
    page.locator("#workers > summary").click()
    page.wait_for_timeout(1200)  # the page polls every second
    assert page.locator("#more-judgments").get_attribute("open") is not None, "what one opened stays open"
    assert faults_in_looks(visited, "attention", [*LOOKS, "widest"]) == {}
    assert not visited.complaints
