"""The settings of a project in the browser: who may see them, what they store, what they refuse."""

from __future__ import annotations

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from labeling.access.annotators import get_judge
from labeling.access.api_keys import make_token
from labeling.models import Membership, Project
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


def test_a_rubric_is_stored_and_used_by_judges_without_criteria(client: Client, project: Project) -> None:
    lines = "3 x answers: It answers the need\r\nup to date"
    assert send(client, project, rubric=lines).status_code == 302
    project.refresh_from_db()
    assert project.rubric[0] == {"name": "answers", "description": "It answers the need", "weight": 3.0}
    assert "3 x answers: It answers the need\nup to date" in page(client, "settings", project.slug)
    options = {"endpoint": "none", "model": "m", "mode": "reasoned"}
    judge = get_judge(project, "openai-http", options)
    own = get_judge(project, "openai-http", {**options, "criteria": [{"name": "style"}]})
    assert judge.options["criteria"] == project.rubric and judge.options["criteria_from"] == "project"
    assert [each["name"] for each in own.options["criteria"]] == ["style"]
    assert not get_judge(project, "openai-http", {**options, "mode": "logprob"}).options["criteria"]
    # Another rubric makes another annotator of the same configuration, also of the options that the first one has stored.
    call_command("configure", project.slug, criterion=["2 x fresh"], stdout=StringIO())
    project.refresh_from_db()
    later = get_judge(project, "openai-http", judge.options)
    assert later.pk != judge.pk and [each["name"] for each in later.options["criteria"]] == ["fresh"]
    patch = {"rubric": [{"name": "fresh", "weight": 2}]}
    key = make_token(Membership.objects.get(project=project, role="owner").user, name="k")
    answer = client.patch(
        f"/api/v1/projects/{project.slug}",
        json.dumps(patch),
        content_type="application/json",
        headers={"Authorization": f"Bearer {key}"},
    )
    assert answer.status_code == 200 and answer.json()["rubric"] == [
        {"name": "fresh", "description": "", "weight": 2.0}
    ]
    call_command("configure", project.slug, criterion=["none"], stdout=StringIO())
    project.refresh_from_db()
    assert project.rubric == [] and not get_judge(project, "openai-http", later.options).options["criteria"]


@pytest.mark.parametrize(
    "lines", ["score: reserved", "a\nA", "0 x fresh", "\n".join(f"c{n}" for n in range(9)), ": nothing"]
)
def test_a_rubric_that_cannot_be_used_is_refused(client: Client, project: Project, lines: str) -> None:
    assert send(client, project, rubric=lines).status_code == 422
    project.refresh_from_db()
    assert project.rubric == []
