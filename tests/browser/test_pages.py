"""The pages in a real browser: looks, accessibility, live change, keyboard, and the ways through them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.urls import reverse
from playwright.sync_api import expect

from labeling.access.links import make_link
from labeling.models import Candidate, Project, Query
from scoring.models import QueryFit, Score
from tests.browser.checks import Start, faults_in_looks, overflow, show_in
from tests.browser.conftest import Visit
from tests.factories.pages import (
    candidates_of,
    judge,
    make_judge,
    make_pair,
    make_project,
    make_query,
    make_run,
    make_user,
    score,
)
from workers.models import JudgingTask, Run

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def owner() -> User:
    return make_user("ada", is_staff=True, is_superuser=True, first_name="Ada")


@pytest.fixture
def project(owner: User) -> Project:
    return make_project(owner)


@pytest.fixture
def query(project: Project) -> Query:
    """Twelve graded documents, a cycle of pairs judged by two judges and one person, one dead question."""
    query = make_query(project, size=12)
    documents = candidates_of(query)
    judges = [make_judge(project, name="gpt-4.1 · reasoned", plugin="openai-http"), make_judge(project)]
    thetas = [1.1 - 0.2 * at for at in range(12)]
    run = make_run(project, planned=30)
    for at, candidate in enumerate(documents):
        candidate.grade = max(0, 3 - at // 3)
        candidate.save()
        pair = make_pair(candidate, documents[(at + 1) % 12])
        for annotator in judges:
            judge(pair, annotator, 0.3 if at == 4 else 0.8, rationale="names the bounded length and the tail of a file")
        if at == 0:
            JudgingTask.objects.create(
                run=run,
                pair=pair,
                annotator=judges[0],
                swapped=True,
                state="dead",
                reason="rate_limited",
                message="429",
            )
    score(query, thetas)
    make_query(project, size=2, text="a second question")
    return query


def addresses(project: Project, query: Query) -> dict[str, str]:
    pair = query.pairs.first()
    assert pair is not None
    return {
        "projects": reverse("projects"),
        "project": reverse("project", args=[project.slug]),
        "queries": reverse("queries", args=[project.slug]),
        "query": reverse("query", args=[project.slug, query.pk]),
        "reasons": f"{reverse('query', args=[project.slug, query.pk])}?document={candidates_of(query)[5].pk}",
        "matrix": reverse("matrix", args=[project.slug, query.pk]),
        "pair": reverse("pair", args=[project.slug, pair.pk]),
        "scale-before": reverse("scale", args=[project.slug]),
        "new-project": reverse("new-project"),
        "new-run": reverse("new-run", args=[project.slug]),
        "settings": reverse("settings", args=[project.slug]),
        "jobs": reverse("jobs"),
        "doctor": reverse("doctor"),
        "profile": reverse("profile"),
    }


def settle(visited: Visit) -> None:
    """Wait until what the page asks for by itself has come."""
    if visited.page.locator("#figures").count():
        visited.page.wait_for_selector("#figures h2")
    if visited.page.locator("#estimate").count():
        visited.page.wait_for_selector("#estimate .big")


def test_every_page_is_clean_in_every_look(visit: Start, owner: User, project: Project, query: Query) -> None:
    visited = visit(owner)
    faults: dict[str, Any] = {}
    for name, address in addresses(project, query).items():
        visited.open(address)
        settle(visited)
        faults |= faults_in_looks(visited, name)
    assert not faults
    assert not visited.complaints


def test_long_texts_and_a_thousand_candidates_fit(visit: Start, owner: User, project: Project) -> None:
    query = make_query(project, size=1000, text="unbroken" * 60 + " " + "word " * 300, words="x" * 500)
    score(query, [1.0 - at / 500 for at in range(1000)])
    visited = visit(owner)
    for path in (reverse("query", args=[project.slug, query.pk]), reverse("queries", args=[project.slug])):
        visited.open(path)
        for look in ("light", "phone"):
            show_in(visited, look)
            assert overflow(visited) <= 0, (path, look)
    assert not visited.complaints


def order(visited: Visit) -> list[str]:
    return visited.page.locator("td.name a").all_inner_texts()


def upend(query: Query) -> None:
    """New scores in the opposite order, as a refit would store them."""
    for at, candidate in enumerate(candidates_of(query)):
        Score.objects.filter(candidate=candidate).update(theta=0.1 * at, elo=1500 + 40 * at)
    Query.objects.filter(pk=query.pk).update(judged_version=100)
    QueryFit.objects.filter(query=query).update(judged_version=100)


def test_rows_move_without_a_reload(visit: Start, owner: User, project: Project, query: Query) -> None:
    visited = visit(owner)
    page = visited.open(f"{reverse('query', args=[project.slug, query.pk])}?document={candidates_of(query)[5].pk}")
    details = page.locator("details[id^='text-']")
    details.locator("summary").click()
    page.evaluate("window.marked = true; window.moves = 0")
    page.evaluate(
        "() => { const animate = Element.prototype.animate;"
        "Element.prototype.animate = function (...args) { window.moves += 1; return animate.apply(this, args); }; }"
    )
    focused = f"#name-{candidates_of(query)[7].pk}"
    page.locator(focused).focus()
    page.evaluate("window.scrollTo(0, 300)")
    assert order(visited)[0] == "document number 0"
    upend(query)
    expect(page.locator("td.name a").first).to_have_text("document number 11")
    assert page.evaluate("window.marked"), "the page was loaded anew"
    assert page.evaluate("window.moves") >= 10
    assert page.evaluate("window.scrollY") == 300
    assert page.evaluate("document.activeElement.id") == focused.removeprefix("#")
    assert details.evaluate("element => element.open")
    assert not visited.complaints


def test_rows_jump_for_those_who_want_no_motion(visit: Start, owner: User, project: Project, query: Query) -> None:
    visited = visit(owner, reduced_motion="reduce")
    page = visited.open(reverse("query", args=[project.slug, query.pk]))
    page.evaluate("() => { Element.prototype.animate = () => { window.moved = true; }; }")
    upend(query)
    expect(page.locator("td.name a").first).to_have_text("document number 11")
    assert page.evaluate("window.moved") is None


def test_progress_follows_the_tables(visit: Start, owner: User, project: Project, query: Query) -> None:
    visited = visit(owner)
    page = visited.open(reverse("project", args=[project.slug]))
    page.get_by_text("29 of 30").wait_for()
    Run.objects.filter(project=project).update(tasks_planned=50)
    page.get_by_text("49 of 50").wait_for()
    assert not visited.complaints


def test_lost_server_is_said_and_forgotten(visit: Start, owner: User, project: Project, query: Query) -> None:
    visited = visit(owner)
    page = visited.open(reverse("project", args=[project.slug]))
    page.context.set_offline(True)
    page.locator("#lost").wait_for(state="visible")
    page.context.set_offline(False)
    page.locator("#lost").wait_for(state="hidden")


def test_an_ended_session_leads_to_the_sign_in_page(visit: Start, owner: User, project: Project, query: Query) -> None:
    visited = visit(owner)
    page = visited.open(reverse("project", args=[project.slug]))
    page.wait_for_selector("#figures h2")
    Session.objects.all().delete()
    page.get_by_role("heading", name="Sign in").wait_for()
    assert page.url.endswith(f"{reverse('sign-in')}?next={reverse('project', args=[project.slug])}")


def test_reasons_open_and_close_by_keyboard(visit: Start, owner: User, project: Project, query: Query) -> None:
    visited = visit(owner)
    page = visited.open(reverse("query", args=[project.slug, query.pk]))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    first = f"#name-{candidates_of(query)[0].pk}"
    page.locator(first).focus()
    page.keyboard.press("Enter")
    page.locator(".reasons").wait_for()
    assert "document=" in page.url
    assert page.locator(first).get_attribute("aria-expanded") == "true"
    assert page.evaluate("document.activeElement.id") == first.removeprefix("#")
    page.keyboard.press("Enter")
    page.locator(".reasons").wait_for(state="detached")
    page.go_back()
    page.locator(".reasons").wait_for()
    assert not visited.complaints


def test_reason_leads_to_its_pair(visit: Start, owner: User, project: Project, query: Query) -> None:
    visited = visit(owner)
    page = visited.open(addresses(project, query)["reasons"])
    page.locator("a.opponent").first.click()
    page.get_by_role("article", name="Document A").wait_for()
    assert page.get_by_text("names the bounded length").count() >= 1


def test_cell_of_the_matrix_opens_its_pair(visit: Start, owner: User, project: Project, query: Query) -> None:
    visited = visit(owner)
    page = visited.open(reverse("matrix", args=[project.slug, query.pk]))
    cells = page.locator("#matrix .cells a rect")
    assert cells.count() == 2 * query.pairs.exclude(judgments=None).count()
    first = cells.first
    assert "0." in (first.locator("title").text_content() or "")
    assert first.evaluate("cell => getComputedStyle(cell).fill") not in ("none", "rgb(0, 0, 0)")
    first.click()
    page.wait_for_url("**/pairs/*/")
    assert not visited.complaints


def test_link_signs_in_by_one_press(visit: Start, owner: User) -> None:
    visited = visit()
    page = visited.open(reverse("enter", args=[make_link(owner)]))
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Projects", exact=True).wait_for()
    visited.open(reverse("profile"))
    page.get_by_role("heading", name="Ada").wait_for()


def test_strangers_pages_are_clean(visit: Start) -> None:
    visited = visit()
    for path in (reverse("sign-in"), reverse("enter", args=["used-up"])):
        visited.open(path)
        assert faults_in_looks(visited, path.strip("/").replace("/", "-")) == {}
    visited.complaints = [each for each in visited.complaints if "404" not in each]
    assert not visited.complaints


def test_from_a_paste_to_a_run(visit: Start, owner: User) -> None:
    line = {
        "query": {"id": "q1", "query": "how do I keep the last lines?"},
        "documents": [{"id": f"d{at}", "content": f"text {at}"} for at in range(5)],
    }
    visited = visit(owner)
    page = visited.open(reverse("projects"))
    page.get_by_role("link", name="New project").click()
    page.wait_for_url(
        "**" + reverse("new-project")
    )  # until its scripts run; without them *Preview* is a page of its own
    page.get_by_label("Project name").fill("My search")
    text = page.locator("#text")
    text.fill(json.dumps(line) + '\n{"query": 7}')
    page.get_by_role("button", name="Preview").click()
    page.get_by_text("1 invalid line").wait_for()
    assert page.get_by_text("line 2").count()
    visited.picture("preview-light")
    text.fill(json.dumps(line))
    page.get_by_role("button", name="Preview").click()
    page.get_by_text("no errors").wait_for()
    page.get_by_role("button", name="Create project").click()
    page.get_by_role("heading", name="New run").wait_for()
    page.get_by_text("10 pairs of 1 query").wait_for()
    page.locator("#advanced > summary").click()
    page.get_by_label("Pair budget").fill("4")
    page.get_by_text("questions at most, on 4 pairs").wait_for()
    page.get_by_role("button", name="Start run", exact=True).click()
    page.get_by_text("Run started").wait_for()
    assert Run.objects.get(project__name="My search").pair_budget == 4
    assert Candidate.objects.filter(query__project__name="My search").count() == 5
    assert not visited.complaints
