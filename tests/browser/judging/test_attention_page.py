"""A failure is on the open project page within ten seconds, with its words; the page is clean in every look."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from labeling.models import Annotator, DatasetImport, Membership, Project
from scoring.models import QueryFit
from tests.browser.checks import Start, serious_faults
from tests.browser.conftest import LOOKS
from tests.factories.http_panel import KEY, define_endpoints, make_texts
from tests.factories.http_panel import make_judge as make_hosted
from tests.factories.pages import make_query, make_run, make_user, score
from tests.fake_judge.process import FakeJudge, running_fake_judge
from workers.judging import batches
from workers.models import EndpointState, Job, JudgeTrouble, JudgingTask
from workers.runs.advancing import advance
from workers.runs.ordering import start_run

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
WIDEST: dict[str, Any] = {"viewport": {"width": 1920, "height": 1080}}


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeJudge]:
    ledger = tmp_path_factory.mktemp("attention") / "ledger.jsonl"
    with running_fake_judge(ledger, "--seed", "5", "--api-key", KEY, "--retry-after", "40") as judge:
        yield judge


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("http_500", ("server error", "tests the endpoint with one call", "restart the server")),
        ("rate_limited", ("rate limited (HTTP 429)", "Calls resume by themselves", "a higher limit")),
    ],
)
def test_an_endpoint_that_goes_down_is_seen_within_ten_seconds(
    fault: str, said: tuple[str, ...], visit: Start, owner: User, fake: FakeJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.set_judge(fault, fault_rates={fault: 1.0})
    define_endpoints(monkeypatch, fake, {"limits_per_model": True})
    project = make_texts(documents=4)
    Membership.objects.create(project=project, user=owner, role="owner")
    judge = make_hosted(project, fault)
    run = start_run(project, judges=[judge], sampler="all", seed=1)
    visited = visit(owner)
    page = visited.open(reverse("project", args=[project.slug]))
    advance(run.pk)
    batches.judge_open(judge.pk, worker="w@host:1")
    box = page.locator(f"#trouble-{judge.pk}")
    for part in said:
        expect(box).to_contain_text(part, timeout=10_000)
    expect(box.locator("time[data-until]")).to_contain_text("in ")
    box.get_by_role("button", name="Test this judge").click()
    expect(page.get_by_text(f"Test of {fault} started.")).to_be_visible()
    assert not visited.complaints


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


@pytest.mark.parametrize("look", [*LOOKS, "widest"])
def test_the_page_is_clean_in_every_look(look: str, visit: Start, owner: User, troubled: Project) -> None:
    visited = visit(owner, **(WIDEST if look == "widest" else {"look": look}))
    page = visited.open(reverse("project", args=[troubled.slug]))
    expect(page.locator(".need")).to_have_count(6)
    page.wait_for_selector("#figures h2")
    visited.picture(f"attention-{look}")
    page.locator("#more-judgments summary").click()
    page.locator("#workers > summary").click()
    page.wait_for_timeout(1200)  # the page polls every second
    assert page.locator("#more-judgments").get_attribute("open") is not None, "what one opened stays open"
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert (serious_faults(visited), wide) == ([], 0)
    assert not visited.complaints
