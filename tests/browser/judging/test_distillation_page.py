"""The page of distilled runs in a real browser: clean in every look, ordered and cancelled by keyboard."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect
from pytest_django import Settings

from tests.browser.checks import Start, serious_faults
from tests.browser.conftest import LOOKS
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


@pytest.mark.parametrize("look", list(LOOKS))
def test_a_distilled_run_is_ordered_and_cancelled(look: str, visit: Start, owner: User) -> None:
    project = make_project(owner=owner, queries=4, documents=5)
    make_judges(project, 2)
    visited = visit(owner, look=look)
    page = visited.open(reverse("distill", args=[project.slug]))
    visited.picture(f"distill-order-{look}")
    faults = serious_faults(visited)
    for box in page.get_by_role("checkbox").all()[:2]:
        box.check()
    page.get_by_role("button", name="Start distilled run").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("The panel judges the first part.")).to_be_visible()
    visited.picture(f"distill-running-{look}")
    faults += serious_faults(visited)
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    assert Job.objects.get(stage=STAGE).state == "cancelled"
    assert not faults and wide <= 0 and not visited.complaints
