"""Over real HTTP: users' own keys, limits of a key, and deadlines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes.serve import rerank_app, served
from trainer.serving.access.callers import ARTEFACT_HEADER, DEADLINE_HEADER, KEY_HEADER
from trainer.serving.access.limits import KeyLimits
from trainer.serving.model_cache import Artefact
from trainer.serving.protocols import RerankRefused

BODY = {"query": "goldfish", "documents": ["a pond with goldfish", "bread from the oven"]}


@dataclass(frozen=True)
class Key:
    pk: int


@dataclass(frozen=True)
class Admitted:
    artefact: Artefact
    key_id: int


class OneUser:
    """A gate that knows one key, which may use one model."""

    def __init__(self, artefact: Artefact) -> None:
        self._artefact = artefact

    def key_of(self, authorization: str) -> Any:
        if authorization != "Bearer zelo_mine":
            raise RerankRefused(401, "the request has no valid key")
        return Key(7)

    def admit(self, key: Any, path: str, name: str) -> Admitted:
        if name not in ("", "fish", "walk/fish"):
            raise RerankRefused(404, f"no model has the name {name!r}")
        return Admitted(self._artefact, key.pk)

    def models_of(self, key: Any) -> list[dict[str, Any]]:
        return [{"id": "fish"}]


@pytest.fixture(scope="module")
def address(published_encoder: Path) -> Iterator[str]:
    artefact = Artefact(name="fish", location=str(published_encoder))
    app = rerank_app(
        fetch=lambda each: Path(each.location),
        service_key="s" * 64,
        gate=OneUser(artefact),
        limits=KeyLimits(tokens_per_minute=60),
    )
    with served(app) as url:
        yield url


def test_users_rank_with_their_own_keys_and_cannot_name_a_location(address: str) -> None:
    mine = {"authorization": "Bearer zelo_mine"}
    elsewhere = {ARTEFACT_HEADER: json.dumps({"name": "x", "location": "/nowhere"})}
    answer = httpx.post(f"{address}/v1/rerank", json=BODY, headers=mine | elsewhere, timeout=60)
    assert answer.status_code == 200 and answer.json()["model"] == "fish"
    assert httpx.get(f"{address}/v1/models", headers=mine).json()["data"] == [{"id": "fish"}]
    assert httpx.get(f"{address}/info?model=fish", headers=mine).json()["form"] in ("fp32", "packed")
    assert httpx.get(f"{address}/info?model=other", headers=mine).status_code == 404
    assert httpx.post(f"{address}/v1/rerank", json=BODY | {"model": "other"}, headers=mine).status_code == 404
    below = httpx.post(f"{address}/models/walk/fish/rerank", json=BODY | {"model": "m"}, headers=mine)
    assert below.status_code == 200 and below.json()["model"] == "fish", "as at the web server"
    assert httpx.post(f"{address}/models/walk/other/rerank", json=BODY, headers=mine).status_code == 404
    assert httpx.get(f"{address}/models/walk/fish/info", headers=mine).json()["model_id"] == "fish"
    assert httpx.get(f"{address}/models", headers=mine).status_code == 200
    assert httpx.get(f"{address}/state", headers=mine).status_code == 404, "for the web server only"
    assert httpx.post(f"{address}/v1/rerank", json=BODY, headers={"authorization": "Bearer no"}).status_code == 401


def test_a_key_that_has_used_its_tokens_is_told_when_to_retry(address: str, published_encoder: Path) -> None:
    artefact = json.dumps({"name": "fish", "location": str(published_encoder)})
    headers = {"authorization": f"Bearer {'s' * 64}", ARTEFACT_HEADER: artefact, KEY_HEADER: "8"}
    many = BODY | {"documents": BODY["documents"] * 20}
    assert httpx.post(f"{address}/v1/rerank", json=many, headers=headers, timeout=60).status_code == 200
    refused = httpx.post(f"{address}/v1/rerank", json=many, headers=headers)
    assert refused.status_code == 429 and "a minute" in refused.json()["message"]
    assert 1 <= int(refused.headers["retry-after"]) <= 3600
    other = headers | {KEY_HEADER: "9"}
    assert httpx.post(f"{address}/v1/rerank", json=many, headers=other).status_code == 200


def test_a_deadline_travels_with_the_request(address: str, published_encoder: Path) -> None:
    artefact = json.dumps({"name": "fish", "location": str(published_encoder)})
    headers = {"authorization": f"Bearer {'s' * 64}", ARTEFACT_HEADER: artefact}
    long = BODY | {"documents": ["water " * 100] * 400}
    late = httpx.post(f"{address}/v1/rerank", json=long, headers=headers | {DEADLINE_HEADER: "0.001"}, timeout=60)
    assert late.status_code == 504
    wrong = httpx.post(f"{address}/v1/rerank", json=BODY, headers=headers | {DEADLINE_HEADER: "soon"})
    assert wrong.status_code == 422 and "expected seconds" in wrong.json()["message"]
    assert httpx.post(f"{address}/v1/rerank", json=BODY, headers=headers | {DEADLINE_HEADER: "30"}).status_code == 200
