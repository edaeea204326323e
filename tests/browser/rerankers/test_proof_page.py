"""The proof in a real browser: every look, from a difference to what moved, entering a run."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect
from pytest_django import Settings

from labeling.models import Annotator, Candidate, Membership, ModelGrade, Project
from scoring.models import Snapshot
from tests.browser.checks import faults_in_looks, serious_faults
from tests.browser.conftest import LOOKS, Visit
from tests.factories.frozen import a_run, make_frozen, make_scored
from tests.factories.pages import make_user
from trainer.evaluation.entries import BASE, enter_baselines, enter_run_file
from workers.jobs.evaluation import evaluate, order_evaluation

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def owner() -> User:
    return make_user("ada")


@pytest.fixture
def snapshot(owner: User, settings: Settings, tmp_path: Path) -> Snapshot:
    """Evaluated without the base, which would load a model; two models gave LLM grades."""
    settings.STORAGE_URL = f"file://{tmp_path / 'stored'}"
    project = make_scored(queries=18, documents=10, domains=("law", "code", "a domain with a rather long name"))
    Membership.objects.create(project=project, user=owner, role="owner")
    snapshot = make_frozen(project)
    entered = [enter_run_file(project, "production", io.BytesIO(a_run(snapshot)))]
    entered += [each for each in enter_baselines(project) if each.kind != BASE]
    evaluate(order_evaluation(project, snapshot, rerankers=entered).pk)
    graded = list(Candidate.objects.filter(query__project=project).values_list("pk", "grade"))
    for number, scale in enumerate((0.3, 0.2)):
        judge = Annotator.objects.create(
            project=project, name=f"a model of {number + 7} billion parameters", plugin="grade", config_hash=str(number)
        )
        ModelGrade.objects.bulk_create(
            ModelGrade(annotator=judge, candidate_id=pk, value=scale * (grade or 0.0)) for pk, grade in graded
        )
    return snapshot


def project_of(snapshot: Snapshot) -> Project:
    project = snapshot.projects.first()
    assert project is not None
    return project


def test_the_proof_is_clean_in_every_look(visit: Callable[..., Visit], owner: User, snapshot: Snapshot) -> None:
    visited = visit(owner)
    page = visited.open(reverse("proof", args=[project_of(snapshot).slug]))
    assert faults_in_looks(visited, "proof") == {}
    orders = page.locator("section[aria-labelledby='h-orders']")
    expect(orders.locator("tbody tr")).to_have_count(3)
    expect(orders).to_contain_text("human grades and LLM grades")
    page.get_by_label("LLM grades").select_option(label="a model of 7 billion parameters")
    page.get_by_role("button", name="Show").click()
    expect(orders).not_to_contain_text("a model of 8 billion parameters")
    page.locator("#board a").first.click()
    expect(page.locator("h1")).to_contain_text("Rank changes")
    page.locator("tbody th a").first.click()
    expect(page.locator("table").first).to_contain_text("rank")
    assert (faults_in_looks(visited, "moved"), visited.complaints) == ({}, [])


def test_the_button_stands_below_all_fields_and_intervals_stay_on_one_line(
    visit: Callable[..., Visit], owner: User, snapshot: Snapshot
) -> None:
    page = visit(owner).open(reverse("proof", args=[project_of(snapshot).slug]))
    begins, ends = (f"each => each.getBoundingClientRect().{edge}" for edge in ("top", "bottom"))
    fields = [page.get_by_label(name).evaluate(ends) for name in ("Split", "Measures", "Missing queries")]
    assert page.get_by_role("button", name="Show").evaluate(begins) > max(fields)
    heights = page.locator("#board td.number .sub").evaluate_all("all => all.map(each => each.offsetHeight)")
    assert heights and max(heights) < 30


def test_a_run_of_today_is_entered_by_file(
    visit: Callable[..., Visit], owner: User, snapshot: Snapshot, tmp_path: Path
) -> None:
    (tmp_path / "today.trec").write_bytes(a_run(snapshot))
    visited = visit(owner)
    page: Any = visited.open(reverse("proof", args=[project_of(snapshot).slug]))
    page.get_by_label("Run file").set_input_files(str(tmp_path / "today.trec"))
    page.get_by_role("button", name="Add run").click()
    expect(page.get_by_role("status")).to_contain_text("today.trec added")


@pytest.mark.parametrize("look", list(LOOKS))
def test_the_report_is_clean_and_its_file_prints_on_whole_pages(
    look: str, visit: Callable[..., Visit], owner: User, snapshot: Snapshot, tmp_path: Path
) -> None:
    visited = visit(owner, look=look)
    page = visited.open(reverse("report", args=[project_of(snapshot).slug]))
    visited.picture(f"report-{look}")
    assert not serious_faults(visited)
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download HTML").click()
    file = tmp_path / "report.html"
    saved.value.save_as(file)
    page.goto(file.as_uri())
    printed = page.pdf(prefer_css_page_size=True)
    assert printed.startswith(b"%PDF") and printed.count(b"/Type /Page\n") >= 3
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 1018, "height": 688})  # A4 across, less the margins
    cut = "[...document.querySelectorAll('.scroll')].filter((each) => each.scrollWidth > each.clientWidth).length"
    assert page.evaluate(cut) == 0, "a table is wider than the paper"


def test_two_rerankers_are_compared_on_one_query(visit: Callable[..., Visit], owner: User, snapshot: Snapshot) -> None:
    page: Any = visit(owner).open(reverse("proof", args=[project_of(snapshot).slug]))
    page.locator("#board a").first.click()
    options = page.get_by_label("From").locator("option").all_inner_texts()
    page.get_by_label("From").select_option(label=options[0])
    page.get_by_label("To").select_option(label=options[-1])
    page.get_by_role("button", name="Show").click()
    expect(page.locator("h1")).to_have_text(f"Rank changes from {options[0]} to {options[-1]}")
    query = page.locator("tbody th a").first
    text = query.inner_text()
    assert text and page.locator("tbody th .sub").first.inner_text() not in text  # its words, not its id
    query.click()
    documents = page.locator("section", has=page.locator("#h-documents"))
    expect(documents.locator("h2")).to_contain_text(text.removesuffix("…"))
    assert documents.locator("tbody tr").count() == 10
    assert documents.locator("tbody th").first.inner_text().strip()
