"""REST of endpoints: superusers add, change and test them; no reply holds a secret."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.test import Client

from labeling.access.api_keys import make_token
from tests.factories.pages import make_user
from workers.endpoints.registry import get_endpoint

pytestmark = pytest.mark.django_db
KEY = "sk-very-secret-0123456789"


@pytest.fixture
def send() -> Any:
    """A program with a key of a superuser."""
    token = make_token(make_user("root", is_superuser=True), name="tests", scopes=["read", "write", "admin"])

    def ask(method: str, path: str, body: Any = None) -> tuple[int, Any]:
        answer = Client().generic(
            method, f"/api/v1{path}", json.dumps(body), "application/json", HTTP_AUTHORIZATION=f"Bearer {token}"
        )
        assert KEY not in answer.content.decode()
        return answer.status_code, answer.json()

    return ask


def test_an_endpoint_lives_over_rest(send: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZELO_ENDPOINTS", json.dumps([{"name": "given", "base_url": "http://127.0.0.1:9/v1"}]))
    new = {"name": "mine", "base_url": "http://127.0.0.1:9/v1", "key": KEY, "settings": {"headers": {"X-Org": "hush"}}}
    status, row = send("POST", "/endpoints", new)
    assert status == 201 and row["key_ending"] == "6789" and row["secret_names"] == {"headers": ["X-Org"]}
    assert "hush" not in json.dumps(row) and "headers" not in row["settings"]
    assert [(each["name"], each["origin"]) for each in send("GET", "/endpoints")[1]] == [
        ("given", "environment"),
        ("mine", "stored"),
    ]
    status, row = send("PATCH", "/endpoints/mine", {"settings": {"rpm": 60, "input_price": 0.5}})
    assert status == 200 and row["settings"]["rpm"] == 60 and row["has_key"]
    key = get_endpoint("mine").api_key()
    assert key is not None and key.get_secret_value() == KEY
    status, result = send("POST", "/endpoints/mine/test", {"model": "m"})
    assert status == 200 and not result["passed"] and result["chat"]["reason"] == "unavailable"
    assert "nothing listens at 127.0.0.1:9" in result["chat"]["message"]
    assert send("POST", "/endpoints/mine/retire")[1]["state"] == "retired"
    assert send("POST", "/endpoints/mine/restore")[1]["state"] == "unused"


def test_a_refusal_names_the_field(send: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZELO_ENDPOINTS", json.dumps([{"name": "given", "base_url": "http://127.0.0.1:9/v1"}]))
    send("POST", "/endpoints", {"name": "mine", "base_url": "http://127.0.0.1:9/v1", "key": KEY})
    for method, path, body, expected, said in (
        ("POST", "/endpoints", {"name": "x", "base_url": "ftp://x"}, 422, "base_url: "),
        ("POST", "/endpoints", {"name": "mine", "base_url": "http://x/v1"}, 422, "exists already"),
        (
            "POST",
            "/endpoints",
            {"name": "x", "base_url": "http://x", "settings": {"api_key_env": "K"}},
            422,
            "api_key_env",
        ),
        ("PATCH", "/endpoints/given", {"settings": {"rpm": 1}}, 422, "change it there"),
        ("PATCH", "/endpoints/none", {}, 404, "GET /api/v1/endpoints"),
        ("PATCH", "/endpoints/mine", {"base_url": "http://evil/v1"}, 422, "not sent to another host"),
        ("POST", "/endpoints/given/retire", None, 422, "defined by ZELO_ENDPOINTS"),
    ):
        status, answer = send(method, path, body)
        assert (status, said in answer["detail"]) == (expected, True), answer
    monkeypatch.setenv("ZELO_ENDPOINTS", "[{")
    assert send("GET", "/endpoints")[0] == 409
