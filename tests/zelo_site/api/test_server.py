"""REST of the server's own things: accounts, plugins, webhooks, and the operations that pages alone had before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from pytest_django import Settings

from labeling.access.links import find_link
from labeling.models import ApiToken, AuditEntry, GoldAnswer, Project, Role
from tests.factories.api import Api
from tests.factories.rows import make_judges, make_member, make_pair, make_project, make_run, make_user
from tests.processes.receiver import Receiver, receiving
from workers.models import JudgeTrial, Webhook
from workers.runs.transitions import cancel_run
from workers.webhooks.delivery import deliver

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture
def owner() -> Any:
    return make_user()


@pytest.fixture
def project(owner: Any) -> Project:
    return make_project(owner=owner, queries=2)


@pytest.fixture
def receiver(settings: Settings) -> Iterator[Receiver]:
    with receiving() as found:
        settings.ZELO_WEBHOOK_HOSTS = [found.entry]
        yield found


def send(api: Api, method: str, path: str, body: Any = None) -> Any:
    sent = "" if body is None else json.dumps(body)
    return api.client.generic(method, f"/api/v1{path}", sent, "application/json", headers=api.headers)


def test_superusers_list_create_deactivate_and_reset_accounts() -> None:
    root = make_user("root", is_superuser=True)
    api = Api(root)
    made = send(api, "POST", "/users", {"username": "emmy", "name": "Emmy", "is_staff": True})
    assert made.status_code == 201
    link = find_link(made.json()["path"].split("/")[2])
    assert link is not None and link.user.get_username() == "emmy" and not link.user.has_usable_password()
    number = made.json()["user_id"]
    (listed,) = api.get("/users?username=emmy").json()
    assert (listed["id"], listed["name"], listed["is_staff"], listed["is_active"]) == (number, "Emmy", True, True)
    for body in ({"username": "emmy"}, {"username": "with blank"}, {"username": ""}):
        assert send(api, "POST", "/users", body).status_code == 422
    emmy = get_user_model().objects.get(pk=number)
    other = Api(emmy)
    assert other.get("/users").status_code == 403
    emmy.set_password("long and secret")
    emmy.save()
    browser = Client()
    browser.force_login(emmy)
    again = send(api, "POST", f"/users/{number}/reset", {"revoke_keys": True}).json()
    assert find_link(made.json()["path"].split("/")[2]) is None and find_link(again["path"].split("/")[2]) is not None
    assert not ApiToken.objects.filter(user=emmy).exists() and browser.get("/profile/").status_code == 302
    assert send(api, "PATCH", f"/users/{number}", {"is_active": False}).json()["is_active"] is False
    assert find_link(again["path"].split("/")[2]) is None
    assert send(api, "POST", f"/users/{number}/reset", {}).status_code == 409
    assert [each["id"] for each in api.get("/users?is_active=false").json()] == [number]
    for body in ({"is_active": False}, {"is_superuser": False}):
        refused = send(api, "PATCH", f"/users/{root.pk}", body)
        assert refused.status_code == 409 and "last active superuser" in refused.json()["detail"]
    assert send(api, "DELETE", f"/users/{number}").status_code == 204
    assert api.get(f"/users/{number}").status_code == 404
    actions = list(AuditEntry.objects.filter(action__startswith="account.").values_list("action", flat=True))
    assert {"account.created", "account.reset", "account.deactivated", "account.deleted"} <= set(actions)


def test_a_webhook_lives_over_rest_and_shows_its_secret_once(owner: Any, project: Project, receiver: Receiver) -> None:
    api, base = Api(owner), f"/projects/{project.slug}/webhooks"
    made = send(api, "POST", base, {"url": receiver.url, "events": ["run.finished"]})
    assert made.status_code == 201 and made.json()["secret"].startswith("whsec_")
    one = f"{base}/{made.json()['id']}"
    assert "secret" not in api.get(one).json() and api.get(base).json() == [api.get(one).json()]
    refused = send(api, "POST", base, {"url": "http://127.0.0.1:1/", "events": ["run.finished"]})
    assert refused.status_code == 422 and "ZELO_WEBHOOK_HOSTS" in refused.json()["detail"]
    cancel_run(make_run(project, judges=make_judges(project)))
    assert send(api, "POST", f"{one}/test").status_code == 202
    deliver(made.json()["id"])
    found = api.get(f"{one}/deliveries?state=delivered").json()
    assert [(each["event"], each["status"]) for each in found] == [("webhook.test", 200), ("run.finished", 200)]
    assert api.get(f"{one}/deliveries?limit=1")["Link"].endswith('rel="next"')
    assert send(api, "POST", f"{one}/secret").json()["secret"] != made.json()["secret"]
    assert send(api, "PATCH", one, {"is_active": False}).json()["is_active"] is False
    assert send(api, "POST", f"{one}/test").status_code == 409
    assert send(api, "DELETE", one).status_code == 204 and not Webhook.objects.exists()
    for who in (make_member(project, Role.VIEWER), make_member(project, Role.ANNOTATOR)):
        assert Api(who).get(base).status_code == 403


def test_the_plugin_centre_lists_modules_with_their_plugins(owner: Any) -> None:
    rows = Api(owner).get("/plugins").json()
    by_module = {row["module"]: row for row in rows}
    lexical = by_module["workers.judges.lexical"]
    assert lexical["enabled"] and not lexical["error"] and lexical["package"] == "zelo"
    assert {"bm25"} <= {plugin["name"] for plugin in lexical["plugins"] if plugin["kind"] == "judge"}
    names = {(plugin["kind"], plugin["name"]) for row in rows for plugin in row["plugins"]}
    assert ("judge", "test-longer") in names and ("sampler", "cycles") in names


def test_an_estimate_a_trial_and_gold_are_operations_too(owner: Any, project: Project) -> None:
    api, base = Api(owner), f"/projects/{project.slug}"
    order = {"judges": [{"plugin": "test-longer"}], "pair_budget": 3}
    estimate = api.post(f"{base}/runs/estimate", order).json()
    assert (estimate["queries"], estimate["pairs"], estimate["calls"]) == (2, 3, 3)
    assert len(estimate["judges"]) == 1 and not project.runs.exists()
    for judge in ({"plugin": "none"}, {"plugin": "test-longer", "options": {"number": "x"}}):
        assert api.post(f"{base}/runs/estimate", {"judges": [judge]}).status_code == 422
    bad = {"plugin": "openai-http", "options": {"endpoint": "x", "model": "m", "votes": "x"}}
    refused = api.post(f"{base}/runs/estimate", {"judges": [bad]}).json()
    assert refused["detail"].startswith("votes: ") and "pydantic" not in refused["detail"]
    assert refused["errors"][0]["location"] == ["votes"]
    assert api.post(f"{base}/trials", {"plugin": "test-longer"}).status_code == 201
    assert [each["id"] for each in api.get(f"{base}/trials").json()] == [JudgeTrial.objects.get().pk]
    pair = make_pair(project.queries.order_by("id")[0])
    path = f"{base}/pairs/{pair.pk}/gold"
    assert send(api, "PUT", path, {"answer": "right_clearly"}).json()["preference"] == 0.05
    assert send(api, "DELETE", path).status_code == 204 and not GoldAnswer.objects.exists()
    assert send(api, "DELETE", path).status_code == 404
    assert send(api, "PUT", path, {"answer": "neither"}).status_code == 422


def test_older_lists_have_pages_and_filters(owner: Any, project: Project) -> None:
    api, base = Api(owner), f"/projects/{project.slug}"
    runs = [make_run(project, judges=make_judges(project)) for _ in range(3)]
    cancel_run(runs[0])
    first = api.get(f"{base}/runs?limit=2")
    assert [each["run_id"] for each in first.json()] == [runs[2].pk, runs[1].pk]
    following = first["Link"].partition("<")[2].partition(">")[0].partition("/api/v1")[2]
    last = api.get(following)
    assert [each["run_id"] for each in last.json()] == [runs[0].pk] and "Link" not in last
    assert [each["run_id"] for each in api.get(f"{base}/runs?state=cancelled").json()] == [runs[0].pk]
    assert [each["action"] for each in api.get(f"{base}/audit?action=run.cancelled").json()] == ["run.cancelled"]
    assert [each["slug"] for each in api.get(f"/projects?name={project.name}").json()] == [project.slug]
    for path in ("trainings", "snapshots", "rerankers", "batches", "failed-calls", "probes", "teachings"):
        assert api.get(f"{base}/{path}?limit=1").json() == [], path
        assert api.get(f"{base}/{path}?cursor=x").status_code == 422, path
    assert api.get(f"{base}/runs?state=happy").status_code == 422
