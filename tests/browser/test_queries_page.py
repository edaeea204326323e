"""What a newcomer wants of queries in a real browser: find the worst one, move by keys, delete one, download scores and charts."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect

from labeling.models import Candidate, Project, Query
from tests.browser.checks import Start, faults_in_looks
from tests.factories.pages import (
    candidates_of,
    judge,
    make_judge,
    make_pair,
    make_project,
    make_query,
    make_user,
    score,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def owner() -> User:
    return make_user("ada")


@pytest.fixture
def project(owner: User) -> Project:
    """Four graded queries; the relevant document of "the hard one" is last."""
    project = make_project(owner)
    annotator, other = make_judge(project), make_judge(project, name="BM25", plugin="bm25")
    for text, relevant in (("an easy one", 0), ("the hard one", 3), ("a middling one", 1), ("another easy one", 0)):
        query = make_query(project, size=4, text=text)
        documents = candidates_of(query)
        for first, second in itertools.pairwise(documents):
            pair = make_pair(first, second)
            judge(pair, annotator, 0.8)
            judge(pair, other, 0.4)
        score(query, [0.9, 0.3, -0.3, -0.9])
        Candidate.objects.filter(query=query).update(grade=0)
        Candidate.objects.filter(pk=documents[relevant].pk).update(grade=2)
    return project


def test_the_worst_query_is_found_by_one_click(visit: Start, owner: User, project: Project) -> None:
    visited = visit(owner)
    page = visited.open(reverse("queries", args=[project.slug]))
    page.get_by_role("columnheader", name="NDCG@10").get_by_role("link").click()
    expect(page.locator("tbody tr").first).to_contain_text("the hard one")
    page.locator("tbody tr").first.get_by_role("link").click()
    expect(page.locator("h1")).to_contain_text("the hard one")
    expect(page.locator(".ranking tbody tr").nth(3).locator(".grade")).to_have_text("grade 2")
    assert visited.complaints == []


def test_a_query_is_selected_by_keys_and_deleted(visit: Start, owner: User, project: Project) -> None:
    visited = visit(owner)
    page: Any = visited.open(reverse("queries", args=[project.slug]))
    for key in ("j", "j", "x"):
        page.keyboard.press(key)
    expect(page.locator("#selected")).to_have_text("1 selected")
    page.locator("#queries").get_by_role("button", name="Delete").click()
    expect(page.locator("#bulk")).to_contain_text("the hard one")
    page.get_by_role("button", name="Delete").click()
    expect(page.locator(".notice.success")).to_contain_text("deleted")
    assert sorted(Query.objects.values_list("text", flat=True)) == ["a middling one", "an easy one", "another easy one"]
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("an easy one")


def test_scores_and_a_chart_are_downloaded(visit: Start, owner: User, project: Project) -> None:
    visited = visit(owner)
    page: Any = visited.open(reverse("queries", args=[project.slug]))
    page.get_by_role("link", name="Export scores").click()
    with page.expect_download() as scores:
        page.locator("#scores").get_by_role("button", name="Download").first.click()
    assert scores.value.path().stat().st_size > 0
    visited.open(reverse("charts", args=[project.slug]))
    elo = page.locator("#chart-elo")
    expect(elo.locator("svg.drawn circle")).to_have_count(2)
    with page.expect_download() as table:
        elo.get_by_role("link", name="Download as CSV").click()
    lines = table.value.path().read_text().splitlines()
    assert lines[0].startswith("grade,") and len(lines) == 3
    with page.expect_download() as drawing:
        elo.get_by_role("link", name="Download as SVG").click()
    assert drawing.value.path().read_text().startswith("<svg")


def test_list_and_charts_are_clean_in_every_look(visit: Start, owner: User, project: Project) -> None:
    visited = visit(owner)
    query = Query.objects.filter(project=project).order_by("id")[1]
    pages = {
        "queries": reverse("queries", args=[project.slug]) + "?sort=ndcg&ndcg_max=0.9",
        "bulk": reverse("bulk-queries", args=[project.slug]) + f"?action=ask&query={query.pk}",
        "charts": reverse("charts", args=[project.slug]),
    }
    for name, address in pages.items():
        page = visited.open(address)
        if name == "charts":
            page.wait_for_selector("#chart-reliability h2")
            page.wait_for_selector("#chart-elo svg.drawn")
        assert faults_in_looks(visited, name) == {}
    assert visited.complaints == []
