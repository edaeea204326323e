"""The page of distilled runs in a real browser: clean in every look, ordered and cancelled by keyboard."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect
from pytest_django import Settings

from tests.browser.checks import Start, faults_in_looks
from tests.factories.rows import make_judges, make_project
from workers.jobs.distillation import STAGE
from workers.models import Job

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("stub_plugins"),
]


@pytest.fixture(autouse=True)
def own_storage(settings: Settings, tmp_path: Path) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"


def test_a_distilled_run_is_ordered_and_cancelled(visit: Start, owner: User) -> None:
    project = make_project(owner=owner, queries=4, documents=5)
    make_judges(project, 2)
    visited = visit(owner)
    page = visited.open(reverse("distill", args=[project.slug]))
    faults = faults_in_looks(visited, "distill-order")
    for box in page.get_by_role("checkbox").all()[:2]:
        box.check()
    page.get_by_role("button", name="Start distilled run").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("The panel judges the first part.")).to_be_visible()
    faults |= faults_in_looks(visited, "distill-running")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    assert Job.objects.get(stage=STAGE).state == "cancelled"
    assert not faults and not visited.complaints
