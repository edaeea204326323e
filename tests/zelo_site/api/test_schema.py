"""Every operation keeps its OpenAPI document: requests drawn from it, and wrong ones, against a project that has
something of everything.

schemathesis draws the requests; each is rolled back, so that all operations meet the same world. Answers conform to their
schema, wrong input is a 4xx problem, and nothing is a 500.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jsonschema_rs
import pytest
import schemathesis
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import transaction
from django.test import Client
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pytest_django import Settings

from labeling.access.api_keys import make_token
from tests.factories.world.changes import a_superuser
from tests.factories.world.site import World, make_world
from zelo_site.api.root import api

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]

DOCUMENT = json.loads(json.dumps(api.get_openapi_schema()))
# They read in a snapshot of their own, which no other transaction may surround.
OUTSIDE_A_TRANSACTION = {
    ("GET", "/api/v1/projects/{slug}/agreement"),
    ("GET", "/api/v1/projects/{slug}/report"),
    ("GET", "/api/v1/projects/{slug}/archive"),
    ("POST", "/api/v1/projects/{slug}/snapshots"),
}
PROBLEM = {"$ref": "#/components/schemas/Problem"}


class Undone(Exception):
    """Ends the transaction of a request."""


@pytest.fixture
def world(settings: Settings, tmp_path: Path) -> World:
    settings.STORAGE_URL = f"file://{tmp_path / 'stored'}"
    settings.ZELO_WEBHOOK_HOSTS = ["hooks.example.org"]
    world = make_world()
    a_superuser(world)
    return world


@pytest.fixture
def headers(world: World) -> dict[str, str]:
    key = make_token(world.users["owner"], name="all", scopes=("read", "write", "admin"))
    return {"HTTP_AUTHORIZATION": f"Bearer {key}"}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def conforms(value: Any, schema: dict[str, Any]) -> None:
    """Raise jsonschema_rs.ValidationError unless the value is as the document says."""
    _validator(json.dumps(schema)).validate(value)


@cache
def _validator(schema: str) -> Any:
    return jsonschema_rs.validator_for({**json.loads(schema), "components": DOCUMENT["components"]})


def ask(method: str, path: str, address: str, headers: dict[str, str], body: Any, kind: str | None) -> Any:
    """The answer of one request, whose changes are rolled back."""
    client = Client(raise_request_exception=False)

    def send() -> Any:
        if kind == "multipart/form-data" and isinstance(body, dict):
            fields = {name: _part(value) for name, value in body.items()}
            answer = client.post(address, fields, **headers)
        else:
            sent = body if isinstance(body, bytes) else b"" if body is None and kind is None else json.dumps(body)
            answer = client.generic(method, address, sent, kind or "application/json", **headers)
        if answer.streaming:
            b"".join(answer.streaming_content)
        return answer

    if (method, path) in OUTSIDE_A_TRANSACTION:
        return send()
    try:
        with transaction.atomic():
            answer = send()
            raise Undone
    except Undone:
        return answer


def _part(value: Any) -> Any:
    if isinstance(value, bytes):
        return SimpleUploadedFile("upload", value)
    return value if isinstance(value, str) else json.dumps(value)


def check(method: str, path: str, operation: dict[str, Any], answer: Any) -> None:
    """No 500, a status and type that the document has, and a body as its schema says."""
    shown = f"{method} {answer.wsgi_request.get_full_path()} answers {answer.status_code}"
    assert answer.status_code < 500 or answer.status_code == 503, f"{shown}: {answer.content[:300]!r}"
    if answer.status_code >= 400:
        assert answer["Content-Type"] == "application/problem+json", shown
        problem = json.loads(answer.content)
        conforms(problem, PROBLEM)
        assert problem["status"] == answer.status_code and problem["detail"], shown
        return
    stated = operation["responses"].get(str(answer.status_code))
    assert stated is not None, f"{shown}, which is not in the document"
    content = stated.get("content", {}).get("application/json")
    if content and answer["Content-Type"].startswith("application/json"):
        try:
            conforms(json.loads(answer.content), content["schema"])
        except jsonschema_rs.ValidationError as error:
            raise AssertionError(f"{shown}: {error}") from None
    if answer.status_code == 204:
        assert answer.content == b"", shown


def probe_all(world: World, headers: dict[str, str], *, examples: int) -> None:
    """Draw requests of every operation from the document; most name rows that there are."""
    for result in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations():
        probe(result.ok(), world, headers, examples=examples)


def probe(drawn: Any, world: World, headers: dict[str, str], *, examples: int) -> None:
    """Draw requests of one operation, and check their answers."""
    operation = DOCUMENT["paths"][drawn.path][drawn.method.lower()]

    @given(case=drawn.as_strategy(), known=st.sampled_from([True, True, True, False]))
    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def one(case: Any, known: bool) -> None:
        if known:
            for name in set(case.path_parameters or {}) & world.known.keys():
                case.path_parameters[name] = world.known[name]
        address = case.formatted_path + (f"?{urlencode(case.query, doseq=True)}" if case.query else "")
        body = None if isinstance(case.body, type(schemathesis.core.NOT_SET)) else case.body
        answer = ask(case.method, drawn.path, address, headers, body, case.media_type)
        check(case.method, drawn.path, operation, answer)

    one()


@pytest.mark.filterwarnings("ignore")
def test_requests_of_the_document_get_answers_of_the_document(world: World, headers: dict[str, str]) -> None:
    probe_all(world, headers, examples=2)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_many_requests_of_the_document_get_answers_of_the_document(world: World, headers: dict[str, str]) -> None:
    probe_all(world, headers, examples=60)


def test_wrong_input_is_a_problem_that_names_it(world: World, headers: dict[str, str]) -> None:
    """Bodies of another shape, without a required field or with one of another type; bad parameters and ids."""
    taken: list[str] = []
    for method, path, operation in operations():
        address = path.format(**world.known)
        for name, sent in wrong_bodies(operation):
            answer = ask(method, path, address, headers, sent, "application/json")
            check(method, path, operation, answer)
            if answer.status_code not in (400, 422):
                taken.append(f"{method} {path} takes {name}: {answer.status_code}")
        for parameter in operation.get("parameters", []):
            where, name, schema = parameter["in"], parameter["name"], parameter["schema"]
            if schema.get("type") != "integer":
                continue
            for value in ("x", str(2**70), "-1" if "minimum" in schema else "x"):
                changed = (
                    path.format(**{**world.known, name: value}) if where == "path" else f"{address}?{name}={value}"
                )
                answer = ask(method, path, changed, headers, None, None)
                check(method, path, operation, answer)
                if not 400 <= answer.status_code < 500:
                    taken.append(f"{method} {changed}: {answer.status_code}")
    assert taken == []


def wrong_bodies(operation: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """A name and a body for each way in which a JSON body can be wrong."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return
    yield "cut JSON", b'{"name": '
    yield "bytes that are no UTF-8", b"\xff\xfe{}"
    yield "a list", []
    yield "a number", 5
    schema = DOCUMENT["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
    good = dict(content["example"])
    for name in schema.get("required", []):
        yield f"no {name}", {key: value for key, value in good.items() if key != name}
    for name, field in schema["properties"].items():
        if field.get("type") in ("string", "integer", "number", "boolean", "array"):
            yield f"{name} as an object", {**good, name: {"x": 1}}
        if field.get("type") == "integer" and "maximum" in field | {"maximum": field.get("exclusiveMaximum")}:
            yield f"{name} as infinity", {**good, name: math.inf}


@pytest.mark.parametrize("text", [b'{"name": "\\ud800"}', b'{"name": "\\u0000"}', b'{"name": NaN}'])
def test_text_that_cannot_be_stored_is_refused(text: bytes, world: World, headers: dict[str, str]) -> None:
    answer = ask("POST", "", "/api/v1/projects", headers, text, "application/json")
    assert answer.status_code in (400, 422) and answer["Content-Type"] == "application/problem+json"
