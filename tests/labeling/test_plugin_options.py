"""Options of plugins hold only what can be stored, whichever way they come."""

from __future__ import annotations

import json
from typing import Any

import pydantic
import pytest
from django.test import Client

from labeling.models import Annotator
from labeling.plugins import get_plugin
from tests.factories.rows import make_project, make_user
from workers.models import Run

REASONED = {"endpoint": "e", "model": "m"}
BAD = [
    ({"model": "a\x00b"}, "NUL"),
    ({"model": "half \ud800"}, "surrogate"),
    ({"extra_body": {"stop": "a\x00b"}}, "NUL"),
    ({"extra_body": {"stop": [{"half": "\udfff"}]}}, "surrogate"),
    ({"extra_body": {"x\x00": 1}}, "NUL"),
    ({"extra_body": {"stop": float("nan")}}, "finite number"),
    ({"extra_body": {"stop": float("inf")}}, "finite number"),
    ({"extra_body": {"stop": 10**30}}, "64 bits"),
    ({"seed": 10**30}, "64 bits"),
]


def nested(levels: int) -> dict[str, Any]:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return {"extra_body": {"stop": value}}


@pytest.mark.parametrize(("options", "said"), BAD)
def test_options_that_cannot_be_stored_are_refused_with_the_field(options: dict[str, Any], said: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=said) as caught:
        get_plugin("judge", "openai-http").from_dict(REASONED | options)
    assert caught.value.errors()[0]["loc"] == (next(iter(options)),)


def test_deep_nesting_is_refused_and_some_is_not() -> None:
    judge = get_plugin("judge", "openai-http")
    with pytest.raises(pydantic.ValidationError, match="levels deep"):
        judge.from_dict(REASONED | nested(5000))
    judge.from_dict(REASONED | nested(10))


@pytest.mark.django_db
@pytest.mark.parametrize("options", [REASONED | bad for bad, _ in BAD] + [REASONED | nested(200), {"k\ud800": 1}])
def test_rest_answers_422_and_stores_nothing(client: Client, options: dict[str, Any]) -> None:
    project = make_project(queries=1)
    client.force_login(make_user(is_superuser=True))
    body = json.dumps({"judges": [{"plugin": "openai-http", "options": options}]})
    answer = client.post(f"/api/v1/projects/{project.slug}/runs", body, content_type="application/json")
    assert answer.status_code == 422, answer.content
    assert not Run.objects.exists() and not Annotator.objects.exists()


@pytest.mark.django_db
def test_rest_refuses_brackets_without_end(client: Client) -> None:
    project = make_project()
    client.force_login(make_user(is_superuser=True))
    body = '{"judges": [{"plugin": "openai-http", "options": {"extra_body": ' + "[" * 100_000
    answer = client.post(f"/api/v1/projects/{project.slug}/runs", body, content_type="application/json")
    assert answer.status_code == 422 and "nested" in answer.json()["detail"]
