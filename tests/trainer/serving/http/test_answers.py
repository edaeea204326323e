"""Over real HTTP: refusals have the headers that HTTP asks for, and warnings arrive in every dialect."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes.serve import serving

BODY = {"query": "goldfish", "documents": ["a pond", "bread"]}
LONG = "water " * 3000


@pytest.fixture(scope="module")
def address(published_encoder: Path) -> Iterator[str]:
    with serving(published_encoder) as url:
        yield url


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/v1/rerank", "POST"), ("OPTIONS", "/embed", "POST"), ("POST", "/info", "GET, HEAD")],
)
def test_a_wrong_method_is_told_which_one_to_use(address: str, method: str, path: str, allowed: str) -> None:
    answer = httpx.request(method, f"{address}{path}")
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_a_missing_key_is_told_which_kind_to_send(published_encoder: Path) -> None:
    with serving(published_encoder, service_key="secret") as url:
        answer = httpx.post(f"{url}/v1/rerank", json=BODY)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_a_compressed_body_is_refused_by_name(address: str) -> None:
    content = gzip.compress(json.dumps(BODY).encode())
    answer = httpx.post(f"{address}/v1/rerank", content=content, headers={"content-encoding": "gzip"})
    assert answer.status_code == 415 and "Content-Encoding gzip" in answer.json()["message"]
    assert answer.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"query=a", b"[" * 100, json.dumps(BODY).encode("utf-16"), b"null", b"[1]"]
)
def test_a_body_that_is_no_object_is_told_so_without_advice_for_files(address: str, content: bytes) -> None:
    answer = httpx.post(f"{address}/v1/rerank", content=content)
    assert answer.status_code == 400 and "expected one JSON object" in answer.json()["message"]
    assert "line" not in answer.json()["message"] and "metadata" not in answer.json()["message"]


def test_truncated_texts_are_told_where_a_response_has_no_meta(address: str) -> None:
    tei = httpx.post(
        f"{address}/rerank", json={"query": "goldfish", "texts": [LONG, "bread"], "priority": 1}, timeout=30
    )
    assert tei.headers["x-zelo-warnings"].startswith("priority is not used; 1 of 2 texts exceeds")
    plain = httpx.post(f"{address}/rerank", json={"query": "goldfish", "texts": ["a pond"]}, timeout=30)
    assert "x-zelo-warnings" not in plain.headers


def test_the_header_of_warnings_stays_short(address: str) -> None:
    body: dict[str, Any] = {"query": "goldfish", "texts": ["a pond"]} | {
        f"field{number}\r\n": 1 for number in range(10_000)
    }
    answer = httpx.post(f"{address}/rerank", json=body, timeout=60)
    assert answer.status_code == 200
    assert "field0" in answer.headers["x-zelo-warnings"] and answer.headers["x-zelo-warnings"].endswith(" more")
    blank = httpx.post(f"{address}/rerank", json={"query": "goldfish", "texts": ["a pond"], " a ": 1}, timeout=60)
    assert blank.headers["x-zelo-warnings"] == "a  is not used"


@pytest.mark.parametrize("path", ["/info", "/health", "/embed"])
def test_refusals_at_tei_s_addresses_have_tei_s_shape(address: str, path: str) -> None:
    answer = httpx.request("DELETE", f"{address}{path}").json()
    assert isinstance(answer["error"], str) and answer["error_type"] == "Validation"
