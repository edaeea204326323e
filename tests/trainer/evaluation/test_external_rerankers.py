"""Other makers' rerankers, over real HTTP: what they answer is read strictly, or said to be wrong."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from tests.processes.elsewhere import Elsewhere, by_length
from trainer.evaluation.external_rerankers import (
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
        (b"7", "expected one row"),
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
