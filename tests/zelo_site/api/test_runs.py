"""REST: what a stranger, a viewer, an owner and a key may; bad input is named, never a crash."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from labeling.models import Project, Role
from tests.factories.api import Api
from tests.factories.rows import make_judges, make_member, make_project, make_run, make_user
from workers.models import Run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]

RUN = {"judges": [{"plugin": "test-longer"}], "seed": 1}


@pytest.fixture
def owner() -> Any:
    return make_user()


@pytest.fixture
def project(owner: Any) -> Project:
    return make_project(owner=owner, queries=2)


def paths(project: Project) -> list[str]:
    run = make_run(project, judges=make_judges(project))
    query = project.queries.first()
    assert query is not None
    slug = f"/projects/{project.slug}"
    return [
        slug, f"{slug}/queries", f"{slug}/runs", f"{slug}/exports/trec-run", f"{slug}/judgments",
        f"/queries/{query.pk}/scores", f"/runs/{run.pk}",
    ]  # fmt: skip


def test_member_reads_everything_of_the_project(project: Project) -> None:
    api = Api(make_member(project))
    found = {path: api.get(path).status_code for path in paths(project)}
    assert found == dict.fromkeys(found, 200)


def test_objects_of_other_projects_are_not_found(project: Project) -> None:
    api = Api(make_user())
    found = {path: api.get(path).status_code for path in paths(project)}
    assert found == dict.fromkeys(found, 404)
    run = Run.objects.get()
    for path in (f"/runs/{run.pk}/pause", f"/runs/{run.pk}/failures/retry", f"/projects/{project.slug}/runs"):
        assert api.post(path, RUN).status_code == 404
    assert api.get("/projects").json() == []


def test_without_a_key_or_a_session_nothing_is_shown(project: Project) -> None:
    for headers in ({}, {"Authorization": "Bearer zelo_wrong"}):
        answers = [Client().get(f"/api/v1{path}", headers=headers).status_code for path in paths(project)]
        assert set(answers) == {401}


def test_key_does_no_more_than_its_scopes(project: Project, owner: Any) -> None:
    reader, writer = Api(owner, "read"), Api(owner, "write")
    path = f"/projects/{project.slug}/runs"
    assert reader.get(path).status_code == 200
    assert reader.post(path, RUN).status_code == 403
    assert writer.get(path).status_code == 403
    assert writer.post(path, RUN).status_code == 201


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ANNOTATOR])
def test_members_who_only_look_start_nothing(project: Project, role: str) -> None:
    api = Api(make_member(project, role))
    run = make_run(project)
    assert api.post(f"/projects/{project.slug}/runs", RUN).status_code == 403
    assert api.post(f"/runs/{run.pk}/cancel").status_code == (
        403 if role == Role.VIEWER else 404
    )  # who judges is blind


def test_session_needs_a_csrf_token_and_a_key_does_not(project: Project, owner: Any) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(owner)
    path = f"/api/v1/projects/{project.slug}/runs"
    assert browser.get(path).status_code == 200
    assert browser.post(path, json.dumps(RUN), content_type="application/json").status_code == 403
    assert Api(owner).post(f"/projects/{project.slug}/runs", RUN).status_code == 201


def test_run_is_ordered_watched_and_moved(project: Project, owner: Any) -> None:
    api = Api(owner)
    ordered = api.post(f"/projects/{project.slug}/runs", RUN).json()
    assert (ordered["state"], ordered["planned"]) == ("planned", 0)
    states = [
        api.post(f"/runs/{ordered['run_id']}/{action}").json()["state"] for action in ("pause", "resume", "cancel")
    ]
    assert states == ["paused", "judging", "cancelled"]
    assert api.post(f"/runs/{ordered['run_id']}/resume").status_code == 409
    assert api.get(f"/runs/{ordered['run_id']}").json()["state"] == "cancelled"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"judges": []},
        {"judges": [{"plugin": "nonesuch"}]},
        {"judges": [{"plugin": "nul\x00"}]},
        {"judges": [{"plugin": "test-longer", "options": {"unknown": 1}}]},
        {"judges": [{"plugin": "test-longer", "options": {"number": "many"}}]},
        {"judges": [{"plugin": "test-longer", "name": "nul\x00"}]},
        {"judges": [{"plugin": "test-longer", "name": "\ud800"}]},
        {**RUN, "sampler": "nonesuch"},
        {**RUN, "sampler_options": {"degree": 3}},
        {**RUN, "allocation": "some"},
        {**RUN, "pair_budget": 0},
        {**RUN, "pair_budget": 2**63},
        {**RUN, "query_ids": [2**63]},
        {**RUN, "query_ids": []},
        {**RUN, "seed": -1},
        {**RUN, "seed": 2**63},
    ],
)
def test_order_that_makes_no_sense_is_unprocessable(project: Project, owner: Any, body: dict[str, Any]) -> None:
    answer = Api(owner).post(f"/projects/{project.slug}/runs", body)
    assert answer.status_code == 422, answer.content
    assert answer.json()["detail"]
    assert not Run.objects.exists()


@pytest.mark.parametrize("body", [{}, {"name": ""}, {"name": "\x00"}, {"name": "\ud800"}, {"name": "x" * 201}])
@pytest.mark.parametrize("instruction", ["", "nul\x00", "\ud800"])
def test_project_that_cannot_be_stored_is_unprocessable(
    project: Project, owner: Any, body: dict, instruction: str
) -> None:
    assert Api(owner).post("/projects", {**body, "instruction": instruction}).status_code == 422


@pytest.mark.parametrize("instruction", ["nul\x00", "\ud800"])
def test_instruction_that_cannot_be_stored_is_unprocessable(project: Project, owner: Any, instruction: str) -> None:
    assert Api(owner).post("/projects", {"name": "Good", "instruction": instruction}).status_code == 422


@pytest.mark.parametrize(
    "path", ["/projects/%00", "/projects/a%00b/queries", f"/queries/{2**63}/scores", f"/runs/{10**40}", "/runs/-1"]
)
def test_addresses_of_nothing_are_not_found(owner: Any, path: str) -> None:
    assert Api(owner).get(path).status_code == 404


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "cursor=x"])
def test_bad_parameters_are_unprocessable(project: Project, owner: Any, query: str) -> None:
    assert Api(owner).get(f"/projects/{project.slug}/queries?{query}").status_code == 422


def test_the_schema_is_served_and_names_every_path(owner: Any) -> None:
    schema = Api(owner).get("/openapi.json").json()
    assert {"/api/v1/projects", "/api/v1/projects/{slug}/runs", "/api/v1/queries/{query_id}/scores"} <= set(
        schema["paths"]
    )


def test_person_who_was_only_invited_starts_no_project_over_rest(project: Project) -> None:
    before = Project.objects.count()
    assert Api(make_member(project)).post("/projects", {"name": "Mine"}).status_code == 403
    assert Api(make_user()).post("/projects", {"name": "Mine"}).status_code == 403
    assert Project.objects.count() == before


@pytest.mark.parametrize("who", ["an owner", "staff"])
def test_owner_and_staff_start_a_project_over_rest(project: Project, owner: Any, who: str) -> None:
    user = owner if who == "an owner" else make_user(is_staff=True)
    assert Api(user).post("/projects", {"name": "Mine"}).status_code == 201


def test_owner_changes_a_project_over_rest(project: Project, owner: Any) -> None:
    body = {"instruction": "Prefer guidelines.", "rater": "bradley-terry", "rater_options": {"prior_precision": 0.5}}
    answer = Api(owner).patch(f"/projects/{project.slug}", body)
    assert answer.status_code == 200
    project.refresh_from_db()
    assert (project.instruction, project.rater) == ("Prefer guidelines.", "bradley-terry")
    assert project.rater_options["prior_precision"] == 0.5
    assert Api(make_member(project)).patch(f"/projects/{project.slug}", {"name": "Mine"}).status_code == 403
    assert Api(make_user()).patch(f"/projects/{project.slug}", {"name": "Mine"}).status_code == 404


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"rater": "no-such"}, "no-such"),
        ({"rater_options": {"prior_precision": -1}}, "prior_precision"),
        ({"rater_options": {"colour": "red"}}, "colour"),
        ({"instruction": "nul\x00"}, "NUL"),
        ({"name": " "}, "name"),
    ],
)
def test_change_that_cannot_be_made_names_the_reason(project: Project, owner: Any, body: dict, named: str) -> None:
    answer = Api(owner).patch(f"/projects/{project.slug}", body)
    assert answer.status_code == 422
    assert named in answer.content.decode()
    assert Project.objects.get(pk=project.pk).rater == "thurstone"


def test_dead_questions_are_asked_again_by_a_reason_there_is(project: Project, owner: Any) -> None:
    run = make_run(project)
    assert Api(owner).post(f"/runs/{run.pk}/failures/retry?reason=timeout").status_code == 200
    for reason in ("%00", "nothing"):
        assert Api(owner).post(f"/runs/{run.pk}/failures/retry?reason={reason}").status_code == 422
