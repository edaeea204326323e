"""Recipes on the page, by REST and by command."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from labeling.models import Annotator, Project
from tests.factories.rows import make_judges, make_project, make_user
from workers.budgets.changes import change_caps
from workers.models import Job, Recipe

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture
def project() -> Project:
    return make_project(owner=make_user("owner"), queries=4, documents=5)


@pytest.fixture
def owner(project: Project, client: Client) -> Iterator[Client]:
    client.force_login(get_user_model().objects.get(username="owner"))
    yield client


def text_of(response: Any) -> str:
    return " ".join(response.content.decode().split())


def test_the_page_shows_the_plan_then_orders_cancels_and_resumes(project: Project, owner: Client) -> None:
    address = reverse("recipe", args=[project.slug])
    assert address in text_of(owner.get(reverse("project", args=[project.slug])))
    assert "Start a run with them first" in text_of(owner.get(address))
    judges = make_judges(project, 2)
    nobody = owner.post(address, {})
    assert nobody.status_code == 422 and "Choose at least one judge." in text_of(nobody)
    odd = owner.post(address, {"judge": [judges[0].pk], "recipe-panel_pairs": "none"})
    assert odd.status_code == 422

    sent = {"judge": [each.pk for each in judges], "recipe-pairs_per_candidate": "1"}
    plan = text_of(owner.post(address, {**sent, "do": "plan"}))
    assert "4 queries; a distilled student needs 50, so the panel judges the whole design" in plan
    assert "44 panel calls" in plan and "Start recipe" in plan, "20 pairs, and 12 across queries twice"
    assert not Recipe.objects.exists()
    assert owner.post(address, {**sent, "do": "start"}).status_code == 302
    recipe = Recipe.objects.get()
    assert recipe.options["pairs_per_candidate"] == 1.0 and recipe.plan["calls"] == 44
    shown = text_of(owner.get(address))
    assert f"Recipe {recipe.pk}" in shown and "left out" in shown and "Show plan" not in shown, "one at a time"

    move = reverse("move-recipe", args=[project.slug, recipe.pk, "cancel"])
    owner.post(move)
    assert Job.objects.get(recipe=recipe).state == "cancelled"
    assert "already cancelled" in text_of(owner.post(move, follow=True))
    owner.post(reverse("move-recipe", args=[project.slug, recipe.pk, "resume"]))
    assert Job.objects.get(recipe=recipe).state == "open"
    assert owner.post(reverse("move-recipe", args=[project.slug, recipe.pk, "jump"])).status_code == 404


def test_rest_and_command_share_the_order(project: Project, owner: Client) -> None:
    url = f"/api/v1/projects/{project.slug}/recipes"
    body: dict[str, Any] = {"judges": [{"plugin": "test-longer"}], "options": {"distill": "sometimes"}}
    refused = owner.post(url, json.dumps(body), "application/json")
    assert refused.status_code == 422 and "distill" in refused.json()["detail"]
    body |= {"options": {"calibration_pairs": 0}, "plan": True}
    plan = owner.post(url, json.dumps(body), "application/json")
    assert plan.status_code == 200 and plan.json()["queries"] == 4
    assert [(each["name"], each["calls"]) for each in plan.json()["stages"] if each["calls"]] == [("design", 40)]
    assert not Annotator.objects.exists(), "a plan stores nothing"
    assert plan.json()["limits"] == []
    change_caps(project, {"calls": 30})
    [ahead] = owner.post(url, json.dumps(body), "application/json").json()["limits"]
    assert (ahead["reason"], ahead["left"], ahead["expected"]) == ("the project's cap of 30 calls is spent", 30, 40)
    change_caps(project, {"calls": None})
    body["plan"] = False
    found = owner.post(url, json.dumps(body), "application/json")
    assert found.status_code == 201
    shown = found.json()
    assert (shown["stage"], shown["panel_calls"], shown["paper_calls"]) == ("design", 0, 120)
    assert [stage["state"] for stage in shown["stages"]] == [
        "left_out", "left_out", "planned", "left_out", "left_out", "left_out", "left_out",
    ]  # fmt: skip
    number = shown["recipe_id"]
    assert owner.get(url).json()[0] == owner.get(f"/api/v1/recipes/{number}").json() == shown
    assert owner.post(f"/api/v1/recipes/{number}/resume").status_code == 409

    out = io.StringIO()
    call_command("recipe", project.slug, "--status", stdout=out)
    assert f"recipe {number}: open" in out.getvalue() and "4 queries; a student needs 10" in out.getvalue()
    with pytest.raises(CommandError, match="unfinished; wait for its end"):
        call_command("recipe", project.slug, "--judges", "test-longer", stdout=out)
    call_command("recipe", project.slug, "--cancel", str(number), stdout=out)
    with pytest.raises(CommandError, match="cancelled already"):
        call_command("recipe", project.slug, "--cancel", str(number), stdout=out)
    call_command("recipe", project.slug, "--resume", str(number), stdout=out)
    assert Job.objects.get(recipe=number).state == "open"
    out = io.StringIO()
    call_command("recipe", project.slug, "--judges", "test-longer", "--plan", stdout=out)
    assert "in all" in out.getvalue() and Recipe.objects.count() == 1
    assert owner.post(f"/api/v1/recipes/{number}/cancel").status_code == 200
    assert owner.post(f"/api/v1/recipes/{number}/cancel").status_code == 409
