"""The settings of a project in the browser: who may see them, what they store, what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from labeling.models import Project
from tests.factories.pages import make_project, make_user, page

pytestmark = pytest.mark.django_db


def send(client: Client, project: Project, **fields: str) -> Any:
    sent = {"name": "Clinical search", "instruction": "", "rater": "thurstone", "rater-thurstone-tolerance": "1e-8"}
    sent |= {"rater-thurstone-judge_weights": "equal", "rater-bradley-terry-judge_weights": "equal"}
    return client.post(reverse("settings", args=[project.slug]), {**sent, **fields})


def test_settings_show_what_the_project_has(client: Client, project: Project) -> None:
    Project.objects.filter(pk=project.pk).update(
        instruction="Prefer guidelines.", rater_options={"prior_precision": 0.75}
    )
    html = page(client, "settings", project.slug)
    assert "Prefer guidelines." in html
    assert 'name="rater-thurstone-prior_precision" value="0.75"' in html
    assert reverse("settings", args=[project.slug]) in page(client, "project", project.slug)


def test_settings_are_stored(client: Client, project: Project) -> None:
    fields = {"rater": "bradley-terry", "rater-bradley-terry-require_connected": "on", "instruction": "Be strict."}
    answer = send(client, project, **fields)
    assert answer.status_code == 302
    project.refresh_from_db()
    assert (project.rater, project.instruction) == ("bradley-terry", "Be strict.")
    assert project.rater_options["require_connected"] is True


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("rater-thurstone-prior_precision", "-1", "Enter a number of at least 0."),
        ("rater", "nobody", "nobody is not one of the available choices"),
        ("name", " ", "This field is required"),
        ("instruction", "nul\x00", "Null characters are not allowed"),
    ],
)
def test_bad_settings_change_nothing_and_say_why(
    client: Client, project: Project, field: str, value: str, said: str
) -> None:
    answer = send(client, project, **{field: value})
    assert answer.status_code == 422
    html = answer.content.decode()
    assert said in html
    if field != "rater":
        assert html.count(f'{field}-error"') == 2, "the error stands at its field, which is described by it"
    found = Project.objects.get(pk=project.pk)
    assert (found.name, found.rater, found.instruction, found.rater_options) == (project.name, "thurstone", "", {})


def test_only_owners_see_settings(client: Client) -> None:
    visitor = make_user("visitor")
    client.force_login(visitor)
    assert client.get(reverse("settings", args=[make_project(visitor, role="viewer").slug])).status_code == 403
    assert client.get(reverse("settings", args=[make_project(make_user()).slug])).status_code == 404
