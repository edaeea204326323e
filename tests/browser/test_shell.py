"""The frame in a browser: groups, palette and menu by keyboard and on a phone; the documentation in each look."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from labeling.models import Project
from tests.browser.checks import Start, serious_faults
from tests.factories.pages import make_project, make_query, make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
WIDTHS = {"wide": {"viewport": {"width": 1920, "height": 1080}}}


@pytest.fixture
def owner() -> Any:
    return make_user("owner")


@pytest.fixture
def project(owner: Any) -> Project:
    project = make_project(owner)
    make_query(project, text="how do I keep only the last N lines?", words="bounded deque")
    return project


def too_wide(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


@pytest.mark.parametrize("look", ["light", "dark", "phone", "wide"])
def test_frame_and_documentation_look_right(look: str, owner: Any, project: Project, visit: Start) -> None:
    visited = visit(owner, look="light" if look == "wide" else look, **WIDTHS.get(look, {}))
    page = visited.open(reverse("queries", args=[project.slug]))
    if look == "phone":
        page.get_by_role("button", name="Menu").click()
    page.locator("summary", has_text="Judging").click()
    assert page.get_by_role("link", name="New run").is_visible()
    assert serious_faults(visited) == []
    assert not too_wide(page)
    visited.picture(f"shell-{look}-menu")
    page.keyboard.press("Control+k")
    page.wait_for_selector("#palette-found a")
    assert serious_faults(visited) == []
    visited.picture(f"shell-{look}-palette")
    for address in (reverse("docs"), reverse("doc", args=["operations"])):
        page = visited.open(address)
        assert serious_faults(visited) == []
        assert not too_wide(page)
        visited.picture(f"shell-{look}-{address.strip('/').replace('/', '-')}")
    assert visited.complaints == []


def test_by_keyboard_alone_texts_pages_and_projects_are_found(owner: Any, project: Project, visit: Start) -> None:
    other = make_project(owner, name="Legal search")
    visited = visit(owner)
    page = visited.open(reverse("project", args=[project.slug]))
    page.keyboard.press("/")
    page.keyboard.type("last N")
    page.wait_for_selector("#palette-found a:has-text('how do I keep')")
    page.keyboard.press("Enter")
    page.wait_for_url("**/queries/*/")
    page.keyboard.press("Control+k")
    page.keyboard.type("training")
    page.wait_for_selector("#palette-found a[aria-selected=true]:has-text('Training')")
    page.keyboard.press("Enter")
    page.wait_for_url("**/training/")
    page.get_by_title("Change project").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#palette-found a:has-text('Legal search')")
    page.keyboard.type("legal")
    page.wait_for_selector("#palette-found a[aria-selected=true]:has-text('Legal search')")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{reverse('project', args=[other.slug])}")
    summary = page.locator("summary", has_text="Model")
    summary.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Snapshots"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.textContent").strip() == "Model"
    assert visited.complaints == []


def test_the_help_of_a_page_is_its_documentation(owner: Any, project: Project, visit: Start) -> None:
    page = visit(owner).open(reverse("people-agreement", args=[project.slug]))
    page.get_by_role("link", name="Help").click()
    page.wait_for_url("**/docs/people/#agreement")
    assert page.get_by_role("heading", name="Agreement", exact=True).is_visible()
