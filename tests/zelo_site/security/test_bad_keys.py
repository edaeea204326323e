"""Guessing API keys: the address waits, and programs with valid keys behind the same address do not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from zelo_site.security import bad_keys
from zelo_site.security.bad_keys import MOST_BAD_KEYS, BadKeysMiddleware


def _view(request: HttpRequest) -> HttpResponse:
    request.has_valid_key = request.headers["Authorization"] == "Bearer good"
    return HttpResponse(status=200 if request.has_valid_key or request.path == "/sign-in/" else 401)


def _status(site: BadKeysMiddleware, key: str, address: str = "203.0.113.1") -> Any:
    return site(RequestFactory().get("/", HTTP_AUTHORIZATION=f"Bearer {key}", REMOTE_ADDR=address)).status_code


def test_guessing_address_waits_and_valid_keys_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    site = BadKeysMiddleware(_view)
    assert _status(site, "good") == 200
    assert [_status(site, f"bad-{n}") for n in range(MOST_BAD_KEYS)] == [401] * MOST_BAD_KEYS
    assert _status(site, "bad") == 429
    assert _status(site, "good") == 200
    assert _status(site, "bad", "203.0.113.2") == 401
    page = RequestFactory().get("/sign-in/", HTTP_AUTHORIZATION="Bearer prepared", REMOTE_ADDR="203.0.113.3")
    assert site(page).status_code == 200  # a page without keys proves no key
    refused = site(
        RequestFactory().get("/api/v1/projects", HTTP_AUTHORIZATION="Bearer prepared", REMOTE_ADDR="203.0.113.1")
    )
    assert (
        refused.status_code == 429 and refused["Content-Type"] == "application/problem+json" and refused["Retry-After"]
    )
    ranking = RequestFactory().post("/v1/rerank", HTTP_AUTHORIZATION="Bearer other", REMOTE_ADDR="203.0.113.1")
    assert "bad keys" in json.loads(site(ranking).content)["error"]["message"], "where rerank clients look for it"
    monkeypatch.setattr(bad_keys, "WINDOW_S", 0.0)
    assert _status(site, "bad") == 401


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bad_keys, "MOST_ENTRIES", 3)
    site = BadKeysMiddleware(_view)
    for number in range(10):
        _status(site, "bad", f"203.0.113.{number}")
    assert len(site._failures) == 3
