"""The pages about judges in a real browser: scorecard, questions without an answer, injection probe."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect

from labeling.models import Annotator, Project
from tests.browser.checks import Start, faults_in_looks
from workers.models import JudgingTask

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_the_pages_about_judges_are_clean_in_every_look(visit: Start, owner: User, project: Project) -> None:
    visited = visit(owner)
    faults: dict[str, Any] = {}
    for name in ("scorecard", "failures", "probes"):
        visited.open(reverse(name, args=[project.slug]))
        faults |= faults_in_looks(visited, name)
    assert not faults
    assert not visited.complaints


def test_a_reason_is_filtered_and_asked_again(visit: Start, owner: User, project: Project) -> None:
    page = visit(owner).open(reverse("failures", args=[project.slug]))
    page.get_by_role("link", name="the model declined").click()
    expect(page.locator("#retry")).to_have_text("Retry 1 question")
    page.locator("#retry").click()
    expect(page.get_by_text("Retrying 1 question.")).to_be_visible()
    assert JudgingTask.objects.filter(state="open").count() == 1


def test_a_paused_judge_is_let_go_on(visit: Start, owner: User, project: Project) -> None:
    page = visit(owner).open(reverse("scorecard", args=[project.slug]))
    expect(page.get_by_text("fell from 91% to 48%")).to_be_visible()
    page.get_by_role("button", name="resume").click()
    expect(page.get_by_text("Qwen3-4B resumed.")).to_be_visible()
    assert not Annotator.objects.filter(paused_at__isnull=False).exists()
