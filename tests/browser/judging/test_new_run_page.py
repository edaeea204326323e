"""A run like the last one in two clicks, presets, the summary that follows the form, a judge's test; in every look."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect

from labeling.access.annotators import get_judge
from labeling.models import Project
from tests.browser.checks import Start, faults_in_looks
from tests.browser.conftest import LOOKS
from tests.factories.pages import candidates_of, judge, make_pair, make_project, make_query
from workers.jobs.trial import run_trial
from workers.models import JudgeTrial, Run
from workers.runs.ordering import start_run

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
WIDEST: dict[str, Any] = {"viewport": {"width": 1920, "height": 1080}}


@pytest.fixture
def judged(owner: User) -> Project:
    """A project with judges that have answered, and the run that asked them."""
    project = make_project(owner)
    judges = [
        get_judge(project, "bm25", name="BM25"),
        get_judge(project, "query-likelihood", name="Query likelihood"),
        get_judge(
            project,
            "openai-http",
            {"endpoint": "hosted", "model": "gpt-4.1-mini", "mode": "reasoned"},
            name="gpt-4.1-mini",
        ),
    ]
    for number in range(3):
        documents = candidates_of(make_query(project, size=6, text=f"a question on topic {number}"))
        pair = make_pair(documents[0], documents[1])
        for each in judges:
            judge(pair, each, 0.8)
    run = start_run(project, judges=judges[:2], sampler="adaptive", allocation="rotate", pair_budget=12, seed=1)
    Run.objects.filter(pk=run.pk).update(state="finished", reason="the design is complete")
    return project


def test_a_second_run_like_the_first_takes_two_clicks(visit: Start, owner: User, judged: Project) -> None:
    first = Run.objects.get()
    visited = visit(owner)
    page = visited.open(reverse("project", args=[judged.slug]))
    page.get_by_role("link", name="New run").last.click()
    expect(page.get_by_text(f"Filled in like run {first.pk}.")).to_be_visible()
    page.get_by_role("button", name="Start run").last.click()
    expect(page.get_by_text("Run started.")).to_be_visible()
    second = Run.objects.exclude(pk=first.pk).get()
    for field in ("sampler", "sampler_options", "allocation", "orders", "pair_budget", "query_ids"):
        assert getattr(second, field) == getattr(first, field), field
    assert set(second.judges.all()) == set(first.judges.all())
    assert not visited.complaints


def test_the_summary_stays_in_sight_and_follows_the_form(visit: Start, owner: User, judged: Project) -> None:
    visited = visit(owner)
    page = visited.open(reverse("new-run", args=[judged.slug]))
    summary, start = page.locator("#estimate"), page.get_by_role("button", name="Start run").last
    expect(summary).to_contain_text("questions at most, on 12 pairs of 3 queries")
    page.get_by_label("Text contains").fill("topic 1")
    expect(summary).to_contain_text("of 1 query")
    page.get_by_role("link", name="Quick look").click()
    expect(page.get_by_label("Random sample")).to_have_value("20")
    page.locator("#advanced > summary").click()
    page.locator("#token_budget").scroll_into_view_if_needed()
    expect(start).to_be_in_viewport()
    page.get_by_role("link", name="Only people").click()
    expect(summary).to_contain_text("of people’s time")
    assert not visited.complaints


def test_a_known_judge_is_tested_from_its_card(visit: Start, owner: User, judged: Project) -> None:
    visited = visit(owner)
    page = visited.open(reverse("new-run", args=[judged.slug]))
    card = page.locator(".judge-card", has_text="BM25").first
    card.get_by_role("button", name="Test this judge").click()
    expect(card.get_by_text("Asking the judge up to ten questions…")).to_be_visible()
    run_trial(JudgeTrial.objects.get().job_id, worker="w@host:1")
    expect(card.locator(".trial .badge").first).to_be_visible()
    assert not visited.complaints


def test_the_documentation_of_a_page_is_one_click_away(visit: Start, owner: User, judged: Project) -> None:
    visited = visit(owner)
    for name, heading in {"project": "The project", "new-run": "Starting a run"}.items():
        page = visited.open(reverse(name, args=[judged.slug]))
        page.get_by_role("link", name="Help").click()
        expect(page.get_by_role("heading", name=heading, exact=True)).to_be_in_viewport()
    assert not visited.complaints


def test_the_form_is_clean_in_every_look(visit: Start, owner: User, judged: Project) -> None:
    visited = visit(owner)
    faults: dict[str, Any] = {}
    for name, address in {
        "new-run": reverse("new-run", args=[judged.slug]),
        "new-run-people": f"{reverse('new-run', args=[judged.slug])}?preset=people",
    }.items():
        page = visited.open(address)
        expect(page.locator("#estimate .big").first).to_be_visible()
        faults |= faults_in_looks(visited, name, [*LOOKS, "widest"])
    assert not faults
    assert not visited.complaints
