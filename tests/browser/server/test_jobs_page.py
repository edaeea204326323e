"""The jobs page, the audit log and a run's budget in a real browser: every look, live without jumping, by keyboard."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from labeling import audit
from labeling.models import Annotator, Project
from tests.browser.checks import Start, faults_in_looks
from tests.factories.pages import candidates_of, make_judge, make_pair, make_project, make_query, make_user
from workers.models import Attempt, EndpointState, Job, JudgingTask, ProviderBatch, Run, Worker
from workers.monitoring.heartbeats import beat

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def owner() -> User:
    return make_user("ada", is_superuser=True, is_staff=True)


@pytest.fixture
def project(owner: User) -> Project:
    """A run under way, one that its budget ended, dead questions, a GPU, an endpoint that turns calls away."""
    project = make_project(owner, name="Clinical search over a rather long list of guidelines")
    judge = make_judge(project, name="Qwen3-4B", plugin="openai-http")
    Annotator.objects.filter(pk=judge.pk).update(options={"endpoint": "vllm-east"})
    run = Run.objects.create(project=project, state="judging", tasks_planned=12_000, pairs_planned=4_000, round=2)
    run.judges.add(judge)
    spent = Run.objects.create(
        project=project, state="finished", is_spent=True, reason="the project's cap of 5,000 calls is spent",
        call_budget=4_000, finished_at=timezone.now(),
    )  # fmt: skip
    ids = candidates_of(make_query(project, size=7))
    reasons = ["refusal", "context_overflow", "timeout"]
    for place, pair in enumerate(make_pair(a, b) for at, a in enumerate(ids) for b in ids[at + 1 :]):
        fields: dict[str, Any] = {}
        if place > 8:
            fields = {"state": "dead", "reason": reasons[place % 3], "message": "no"}
        elif place > 5:
            fields = {"state": "leased", "leased_by": "w@host:1", "lease_until": timezone.now() + timedelta(minutes=3)}
        JudgingTask.objects.create(run=run, pair=pair, annotator=judge, **fields)
        Attempt.objects.create(
            task_id=place, fence=1, run=run, annotator=judge, outcome="preference", finished_at=timezone.now()
        )
    Job.objects.create(project=project, stage="train", state="failed", error="OutOfMemory: 80 GiB are too few")
    for name, queues in (("rating@east", "rating"), ("judging-cpu@east", "judging-cpu"), ("gpu@far", "judging-gpu")):
        beat(name, queues)
    gpus = [{"name": "NVIDIA H200", "memory_mib": 143771, "used_mib": 5120, "utilisation": 37}]
    Worker.objects.filter(name="gpu@far").update(gpus=gpus, host="gpu-7.example")
    EndpointState.objects.create(
        identity="x", name="vllm-east", base_url="http://gpu-7.example/v1", model="Qwen3-4B", mode="paused",
        until=timezone.now() + timedelta(seconds=40), concurrency=32, rpm=600, last_error="HTTP 429: slow down",
        last_error_at=timezone.now(), rate_limited=17, seen_at=timezone.now(),
    )  # fmt: skip
    for state, message in (
        ("running", ""),
        ("failed", "the provider refused the batch: model_not_found: no such model"),
    ):
        ProviderBatch.objects.create(
            run=run, annotator=judge, endpoint="vllm-east", model="Qwen3-4B", state=state, requests=4_000, size=9_000_000,
            input_tokens=3_100_000, output_tokens=480_000, cost_micros=1_870_000, completed=1_250, message=message,
            sent_at=timezone.now() - timedelta(hours=2), finished_at=timezone.now() if state == "failed" else None,
            batch_id=f"batch_{state}", provider_status="in_progress" if state == "running" else "failed",
        )  # fmt: skip
    audit.note("run.paused", project=project, actor=owner, subject=f"run {spent.pk}", before="judging")
    audit.note("project.caps", project=project, subject=project.slug, calls="no limit → 5,000")
    return project


def test_jobs_audit_and_budget_are_clean_in_every_look(visit: Start, owner: User, project: Project) -> None:
    visited = visit(owner)
    spent = Run.objects.get(is_spent=True)
    faults: dict[str, Any] = {}
    addresses = {
        "jobs": reverse("jobs"),
        "audit": reverse("audit", args=[project.slug]),
        "budget": reverse("budget", args=[project.slug, spent.pk]),
        "caps": reverse("settings", args=[project.slug]),
    }
    for name, address in addresses.items():
        visited.open(address)
        faults |= faults_in_looks(visited, name)
    assert not faults
    assert not visited.complaints


def test_page_follows_by_itself_and_stays_where_the_reader_is(visit: Start, owner: User, project: Project) -> None:
    page = visit(owner).open(reverse("jobs"))
    expect(page.locator("#stuck-judging-http")).to_be_visible()
    page.evaluate("window.scrollTo(0, 300)")
    before = page.evaluate("window.scrollY")
    JudgingTask.objects.filter(state="leased").delete()
    expect(page.locator("#queue-judging-http td").nth(2)).to_have_text("0")
    assert page.evaluate("window.scrollY") == before > 0
    beat("judging-http@east", "judging-http")
    expect(page.locator("#stuck-judging-http")).to_have_count(0)


def test_dead_questions_are_asked_again_by_keyboard(visit: Start, owner: User, project: Project) -> None:
    page = visit(owner).open(reverse("jobs"))
    dead = JudgingTask.objects.filter(state="dead", reason="refusal").count()
    assert dead
    page.get_by_role("button", name="Retry: the model declined").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text(f"Retrying {dead} questions.")).to_be_visible()
    page.goto(page.url.split("/p/")[0] + reverse("audit", args=[project.slug]))
    expect(page.get_by_text("Failed questions retried")).to_be_visible()


def test_budget_that_ended_a_run_is_raised(visit: Start, owner: User, project: Project) -> None:
    spent = Run.objects.get(is_spent=True)
    page = visit(owner).open(reverse("budget", args=[project.slug, spent.pk]))
    page.get_by_label("Calls").fill("9000")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    spent.refresh_from_db()
    assert spent.call_budget == 9000
