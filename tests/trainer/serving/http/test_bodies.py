"""Over real HTTP: reading one large request holds up no other, and ends when its time is over."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.processes.serve import rerank_app, served
from trainer.serving.access.callers import ARTEFACT_HEADER, DEADLINE_HEADER, KEY_HEADER
from trainer.serving.access.limits import KeyLimits
from trainer.serving.loading import load_reranker
from trainer.serving.model_cache import Artefact

KEY = "s" * 64


@pytest.fixture(scope="module")
def address(published_encoder: Path) -> Iterator[str]:
    artefact = Artefact(name="fish", location=str(published_encoder))
    limits = KeyLimits(tokens_per_minute=2000)
    with served(
        rerank_app(fetch=lambda each: Path(each.location), default=artefact, limits=limits, service_key=KEY)
    ) as url:
        yield url


@pytest.fixture(scope="module")
def headers(published_encoder: Path) -> dict[str, str]:
    artefact = json.dumps({"name": "fish", "location": str(published_encoder)})
    return {"authorization": f"Bearer {KEY}", ARTEFACT_HEADER: artefact}


@pytest.mark.parametrize(
    "body",
    [
        {"query": "q", "documents": [{"text": "a", "more": list(range(3000))} for _ in range(600)]},
        {
            "query": "q",
            "documents": ["gill water " * 200] * 4000,
            "max_tokens_per_doc": 2,
            "instruction": "find the fish",
        },
    ],
    ids=["numbers", "texts"],
)
def test_a_large_request_holds_up_no_other(address: str, headers: dict[str, str], body: dict[str, object]) -> None:
    small = {"query": "q", "documents": ["a"], "instruction": "find the fish"}
    assert httpx.post(f"{address}/v1/rerank", json=small, headers=headers, timeout=60).status_code == 200
    content, waits, over = json.dumps(body).encode(), [], threading.Event()

    def look() -> None:
        with httpx.Client(base_url=address, headers=headers, timeout=60) as client:
            while not over.is_set():
                began = time.monotonic()
                assert client.get("/healthz").status_code == 200
                waits.append(time.monotonic() - began)

    looking = threading.Thread(target=look)
    looking.start()
    began = time.monotonic()
    httpx.post(f"{address}/v1/rerank", content=content, headers=headers, timeout=120)
    seconds = time.monotonic() - began
    over.set()
    looking.join()
    assert max(waits) < seconds / 2, f"of {seconds:.2f} s another request waited {max(waits):.2f} s"


def test_reading_ends_when_the_request_s_time_is_over(
    address: str, headers: dict[str, str], published_encoder: Path
) -> None:
    texts = ["gill water " * 100] * 9000
    answer = httpx.post(
        f"{address}/v1/rerank",
        json={"query": "q", "documents": texts},
        headers=headers | {DEADLINE_HEADER: "0.05"},
        timeout=60,
    )
    assert answer.status_code == 504 and "the 0.05 s that the request allows were over" in answer.json()["message"]

    class Over(Exception):
        pass

    def stop() -> None:
        looks.append(time.monotonic())
        if len(looks) > 1:
            raise Over

    looks: list[float] = []
    with pytest.raises(Over):
        load_reranker(published_encoder).encode("q", texts, go_on=stop)
    assert len(looks) == 2, "of 36 parts one was read"


def test_a_refused_request_uses_no_tokens_of_its_key(address: str, headers: dict[str, str]) -> None:
    mine = headers | {KEY_HEADER: "5"}
    body = {"query": "q", "documents": ["gill water " * 10] * 60}
    for _ in range(4):
        late = httpx.post(f"{address}/v1/rerank", json=body, headers=mine | {DEADLINE_HEADER: "0.0001"}, timeout=60)
        assert late.status_code == 504
    assert httpx.post(f"{address}/v1/rerank", json=body, headers=mine, timeout=60).status_code == 200
    again = httpx.post(f"{address}/v1/rerank", json=body, headers=mine, timeout=60)
    assert again.status_code == 429 and "a minute" in again.json()["message"]
