"""Deleting, restoring and archives in a real browser: looks, faults, and the way from a project to its archive and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect

from labeling.models import Project, Query
from scoring.models import Score
from tests.browser.checks import faults_in_looks
from tests.browser.conftest import Visit
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
from workers.archives.importing import unpack, waiting_archive_ids

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
Start = Callable[..., Visit]


@pytest.fixture
def owner() -> User:
    return make_user("ada", is_staff=True, is_superuser=True, first_name="Ada")


@pytest.fixture
def query(owner: User) -> Query:
    query = make_query(make_project(owner))
    judge(make_pair(*candidates_of(query)[:2]), make_judge(query.project), 0.9)
    score(query, [1.0, 0.0, -1.0])
    return query


def test_the_pages_have_no_faults_in_any_look(query: Query, owner: User, visit: Start) -> None:
    project = query.project
    visited = visit(owner)
    paths = {
        "settings": reverse("settings", args=[project.slug]),
        "delete-project": reverse("delete-project", args=[project.slug]),
        "delete-query": reverse("delete", args=[project.slug, "query", query.pk]),
        "delete-account": reverse("delete-account", args=[owner.pk]),
        "import-archive": reverse("import-archive"),
        "archived": reverse("archived"),
        "projects": reverse("projects"),
        "scorecard": reverse("scorecard", args=[project.slug]),
    }
    for name, path in paths.items():
        visited.open(path)
        assert faults_in_looks(visited, f"deletion-{name}") == {}
    assert visited.complaints == []


def test_a_project_goes_out_is_deleted_comes_back_and_in_again(
    query: Query, owner: User, visit: Start, tmp_path: Path
) -> None:
    project = query.project
    page = visit(owner).open(reverse("settings", args=[project.slug]))
    with page.expect_download() as download:
        page.get_by_role("button", name="Download archive").click()
    archive = tmp_path / download.value.suggested_filename
    download.value.save_as(archive)
    assert archive.name == f"{project.slug}.zelo.gz"
    page.get_by_role("link", name="Delete project").click()
    page.get_by_label("to confirm").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("does not match")
    page.get_by_label("to confirm").fill(project.slug)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Deleted projects")).to_be_visible()
    assert not Project.objects.exists()
    page.get_by_role("button", name="Restore").click()
    expect(page.locator("body")).to_contain_text("Its runs are paused")
    page.goto(page.url.split("/p/")[0] + reverse("import-archive"))
    page.get_by_label("File").set_input_files(archive)
    page.get_by_label("Project name").fill("Second")
    page.get_by_role("button", name="Import").click()
    expect(page.locator("body")).to_contain_text("Importing the archive")
    unpack(waiting_archive_ids()[0])
    thetas = [
        list(Score.objects.filter(candidate__query__project=each).order_by("pk").values_list("theta", flat=True))
        for each in Project.objects.order_by("pk")
    ]
    assert len(thetas) == 2 and thetas[0] == thetas[1]
