"""The settings of a project in a real browser: the criteria of its rubric, and what is wrong with them."""

from __future__ import annotations

import pytest
from django.urls import reverse
from playwright.sync_api import expect

from tests.browser.checks import Start, faults_in_looks
from tests.factories.pages import make_project, make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

RUBRIC = "3 x answers: It answers the need\nup to date\n0.5 x official: From an authoritative source"


def test_a_rubric_is_written_with_the_keyboard(visit: Start) -> None:
    owner = make_user("ada")
    project = make_project(owner)
    visited = visit(owner)
    page = visited.open(reverse("settings", args=[project.slug]))
    field = page.get_by_label("Criteria")
    field.fill("3 x answers\n-1 x : nothing\n")
    page.keyboard.press("Control+End")
    page.locator("#settings").get_by_role("button", name="Save").press("Enter")
    expect(page.get_by_text("Nothing was changed.")).to_be_visible()
    said = page.locator("#" + (field.get_attribute("aria-describedby") or "").split()[-1])
    expect(said).to_contain_text("Criterion 2 of the rubric")
    expect(field).to_have_attribute("aria-invalid", "true")
    field.scroll_into_view_if_needed()
    faults = faults_in_looks(visited, "rubric-refused")
    field.fill(RUBRIC)
    page.locator("#settings").get_by_role("button", name="Save").press("Enter")
    expect(page.get_by_text("Saved.")).to_be_visible()
    expect(page.get_by_label("Criteria")).to_have_value(RUBRIC)
    page.get_by_label("Criteria").scroll_into_view_if_needed()
    faults |= faults_in_looks(visited, "rubric")
    assert faults == {}
    project.refresh_from_db()
    assert [(each["name"], each["weight"]) for each in project.rubric] == [
        ("answers", 3),
        ("up to date", 1),
        ("official", 0.5),
    ]
