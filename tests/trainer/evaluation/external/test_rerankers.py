"""Other makers' rerankers, over real HTTP: what they answer is read strictly, or said to be wrong."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import Any

import pytest

from tests.processes.elsewhere import Elsewhere, Reply, by_length, dripping
from trainer.evaluation.external.rerankers import (
    MOST_REPLY_BYTES,
    OutsideEndpoint,
    OutsideFailed,
    OutsideInvalid,
    OutsideReranker,
    UnknownOutside,
    outside_endpoint,
    outside_endpoints,
)


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    server = Elsewhere()
    yield server
    server.close()


def endpoint(server: Elsewhere, **options: Any) -> OutsideEndpoint:
    return OutsideEndpoint(**{"name": "theirs", "url": server.url, "model": "rerank-x", **options})


@pytest.mark.parametrize("shape", ["cohere", "jina", "tei"])
def test_each_shape_is_asked_and_read(elsewhere: Elsewhere, shape: str) -> None:
    elsewhere.answer = by_length
    with OutsideReranker(endpoint(elsewhere, shape=shape)) as reranker:
        assert reranker.scores("which", ["aa", "a", "aaaa"]).tolist() == [2.0, 1.0, 4.0]
    sent = elsewhere.requests[0][2]
    assert sent["query"] == "which"
    assert ("texts" in sent) == (shape == "tei")
    assert sent.get("model") == (None if shape == "tei" else "rerank-x")


def test_long_lists_are_sent_in_parts(elsewhere: Elsewhere) -> None:
    elsewhere.answer = by_length
    with OutsideReranker(endpoint(elsewhere, most_documents=2)) as reranker:
        assert reranker.scores("q", ["a", "aa", "aaa", "aaaa", "aaaaa"]).tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
        assert reranker.scores("q", []).tolist() == []
    assert [len(body["documents"]) for _, _, body in elsewhere.requests] == [2, 2, 1]


def limited(most: int, status: int, sent: list[int]) -> Callable[[Any], Reply]:
    """A server that takes at most so many texts, as TEI does."""

    def answer(body: Any) -> Reply:
        texts = body.get("texts", body.get("documents"))
        sent.append(len(texts))
        if len(texts) > most:
            return status, {}, b'{"error":"batch size > maximum allowed batch size","error_type":"Validation"}'
        return by_length(body)

    return answer


@pytest.mark.parametrize("status", [413, 422])
def test_tei_gets_parts_of_32_and_refused_ones_are_halved(elsewhere: Elsewhere, status: int) -> None:
    sent: list[int] = []
    elsewhere.answer = limited(10, status, sent)
    texts = ["x" * (1 + i) for i in range(70)]
    with OutsideReranker(endpoint(elsewhere, shape="tei")) as reranker:
        assert reranker.scores("q", texts).tolist() == [1.0 + i for i in range(70)]
        assert sent == [32, 16, 8, 8, 8, 8, 8, 8, 8, 8, 6]
        sent.clear()
        reranker.scores("q", texts[:9])
    assert sent == [8, 1], "the size that was found is kept"


def test_one_document_that_is_too_large_is_named(elsewhere: Elsewhere) -> None:
    sent: list[int] = []
    elsewhere.answer = limited(0, 413, sent)
    said = "status 413.*it refused one document of 3 characters alone"
    with OutsideReranker(endpoint(elsewhere)) as reranker, pytest.raises(OutsideFailed, match=said):
        reranker.scores("q", ["abc"] * 8)
    assert sent == [8, 4, 2, 1]


def test_a_list_of_a_listwise_model_is_never_split(elsewhere: Elsewhere) -> None:
    sent: list[int] = []
    elsewhere.answer = limited(4, 422, sent)
    with OutsideReranker(endpoint(elsewhere, listwise=True, most_documents=6)) as reranker:
        assert reranker.scores("q", ["a", "aa", "aaa"]).tolist() == [1.0, 2.0, 3.0]
        with pytest.raises(OutsideFailed, match="422"):
            reranker.scores("q", ["a"] * 5)
        with pytest.raises(OutsideFailed, match="listwise and takes 6 documents, and a query has 7"):
            reranker.scores("q", ["a"] * 7)
    assert sent == [3, 5]


def test_templates_hold_the_models_own_prompt(elsewhere: Elsewhere) -> None:
    elsewhere.answer = by_length
    prompt = {
        "query_template": "<Instruct>: {instruction}\n<Query>: {query}\n",
        "document_template": "<Document>: {document}<|im_end|>{}",
        "instruction": "Find answers.",
    }
    with OutsideReranker(endpoint(elsewhere, **prompt)) as reranker:
        reranker.scores("{document} {instruction}?", ["{query}"])
        reranker.scores("q", ["d"], instruction="Find laws.")
    first, second = (body for _, _, body in elsewhere.requests)
    assert first["query"] == "<Instruct>: Find answers.\n<Query>: {document} {instruction}?\n"
    assert first["documents"] == ["<Document>: {query}<|im_end|>{}"]
    assert second["query"] == "<Instruct>: Find laws.\n<Query>: q\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"query_template": "no place"}, "query_template must hold {query} once"),
        ({"document_template": "{document} {document}"}, "document_template must hold {document} once"),
        ({"query_template": "{query} {document}"}, "no {document}"),
        ({"document_template": "{document} {instruction}"}, "put it into query_template"),
        ({"instruction": "Find answers."}, "instruction has no place"),
    ],
)
def test_a_template_without_a_place_for_its_text_is_refused(options: dict[str, str], said: str) -> None:
    row = {"name": "theirs", "url": "https://rerank.example.org/v2/rerank", "model": "m", **options}
    with pytest.raises(OutsideInvalid, match=said):
        outside_endpoints({"ZELO_RERANKERS": json.dumps([row])})


def test_the_key_is_read_from_the_environment_and_sent(elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere.answer = by_length
    keyed = endpoint(elsewhere, api_key_env="THEIR_KEY")
    with OutsideReranker(keyed) as reranker:
        with pytest.raises(OutsideFailed, match="THEIR_KEY is empty"):
            reranker.scores("q", ["a"])
        monkeypatch.setenv("THEIR_KEY", "abc")
        reranker.scores("q", ["a"])
    assert elsewhere.requests[-1][1]["authorization"] == "Bearer abc"


def test_a_busy_endpoint_is_waited_for(elsewhere: Elsewhere) -> None:
    waits: list[float] = []
    elsewhere.answer = lambda body: (429, {"retry-after": "7"}, b"") if len(waits) < 2 else by_length(body)
    with OutsideReranker(endpoint(elsewhere), sleep=waits.append) as reranker:
        assert reranker.scores("q", ["a"]).tolist() == [1.0]
    assert waits == [7.0, 7.0]


@pytest.mark.parametrize(("seconds", "least", "most"), [(30, 25.0, 30.0), (-30, 1.0, 1.0), (3600, 60.0, 60.0)])
def test_the_wait_may_be_a_date(elsewhere: Elsewhere, seconds: int, least: float, most: float) -> None:
    waits: list[float] = []
    date = formatdate(time.time() + seconds, usegmt=True)
    elsewhere.answer = lambda body: by_length(body) if waits else (429, {"retry-after": date}, b"")
    with OutsideReranker(endpoint(elsewhere), sleep=waits.append) as reranker:
        reranker.scores("q", ["a"])
    assert len(waits) == 1 and least <= waits[0] <= most


@pytest.mark.parametrize(
    "wait", ["0", "-5", "nan", "inf", "soon", "Wed, 99 Foo 2099", "Wed, 21 Oct 99999 07:28:00 GMT"]
)
def test_a_wait_that_is_none_is_left_to_us(elsewhere: Elsewhere, wait: str) -> None:
    waits: list[float] = []
    elsewhere.answer = lambda body: by_length(body) if waits else (429, {"retry-after": wait}, b"")
    with OutsideReranker(endpoint(elsewhere), sleep=waits.append) as reranker:
        reranker.scores("q", ["a"])
    assert waits == [1.0]


def test_an_endpoint_that_stays_down_is_named(elsewhere: Elsewhere) -> None:
    elsewhere.answer = lambda body: (503, {}, b"overloaded")
    waits: list[float] = []
    with (
        OutsideReranker(endpoint(elsewhere), sleep=waits.append) as reranker,
        pytest.raises(OutsideFailed, match=r"theirs did not rank .*503"),
    ):
        reranker.scores("q", ["a"])
    assert len(waits) == 3


def test_a_refusal_is_not_tried_again(elsewhere: Elsewhere) -> None:
    elsewhere.answer = lambda body: (401, {}, b"bad key")
    with OutsideReranker(endpoint(elsewhere)) as reranker, pytest.raises(OutsideFailed, match="401: bad key"):
        reranker.scores("q", ["a"])
    assert len(elsewhere.requests) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no json", "expected JSON"),
        (b'{"results": []}', "0 of 2"),
        (b'{"results": [{"index": 0, "relevance_score": 1}]}', "1 of 2"),
        (b'{"results": [{"index": 5, "relevance_score": 1}]}', "index 5"),
        (b'{"results": [{"index": 0, "relevance_score": 1}, {"index": 0, "relevance_score": 2}]}', "index 0"),
        (b'{"results": [{"index": 0, "relevance_score": NaN}, {"index": 1, "relevance_score": 2}]}', "1 of 2"),
        (b'[{"index": 0, "score": 1}]', "relevance_score"),
        (b'{"results": [{"index": 0, "relevance_score": true}]}', "relevance_score True"),
        (b'{"results": [{"index": 0, "relevance_score": "0.5"}]}', "relevance_score '0.5'"),
        (b'{"results": [{"index": 1.0, "relevance_score": 0.5}]}', r"index 1\.0"),
        (b'{"results": [{"index": 0, "relevance_score": 1' + b"0" * 400 + b"}]}", "expected one row"),
        (b"7", "expected one row"),
        (
            b'{"results": [{"index": 0, "relevance_score": NaN}, {"index": 0, "relevance_score": 1}, '
            b'{"index": 1, "relevance_score": 2}]}',
            "index 0",
        ),
        (b'{"error": {"message": "the model is not loaded"}}', "the model is not loaded.*no list of results"),
        (b'{"results": null}', "no list of results"),
        (b'{"results": [{"index": "0", "relevance_score": 1}]}', "index '0'"),
    ],
)
def test_an_answer_that_is_none_is_never_a_score(elsewhere: Elsewhere, content: bytes, said: str) -> None:
    elsewhere.answer = lambda body: (200, {}, content)
    with OutsideReranker(endpoint(elsewhere)) as reranker, pytest.raises(OutsideFailed, match=said):
        reranker.scores("q", ["a", "b"])


KEY = "9f8e7d6c-Zz01-secret-of-theirs"


@pytest.mark.parametrize(
    "reply",
    [
        (401, {}, f"no such key: {KEY}".encode()),
        (401, {}, b"x" * 290 + KEY.encode()),  # no part of it remains where the text is cut
        (200, {}, f"no json {KEY}".encode()),
        (200, {}, json.dumps({"results": [{"index": 0, "said": KEY}]}).encode()),
        (200, {}, json.dumps({"results": [{"index": 0, "relevance_score": KEY}]}).encode()),
        (200, {"content-encoding": KEY}, b"{}"),
    ],
)
def test_an_echoed_key_is_in_no_message(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch, reply: tuple[int, dict[str, str], bytes]
) -> None:
    monkeypatch.setenv("THEIR_KEY", KEY)
    elsewhere.answer = lambda body: reply
    keyed = endpoint(elsewhere, api_key_env="THEIR_KEY")
    with OutsideReranker(keyed) as reranker, pytest.raises(OutsideFailed) as failed:
        reranker.scores("q", ["a"])
    assert KEY[:8] not in str(failed.value)
    assert failed.value.__cause__ is None


def test_a_long_reply_is_not_read_to_its_end(elsewhere: Elsewhere) -> None:
    elsewhere.answer = lambda body: (200, {}, b" " * (MOST_REPLY_BYTES + 64 * 1024 * 1024))
    with OutsideReranker(endpoint(elsewhere)) as reranker, pytest.raises(OutsideFailed, match="answered more than"):
        tracemalloc.start()
        try:
            reranker.scores("q", ["a"])
        finally:
            largest = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    assert largest < MOST_REPLY_BYTES + 64 * 1024 * 1024 + 2.5 * MOST_REPLY_BYTES  # the first term is the fake's own


def test_a_packed_reply_is_refused_unread(elsewhere: Elsewhere) -> None:
    elsewhere.answer = lambda body: (200, {"content-encoding": "gzip"}, gzip.compress(b" " * 10_000_000))
    with OutsideReranker(endpoint(elsewhere)) as reranker, pytest.raises(OutsideFailed, match="packed content"):
        reranker.scores("q", ["a"])
    assert elsewhere.requests[0][1]["accept-encoding"] == "identity"


@pytest.mark.parametrize("status", [200, 201])
def test_a_reply_that_says_it_is_not_packed_is_read(elsewhere: Elsewhere, status: int) -> None:
    elsewhere.answer = lambda body: (status, {"content-encoding": "Identity"}, by_length(body)[2])
    with OutsideReranker(endpoint(elsewhere)) as reranker:
        assert reranker.scores("q", ["a", "aa"]).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(("status", "sent"), [(503, [4, 4]), (429, [4, 4]), (413, [4, 2, 2])])
def test_a_packed_error_page_is_retried_or_halved_as_a_plain_one(
    elsewhere: Elsewhere, status: int, sent: list[int]
) -> None:
    def answer(body: Any) -> Reply:
        is_first = len(elsewhere.requests) == 1
        return (status, {"content-encoding": "gzip"}, gzip.compress(b"later")) if is_first else by_length(body)

    elsewhere.answer = answer
    with OutsideReranker(endpoint(elsewhere), sleep=lambda _: None) as reranker:
        assert reranker.scores("q", ["a", "aa", "aaa", "aaaa"]).tolist() == [1.0, 2.0, 3.0, 4.0]
    assert [len(body["documents"]) for _, _, body in elsewhere.requests] == sent


def test_a_redirect_is_not_followed_and_says_where_it_leads(elsewhere: Elsewhere) -> None:
    elsewhere.answer = lambda body: (307, {"location": "https://rerank.example.org/v2/rerank/"}, b"")
    said = r"status 307: , redirected to https://rerank\.example\.org/v2/rerank/"
    with OutsideReranker(endpoint(elsewhere)) as reranker, pytest.raises(OutsideFailed, match=said):
        reranker.scores("q", ["a"])


@pytest.mark.parametrize(
    "key", ["schl\N{LATIN SMALL LETTER U WITH DIAERESIS}ssel-geheim-1", "first-key-1\nsecond-key-2"]
)
def test_a_key_that_no_header_can_hold_is_named_and_not_shown(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("THEIR_KEY", key)
    said = "THEIR_KEY holds a character that no key has"
    keyed = endpoint(elsewhere, api_key_env="THEIR_KEY")
    with OutsideReranker(keyed) as reranker, pytest.raises(OutsideFailed, match=said) as failed:
        reranker.scores("q", ["a"])
    assert key[:5] not in str(failed.value) and not elsewhere.requests


def test_the_operators_list_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"name": "theirs", "url": "https://rerank.example.org/v2/rerank", "model": "m"}
    assert outside_endpoints({"ZELO_RERANKERS": json.dumps([row])})["theirs"].shape == "cohere"
    assert outside_endpoints({}) == {}
    with pytest.raises(OutsideInvalid, match="two rerankers"):
        outside_endpoints({"ZELO_RERANKERS": json.dumps([row, row])})
    with pytest.raises(OutsideInvalid, match="needs a model"):
        outside_endpoints({"ZELO_RERANKERS": json.dumps([row | {"model": ""}])})
    with pytest.raises(OutsideInvalid, match="not JSON"):
        outside_endpoints({"ZELO_RERANKERS": "[oops"})
    with pytest.raises(OutsideInvalid, match="no user, password"):
        outside_endpoints({"ZELO_RERANKERS": json.dumps([row | {"url": "https://a:b@rerank.example.org/"}])})
    monkeypatch.setenv("ZELO_RERANKERS", json.dumps([row]))
    with pytest.raises(UnknownOutside, match="defines: theirs"):
        outside_endpoint("ours")


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;note=",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n",
    ],
    ids=["header", "status", "chunk", "body"],
)
def test_a_reply_that_drips_ends_at_the_time_limit(start: bytes) -> None:
    waits: list[float] = []
    with dripping(start) as url:
        slow = OutsideEndpoint(name="theirs", url=f"{url}/rerank", model="m", timeout_s=0.3)
        began = time.monotonic()
        with OutsideReranker(slow, sleep=waits.append) as reranker, pytest.raises(OutsideFailed, match="ReadTimeout"):
            reranker.scores("q", ["a"])
    assert time.monotonic() - began < 3.0 and len(waits) == 3, "four attempts, each at most 0.3 s"
