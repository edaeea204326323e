"""Snapshots and trainings in a real browser: every look, and a curve that grows by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect
from pytest_django import Settings

from labeling.models import Project
from tests.browser.checks import faults_in_looks
from tests.browser.conftest import Visit
from tests.factories.pages import make_project, make_user
from tests.factories.scored import make_snapshot, scored
from trainer.models import TrainingRun
from workers.jobs.training import start_training

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

PROGRESS: dict[str, Any] = {
    "step": 120, "steps": 300, "epoch": 0.4, "tokens_per_s": 812.4, "memory_bytes": 2**30, "eta_s": 61.0,
    "loss": [[step, 0.2 / (1 + step / 40)] for step in range(10, 130, 10)],
    "ndcg": [[0, 0.42], [50, 0.61], [100, 0.6]], "best": {"step": 50, "ndcg": 0.61},
    "facts": {"rows": 960, "tokens_an_epoch": 65000, "device": "cpu", "trained_weights": 676225, "weights": 23389826},
    "notes": ["12 of 960 rows are longer than the model reads and were cut"],
}  # fmt: skip


@pytest.fixture
def owner() -> User:
    return make_user("ada")


@pytest.fixture
def project(owner: User, settings: Settings, tmp_path: Path) -> Project:
    settings.STORAGE_URL = f"file://{tmp_path / 'stored'}"
    return make_project(owner)


def test_snapshots_and_trainings_are_clean_in_every_look(
    visit: Callable[..., Visit], owner: User, project: Project
) -> None:
    scored(project, domain="a domain with a rather long name")
    run = start_training(project, make_snapshot(project))
    TrainingRun.objects.filter(pk=run.pk).update(state="running", progress=PROGRESS)
    visited = visit(owner)
    for name, parts in (("snapshots", []), ("training", []), ("training-run", [run.pk])):
        page = visited.open(reverse(name, args=[project.slug, *parts]))
        page.locator("details").evaluate_all("all => all.forEach(each => { each.open = true })")
        assert (faults_in_looks(visited, name), visited.complaints) == ({}, [])


OVERLAPS = """ends => { const boxes = [...ends.children].map(each => each.getBoundingClientRect());
  return boxes.some((a, i) => boxes.some((b, j) => i < j && a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)); }"""


def test_from_scores_to_an_ordered_training_whose_curve_grows(
    visit: Callable[..., Visit], owner: User, project: Project
) -> None:
    scored(project)
    visited = visit(owner)
    page: Any = visited.open(reverse("training", args=[project.slug]))
    page.get_by_role("link", name="Freeze scores").click()
    page.get_by_label("Name").fill("Autumn")
    page.get_by_role("button", name="Freeze scores").click()
    expect(page.get_by_role("status")).to_contain_text("Autumn")
    page.get_by_role("button", name="Start training").click()
    expect(page.locator("#training")).to_contain_text("planned")
    TrainingRun.objects.update(state="running", progress=PROGRESS)
    expect(page.locator("#training")).to_contain_text("best checkpoint: 0.610 at step 50")
    assert page.locator("#training polyline").count() == 2
    assert [chart.locator("text").count() >= 2 for chart in page.locator("#training .upright").all()] == [True, True]
    for width in (1400, 390):
        page.set_viewport_size({"width": width, "height": 844})
        assert not page.locator("#training .ends").first.evaluate(OVERLAPS)
    page.get_by_role("button", name="Cancel training").click()
    expect(page.locator("#training")).to_contain_text("cancelled")
