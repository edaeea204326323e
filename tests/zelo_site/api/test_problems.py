"""Every error of the REST interface is a problem detail (RFC 9457), and the OpenAPI document has an example everywhere."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from tests.factories.api import Api
from tests.factories.rows import make_member, make_project, make_user

pytestmark = pytest.mark.django_db


def is_problem(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status
    assert answer["Content-Type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert set(found) == {"type", "title", "status", "detail", "instance", "errors"}
    assert found["status"] == status and found["instance"] == answer.wsgi_request.path and found["detail"]
    return found


def test_every_kind_of_error_is_a_problem(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = make_user()
    project = make_project(owner=owner, queries=1)
    api = Api(owner)
    is_problem(Client().get("/api/v1/projects"), 401)
    is_problem(Api(make_member(project)).patch(f"/projects/{project.slug}", {"name": "x"}), 403)
    is_problem(api.get("/projects/none"), 404)
    is_problem(api.get("/queries/0/scores"), 404)
    for path in ("/nothing/here", "/projects/", "/../v3/projects"):
        is_problem(Client().get(f"/api/v1{path}"), 404)
    refused = api.client.put("/api/v1/projects", headers=api.headers)
    is_problem(refused, 405)
    assert set(refused["Allow"].split(", ")) == {"GET", "POST"}
    found = is_problem(api.post("/projects", {"name": 5}), 422)
    assert found["errors"][0]["location"] == ["body", "body", "name"]
    broken = api.client.post("/api/v1/projects", "{", content_type="application/json", headers=api.headers)
    is_problem(broken, 400)
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 10
    is_problem(api.post("/projects", {"name": "longer than ten"}), 413)

    def fail(user: Any) -> bool:
        raise RuntimeError("a defect")

    monkeypatch.setattr("zelo_site.api.projects.may_create", fail)
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 1000
    assert "a defect" not in is_problem(api.post("/projects", {"name": "x"}), 500)["detail"]


def test_every_operation_has_examples_and_the_problem_response() -> None:
    paths = Api(make_user()).get("/openapi.json").json()["paths"]
    operations = [each for item in paths.values() for each in item.values()]
    assert len(operations) > 70
    for operation in operations:
        assert "application/problem+json" in operation["responses"]["default"]["content"]
        contents = [operation.get("requestBody", {}), *operation["responses"].values()]
        for content in contents:
            assert all("example" in kind for kind in content.get("content", {}).values()), operation["operationId"]
