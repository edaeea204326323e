"""Certainty, where next and the graph of comparisons in a real browser: looks, faults, the button that queues."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect

from labeling.access.annotators import get_judge
from labeling.models import Project, Query
from tests.browser.checks import Start, faults_in_looks
from tests.factories.pages import candidates_of, judge, make_pair, make_project, make_query, make_user, score
from workers.models import Attempt, JudgingTask, Run

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def owner() -> User:
    return make_user("ada", is_staff=True, is_superuser=True, first_name="Ada")


@pytest.fixture
def project(owner: User) -> Project:
    return make_project(owner)


@pytest.fixture
def query(project: Project) -> Query:
    """Thirty documents in four random cycles of pairs, judged with noise; two pairs wait."""
    query = make_query(project, size=30, words="a bounded double-ended queue that keeps the last items, document")
    documents = candidates_of(query)
    annotator = get_judge(project, "bm25")
    estimate = {
        "calls": 120,
        "most_calls": 132,
        "tokens": 48_500,
        "most_tokens": 121_000,
        "cost_micros": 97_000,
        "most_cost_micros": 241_000,
    }
    run = Run.objects.create(
        project=project, state="finished", reason="the design is complete", tasks_planned=120, estimate=estimate
    )
    run.judges.set([annotator])
    rng = np.random.default_rng(3)
    thetas = np.linspace(1.2, -1.2, 30)
    seen: set[tuple[int, int]] = set()
    for _ in range(4):
        order = rng.permutation(30).tolist()
        for a, b in zip(order, order[1:] + order[:1], strict=True):
            low, high = min(a, b), max(a, b)
            if (low, high) not in seen:
                seen.add((low, high))
                preference = 1 / (1 + np.exp(-2.4 * (thetas[low] - thetas[high]) + rng.normal(0, 0.7)))
                judge(make_pair(documents[low], documents[high]), annotator, float(preference))
    score(query, thetas.tolist())
    waiting = [(a, a + 1) for a in range(29) if (a, a + 1) not in seen][:2]
    for a, b in waiting:
        JudgingTask.objects.create(run=run, pair=make_pair(documents[a], documents[b]), annotator=annotator)
    Attempt.objects.bulk_create(
        Attempt(run=run, annotator=annotator, task_id=task, fence=1, cost_micros=900) for task in range(120)
    )
    return query


def test_pages_stand_in_every_look(visit: Start, owner: User, project: Project, query: Query) -> None:
    visited = visit(owner)
    faults: dict[str, Any] = {}
    pages = {
        "graph": reverse("graph", args=[project.slug, query.pk]),
        "where-next": reverse("where-next", args=[project.slug, query.pk]),
        "query-next": reverse("query", args=[project.slug, query.pk]),
        "new-run-budgets": reverse("new-run", args=[project.slug]),
        "run-budget": reverse("budget", args=[project.slug, Run.objects.get().pk]),
        "queries-certainty": reverse("queries", args=[project.slug]),
        "project-certainty": reverse("project", args=[project.slug]),
    }
    for name, address in pages.items():
        page = visited.open(address)
        if name == "query-next":
            page.locator("#where-next .big").scroll_into_view_if_needed()
        if name == "new-run-budgets":
            page.locator("#estimate .big").first.scroll_into_view_if_needed()
        if name == "project-certainty":
            page.wait_for_selector("#f-certainty")
        faults |= faults_in_looks(visited, name)
    assert faults == {}
    assert visited.complaints == []


def test_button_queues_the_pairs(visit: Start, owner: User, project: Project, query: Query) -> None:
    visited = visit(owner)
    page = visited.open(reverse("query", args=[project.slug, query.pk]))
    page.get_by_role("button", name="Queue 10 pairs").click()
    expect(page.locator(".notice.success")).to_contain_text("10 pairs queued")
    run = Run.objects.get(sampler="uncertain")
    assert run.query_ids == [query.pk]


def test_document_of_the_graph_opens_its_reasons(visit: Start, owner: User, project: Project, query: Query) -> None:
    visited = visit(owner)
    page = visited.open(reverse("graph", args=[project.slug, query.pk]))
    page.locator(".graph svg a").nth(2).click()
    expect(page.locator(".reasons h3")).to_contain_text("answers")
