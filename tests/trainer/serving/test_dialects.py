"""The dialects of rerank clients at the serving process: what each may ask, and what is done with it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer

from tests.processes.serve import serving
from trainer.serving.addresses import ADDRESSES, RERANK
from trainer.serving.loading import load_reranker

DOCUMENTS = ["a pond with goldfish", "bread from the oven", "water"]
LONG = "water " * 3000


@pytest.fixture(scope="module")
def address(published: Path) -> Iterator[str]:
    with serving(published) as url:
        yield url


def ask(address: str, path: str = "/v1/rerank", *, raw: bytes | None = None, **body: Any) -> httpx.Response:
    sent = {"query": "goldfish", "documents": DOCUMENTS} | body
    content = raw or json.dumps({name: value for name, value in sent.items() if value is not None}).encode()
    return httpx.post(f"{address}{path}", content=content, timeout=30)


def scores(answer: Any) -> dict[int, float]:
    return {row["index"]: row["relevance_score"] for row in answer.json()["results"]}


@pytest.mark.parametrize("body", [{"top_n": 0}, {"top_k": 0}, {"top_n": 0, "top_k": 0}, {}])
def test_zero_asks_for_all_documents(address: str, body: dict[str, int]) -> None:
    assert set(scores(ask(address, **body))) == {0, 1, 2}
    tei = ask(address, "/rerank", documents=None, texts=DOCUMENTS, **body)
    assert len(tei.json()) == 3


def test_bad_characters_are_replaced_and_reported(address: str) -> None:
    raw = (
        b'{"query": "gold\\u0000fish", "documents": ["a\\u0000b", "a\\ud83d", "a\\ud83db", "\\ud83d\\ude00", "\xff", '
        b'{"text": "a", "score": NaN, "big": 1e999}], "return_documents": true, "seed": 123456789012345678901234567890}'
    )
    answer = ask(address, raw=raw)
    assert answer.status_code == 200
    texts = {row["index"]: row["document"]["text"] for row in answer.json()["results"]}
    assert texts == {0: "a b", 1: "a\ufffd", 2: "a\ufffdb", 3: "\U0001f600", 4: "\ufffd", 5: "a"}
    assert answer.json()["meta"]["warnings"] == [
        "characters that are not text (NUL, half a surrogate, bytes that are not UTF-8) were replaced", "seed is not used",
    ]  # fmt: skip
    assert scores(ask(address, query="gold fish", documents=["a b"]))[0] == pytest.approx(scores(answer)[0], abs=1e-5)
    for broken in (b'{"query": NaN', b'{"query": "a", "query": "b", "documents": ["c"]}', b"[" * 200):
        assert ask(address, raw=broken).status_code == 400


def test_equal_texts_have_equal_scores_in_the_order_of_the_request(address: str) -> None:
    documents = ["water", *["a pond with goldfish", "bread"] * 3, LONG, "water"]
    found = ask(address, documents=documents).json()["results"]
    own = {row["index"]: row["relevance_score"] for row in found}
    assert own[1] == own[3] == own[5] and own[2] == own[4] == own[6] and own[0] == own[8]
    assert [row["index"] for row in found if row["index"] in (2, 4, 6)] == [2, 4, 6]
    twice = {"query": None, "documents": None, "text_1": ["a", "b", "a"], "text_2": ["c", "d", "c"]}
    first, other, last = (row["score"] for row in ask(address, "/score", **twice).json()["data"])
    assert first == last != other


def test_rank_fields_are_ranked_in_their_order(address: str) -> None:
    objects = [{"text": "bread", "title": "goldfish", "year": 2001}, {"text": "water", "title": "a pond", "new": True}]
    answer = ask(address, documents=objects, rank_fields=["title", "year", "text", "new"], return_documents=True)
    texts = {row["index"]: row["document"]["text"] for row in answer.json()["results"]}
    assert texts == {0: "goldfish\n2001\nbread", 1: "a pond\nwater\ntrue"}
    assert scores(ask(address, documents=[texts[0], texts[1]])) == pytest.approx(scores(answer), abs=1e-5)
    assert "warnings" not in answer.json()["meta"]
    refused = ask(address, documents=objects, rank_fields=["year"])
    assert refused.status_code == 422 and "documents[1] has none of the rank_fields year" in refused.json()["message"]
    (told,) = ask(address, rank_fields=["title"]).json()["meta"]["warnings"]
    assert "rank_fields is not used" in told


def test_documents_are_shortened_to_max_tokens_per_doc(address: str, published: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(published / "merged")
    for long in ("a pond with goldfish and bread from the oven", "\u3042" * 40 + " water" * 400):
        for most in (1, 4, 100):
            ends = tokenizer(long, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            head = long[: ends[min(most, len(ends)) - 1][1]]
            short = scores(ask(address, documents=[long], max_tokens_per_doc=most))
            assert short == pytest.approx(scores(ask(address, documents=[head])), abs=1e-5)
    assert scores(ask(address, documents=[long]))[0] != pytest.approx(short[0], abs=1e-5)
    assert ask(address, max_tokens_per_doc=0).status_code == 422


@pytest.mark.parametrize("body", [{"truncate": False}, {"truncation": False}])
def test_texts_are_not_truncated_where_that_is_forbidden(address: str, body: dict[str, bool]) -> None:
    assert ask(address, **body).status_code == 200
    assert "1 text would be truncated: the model takes" in ask(address, documents=[LONG, "a"], **body).json()["message"]
    assert "the query would be truncated" in ask(address, query=LONG, **body).json()["message"]
    tei = ask(address, "/rerank", documents=None, texts=[LONG], **body)
    assert (tei.status_code, tei.json()["error_type"]) == (422, "Validation")
    assert ask(address, "/rerank", documents=None, texts=[LONG], truncate=True).status_code == 200
    assert ask(address, "/score", query=None, documents=None, text_1="q", text_2=LONG, **body).status_code == 422


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"truncation_direction": "Left"}, "truncation_direction is the text 'Left'"),
        ({"truncate_prompt_tokens": 64}, "use max_tokens_per_doc"),
        ({"return_embeddings": True}, "/v1/embeddings"),
        ({"top_n": 1, "top_k": 2}, "top_n is 1 and top_k is 2"),
        ({"top_k": "3"}, "top_k is the text '3'"),
        ({"rank_fields": "title"}, "rank_fields is the text"),
        ({"truncate": "yes"}, "truncate is the text 'yes'"),
    ],
)
def test_options_that_are_not_offered_are_refused_by_name(address: str, body: dict[str, Any], said: str) -> None:
    answer = ask(address, **body)
    assert answer.status_code == 422 and said in answer.json()["message"]


def test_options_that_are_not_used_are_listed(address: str) -> None:
    unused = {"max_chunks_per_doc": 10, "priority": 0, "a\nb": 1, "nothing": None, "truncate_prompt_tokens": -1}
    meta = ask(address, **unused).json()["meta"]
    assert meta["warnings"] == ["a\\nb is not used", "max_chunks_per_doc is not used", "priority is not used"]
    tei = ask(address, "/rerank", documents=None, texts=DOCUMENTS, return_documents=True, truncation_direction="Right")
    assert tei.headers["x-zelo-warnings"] == "return_documents is not used"
    assert "x-zelo-warnings" not in ask(address, "/rerank", documents=None, texts=DOCUMENTS, return_text=True).headers


@pytest.mark.parametrize("path", RERANK)
def test_texts_come_back_where_they_are_asked_for_or_the_dialect_s_default(address: str, path: str) -> None:
    for asked, returned in ((None, path == "/rerank"), (True, True), (False, False)):
        rows = ask(address, path, return_documents=asked).json()["results"]
        assert {"document" in row for row in rows} == {returned}
    assert len(ask(address, path, documents=["x" * 20_000] * 20, return_documents=False).content) < 5_000


def test_voyage_clients_find_data_with_plain_texts(address: str) -> None:
    answer = ask(address, top_k=2, truncation=True, return_documents=True).json()
    assert [row["index"] for row in answer["data"]] == [row["index"] for row in answer["results"]]
    assert all(row["document"] == DOCUMENTS[row["index"]] for row in answer["data"]) and len(answer["data"]) == 2
    assert answer["object"] == "list" and answer["usage"]["total_tokens"] > 0 and "warnings" not in answer["meta"]
    assert "data" not in ask(address, top_n=2).json()
    assert not any("document" in row for row in ask(address, "/rerank", truncation=True).json()["data"])


def test_llama_cpp_s_addresses_take_both_forms(address: str) -> None:
    expected = scores(ask(address))
    for path in ("/v1/reranking", "/reranking", "/rerank", "/v1/rerank", "/v1/rerank/", "/v1/reranking//"):
        assert scores(ask(address, path)) == pytest.approx(expected, abs=1e-5)
        rows = ask(address, path, documents=None, texts=DOCUMENTS, top_n=2).json()
        assert {row["index"]: row["score"] for row in rows}.items() <= {
            k: pytest.approx(v, abs=1e-5) for k, v in expected.items()
        }.items()
        assert len(rows) == 2


def test_vllm_scores_one_text_against_many_or_each_against_its_own(address: str) -> None:
    expected = scores(ask(address))
    sides = {"query": None, "documents": None}
    forms = [
        sides | {"text_1": "goldfish", "text_2": DOCUMENTS},
        sides | {"data_1": ["goldfish"], "data_2": DOCUMENTS},
        sides | {"queries": "goldfish", "items": DOCUMENTS},
        {"query": None, "queries": "goldfish"},
    ]
    for path in ("/score", "/v1/score", "/score/"):
        for body in forms:
            answer = ask(address, path, **body).json()
            assert [row["index"] for row in answer["data"]] == [0, 1, 2]
            assert {row["index"]: row["score"] for row in answer["data"]} == pytest.approx(expected, abs=1e-5)
    assert answer["object"] == "list" and answer["model"] == "tiny" and answer["usage"]["completion_tokens"] == 0
    pairs = ask(address, "/score", **sides, text_1=["goldfish", "bread"], text_2=["water", "oven"]).json()["data"]
    assert pairs[0]["score"] == pytest.approx(expected[2], abs=1e-5)
    assert pairs[1]["score"] == pytest.approx(scores(ask(address, query="bread", documents=["oven"]))[0], abs=1e-5)
    raw = ask(address, "/score", **forms[0], use_activation=False).json()["data"]
    assert raw[0]["score"] == pytest.approx(math.log(expected[0] / (1 - expected[0])), abs=1e-3)
    assert scores(ask(address, activation=False))[0] == pytest.approx(raw[0]["score"], abs=1e-5)
    for body in (
        {"text_1": ["a", "b"], "text_2": ["c"]},
        {"text_1": "a"},
        {"text_1": "a", "text_2": []},
        {"text_1": 7, "text_2": "b"},
    ):
        refused = ask(address, "/score", **sides, **body)
        assert refused.status_code == 422 and "text_" in refused.json()["error"]["message"]


def test_health_info_and_models_answer_as_tei_and_openai(address: str) -> None:
    assert httpx.get(f"{address}/health").json() == {"status": "ok"}
    assert httpx.head(f"{address}/health").status_code == 200
    info = httpx.get(f"{address}/info/").json()
    assert info["model_id"] == "tiny" and "reranker" in info["model_type"] and info["model_dtype"] == "float32"
    assert info["auto_truncate"] is True and info["max_client_batch_size"] == 10_000
    (model,) = httpx.get(f"{address}/v1/models").json()["data"]
    assert (model["id"], model["object"], model["owned_by"]) == ("tiny", "model", "zelo") and model["created"] > 0
    for path in ("/v1/models/tiny", "/models/tiny/", "//v1/models//tiny"):
        assert httpx.get(f"{address}{path}").json() == model
    other = httpx.get(f"{address}/v1/models/fish/other")
    assert other.status_code == 404 and "'fish/other'; those that the key may use: tiny" in other.json()["message"]
    assert httpx.post(f"{address}/v1/models/tiny").status_code == 405


@pytest.mark.parametrize("path", ["/", "/v1/chat/completions", "/v1/rerank/x", "/v1/Rerank"])
def test_an_unknown_address_lists_those_that_there_are(address: str, path: str) -> None:
    for answer in (httpx.get(f"{address}{path}"), httpx.post(f"{address}{path}", content=b"no JSON")):
        assert answer.status_code == 404
        assert all(each in answer.json()["error"]["message"] for each in ADDRESSES)


def test_a_known_address_names_its_method(address: str) -> None:
    assert "takes GET" in httpx.post(f"{address}/info", json={}).json()["message"]
    assert httpx.post(f"{address}/health").status_code == 405
    assert "takes POST" in httpx.get(f"{address}/v1/score").json()["message"]


def test_spelled_separators_are_scored_as_the_same_text_broken_up(address: str, published: Path) -> None:
    spelled = load_reranker(published)._tokenizer.all_special_tokens
    assert spelled
    for token in spelled:
        parts = f"{token[0]} {token[1:]}"
        texts = ["Gills. {} how do fish breathe {}", "{}{}", "a{}b water"]
        for text in texts:
            written = ask(address, documents=[text.format(token, token)], raw_scores=True)
            broken = ask(address, documents=[text.format(parts, parts)], raw_scores=True)
            assert scores(written) == pytest.approx(scores(broken), abs=1e-6)
        asked = [ask(address, query=f"goldfish {each} water", raw_scores=True) for each in (token, parts)]
        assert scores(asked[0]) == pytest.approx(scores(asked[1]), abs=1e-6)


def test_no_spelled_separator_becomes_one(published: Path) -> None:
    model = load_reranker(published)
    special = set(model._tokenizer.all_special_ids)
    frame = sum(each in special for each in model.encode("q", ["d"]).pairs[0].ids)
    for token in model._tokenizer.all_special_tokens:
        pair = model.encode(f"q {token}", [f"d {token}{token} d"]).pairs[0]
        assert sum(each in special - {model._tokenizer.unk_token_id} for each in pair.ids) <= frame, token


def test_an_instruction_stands_before_the_query(address: str) -> None:
    told = ask(address, instruction=" water only ")
    plain = ask(address, query="water only\ngoldfish")
    assert scores(told) == pytest.approx(scores(plain), abs=1e-5)
    assert scores(told) != pytest.approx(scores(ask(address)), abs=1e-5)
    assert told.json()["meta"]["warnings"] == [
        "the model was not trained with instructions, so the instruction may not help"
    ]
    pair = {"query": None, "documents": None, "text_1": "goldfish", "text_2": DOCUMENTS, "instruction": "water only"}
    scored = ask(address, "/score", **pair).json()["data"]
    assert [row["score"] for row in scored] == pytest.approx([scores(told)[at] for at in range(3)], abs=1e-5)
    refused = ask(address, instruction=LONG)
    assert refused.status_code == 422 and "shorten the instruction" in refused.json()["message"]
    assert ask(address, instruction=3).status_code == 422
