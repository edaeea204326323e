"""The serving process over real HTTP: four dialects, clear refusals, and the client package of Cohere."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sentence_transformers import CrossEncoder

from tests.processes.serve import rerank_app, served, serving
from trainer.evaluation.external.rerankers import OutsideEndpoint, OutsideReranker
from trainer.serving.access.callers import ARTEFACT_HEADER
from trainer.serving.model_cache import Artefact
from trainer.serving.protocols import MOST_DOCUMENTS

DOCUMENTS = ["a pond with goldfish", "bread from the oven", "water", "carp and goldfish share one pond " * 20]


@pytest.fixture(scope="module")
def address(published: Path) -> Iterator[str]:
    with serving(published) as url:
        yield url


@pytest.fixture(scope="module")
def expected(published: Path) -> list[float]:
    model = CrossEncoder(str(published / "merged"))
    return model.predict([("goldfish", each) for each in DOCUMENTS], show_progress_bar=False).tolist()


def ask(address: str, path: str = "/v1/rerank", **body: Any) -> httpx.Response:
    return httpx.post(f"{address}{path}", json={"query": "goldfish", "documents": DOCUMENTS} | body, timeout=30)


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_the_answer_equals_predict_and_reads_as_cohere_jina_and_vllm(
    address: str, expected: list[float], path: str
) -> None:
    answer = ask(address, path, return_documents=True).json()
    assert {row["index"]: row["relevance_score"] for row in answer["results"]} == pytest.approx(
        dict(enumerate(expected)), abs=1e-4
    )
    scores = [row["relevance_score"] for row in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert all(row["document"]["text"] == DOCUMENTS[row["index"]] for row in answer["results"])
    assert answer["model"] == "tiny"
    assert answer["id"]
    assert answer["usage"]["total_tokens"] == answer["meta"]["tokens"]["input_tokens"] > 20
    assert answer["meta"]["api_version"]["version"] == "2"

    shorter = ask(address, path, top_n=2, return_documents=False, documents=[{"text": each} for each in DOCUMENTS])
    assert [row["index"] for row in shorter.json()["results"]] == [row["index"] for row in answer["results"][:2]]
    assert "document" not in shorter.json()["results"][0]


def test_tei_gets_a_bare_array(address: str, expected: list[float]) -> None:
    body = {"query": "goldfish", "texts": DOCUMENTS}
    rows = httpx.post(f"{address}/rerank", json=body).json()
    assert {row["index"]: row["score"] for row in rows} == pytest.approx(dict(enumerate(expected)), abs=1e-4)
    assert set(rows[0]) == {"index", "score"}
    raw = httpx.post(f"{address}/rerank", json=body | {"raw_scores": True, "return_text": True}).json()
    assert raw[0]["text"] == DOCUMENTS[raw[0]["index"]]
    assert [row["index"] for row in raw] == [row["index"] for row in rows]
    assert any(not 0 <= row["score"] <= 1 for row in raw) or raw != rows


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"query": None}, 422, "query is missing"),
        ({"query": 7}, 422, "query is the number 7"),
        ({"query": " "}, 422, "query is empty"),
        ({"documents": []}, 422, "documents is empty"),
        ({"documents": "text"}, 422, "documents is the text 'text'"),
        ({"documents": ["a", 3]}, 422, "documents[1] is the number 3"),
        ({"documents": [{"title": "a"}]}, 422, "documents[0]"),
        ({"documents": ["a"] * (MOST_DOCUMENTS + 1)}, 422, "at most 10,000"),
        ({"top_n": -1}, 422, "top_n is -1"),
        ({"top_n": "3"}, 422, "top_n is the text '3'"),
        ({"return_documents": "yes"}, 422, "return_documents"),
        ({"model": ["x"]}, 422, "model is a list"),
        ({"model": "other"}, 404, "expected 'tiny'"),
    ],
)
def test_wrong_requests_are_told_what_was_expected(address: str, body: dict[str, Any], status: int, said: str) -> None:
    reply = ask(address, **body)
    assert reply.status_code == status
    answer = reply.json()
    assert said in answer["message"]
    assert answer["detail"] == answer["error"]["message"] == answer["message"]


def test_refusals_keep_the_dialects_shape_and_bodies_are_bounded(address: str) -> None:
    tei = httpx.post(f"{address}/rerank", json={"query": "q", "texts": []})
    assert tei.status_code == 422
    assert tei.json()["error_type"] == "Validation" and "texts is empty" in tei.json()["error"]
    broken = httpx.post(f"{address}/v1/rerank", content=b'{"query": NaN')
    assert broken.status_code == 400
    twice = httpx.post(f"{address}/v1/rerank", content=b'{"query": "a", "query": "b"}').json()["message"]
    assert twice.startswith("the body cannot be read: the key 'query' occurs twice in one object")
    assert httpx.get(f"{address}/v1/rerank").status_code == 405
    assert httpx.post(f"{address}/v3/rerank", json={}).status_code == 404
    large = httpx.post(f"{address}/v1/rerank", content=b" " * (33 << 20))
    assert large.status_code == 413 and "fewer documents" in large.json()["message"]


def test_a_response_says_how_long_its_parts_took(address: str) -> None:
    parts = dict(each.split(";dur=") for each in ask(address).headers["server-timing"].split(", "))
    assert list(parts) == ["tokens", "model", "ranking"]
    seconds = {name: float(ms) for name, ms in parts.items()}
    assert seconds["model"] > 0 and seconds["ranking"] >= seconds["tokens"] + seconds["model"] - 0.2
    refused = httpx.post(f"{address}/v1/rerank", json={}).headers["server-timing"]
    assert refused.startswith("ranking;dur="), "no part of the request before it"


def test_cut_texts_are_said_in_meta(address: str) -> None:
    meta = ask(address, documents=["water " * 3000, "pond"]).json()["meta"]
    assert meta["truncated_documents"] == 1 and not meta["truncated_query"]
    assert "1 of 2 texts" in meta["warnings"][0]


def test_many_clients_at_once_get_what_one_gets(address: str) -> None:
    bodies = [{"query": f"goldfish {row}", "documents": DOCUMENTS[: 1 + row % 4] * (1 + row % 3)} for row in range(24)]
    alone = [ask(address, **body).json()["results"] for body in bodies]
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(lambda body: ask(address, **body).json()["results"], bodies))
    for first, second in zip(alone, together, strict=True):
        assert [row["relevance_score"] for row in first] == pytest.approx(
            [row["relevance_score"] for row in second], abs=1e-4
        )


def test_a_model_that_is_being_loaded_holds_up_nobody_elses(published_encoder: Path) -> None:
    may_load = threading.Event()

    def fetch(artefact: Artefact) -> Path:
        if artefact.name == "cold":
            may_load.wait(60)
        return published_encoder

    def ask_for(url: str, name: str) -> int:
        header = {ARTEFACT_HEADER: json.dumps({"name": name, "location": name})}
        body = {"query": "goldfish", "documents": ["a"]}
        return httpx.post(f"{url}/v1/rerank", json=body, headers=header, timeout=20).status_code

    with served(rerank_app(fetch=fetch)) as url, ThreadPoolExecutor(70) as pool:
        assert ask_for(url, "warm") == 200
        cold = [pool.submit(ask_for, url, "cold") for _ in range(64)]
        time.sleep(0.5)  # by then they fill every thread that they can
        assert ask_for(url, "warm") == 200
        assert not any(each.done() for each in cold)
        may_load.set()
        assert {each.result() for each in cold} == {200}


def test_the_service_key_is_asked_for(published_encoder: Path) -> None:
    with serving(published_encoder, service_key="secret") as url:
        assert ask(url).status_code == 401
        headers = {"authorization": "Bearer secret"}
        body = {"query": "goldfish", "documents": ["a"]}
        assert httpx.post(f"{url}/v1/rerank", json=body, headers=headers).status_code == 200
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        assert httpx.get(f"{url}/state", headers=headers).json()["models"][0]["name"] == "tiny"


def test_the_cohere_client_reads_both_versions(address: str, expected: list[float]) -> None:
    cohere = pytest.importorskip("cohere", reason="the client package of Cohere is not installed")
    best = max(range(len(expected)), key=expected.__getitem__)
    for client in (cohere.Client("key", base_url=address), cohere.ClientV2("key", base_url=address)):
        answer = client.rerank(model="tiny", query="goldfish", documents=DOCUMENTS, top_n=2)
        assert answer.results[0].index == best
        assert answer.results[0].relevance_score == pytest.approx(expected[best], abs=1e-4)
        assert len(answer.results) == 2 and answer.id and answer.meta.api_version.version == "2"
        with pytest.raises(cohere.core.ApiError) as refused:
            client.rerank(model="other", query="goldfish", documents=DOCUMENTS)
        assert refused.value.status_code == 404 and "tiny" in json.dumps(refused.value.body)


def test_our_own_client_of_outside_rerankers_reads_every_shape(address: str, expected: list[float]) -> None:
    logits = [math.log(score / (1 - score)) for score in expected]  # TEI is asked for raw scores
    for shape, path, scores in (
        ("cohere", "/v2/rerank", expected),
        ("jina", "/v1/rerank", expected),
        ("tei", "/rerank", logits),
    ):
        endpoint = OutsideEndpoint(name="self", url=f"{address}{path}", shape=shape, model="tiny")  # type: ignore[arg-type]
        with OutsideReranker(endpoint) as outside:
            assert outside.scores("goldfish", DOCUMENTS).tolist() == pytest.approx(scores, abs=1e-3)


def test_a_client_that_hangs_up_harms_nobody(address: str) -> None:
    with pytest.raises(httpx.TimeoutException):
        httpx.post(
            f"{address}/v1/rerank",
            json={"query": "q", "documents": DOCUMENTS * 500},
            timeout=httpx.Timeout(5, read=0.05),
        )
    assert ask(address).status_code == 200
