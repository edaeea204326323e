"""Values of the wrong type in every field at every address: a refusal in the words of JSON, and never an error of the server."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.factories.students.embedders import publish_tiny_student
from tests.processes.serve import serving

TEXTS = ["a pond", "bread"]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/rerank": {"query": "goldfish", "documents": TEXTS},
    "/rerank": {"query": "goldfish", "texts": TEXTS},
    "/v1/score": {"text_1": "goldfish", "text_2": TEXTS},
    "/v1/embeddings": {"input": TEXTS},
    "/embed": {"inputs": TEXTS},
}
RANKING = (
    "model", "query", "documents", "texts", "text_1", "text_2", "items", "top_n", "top_k", "return_documents", "return_text",
    "raw_scores", "truncate", "truncation_side", "truncate_prompt_tokens", "rank_fields", "max_tokens_per_doc", "instruction",
    "return_embeddings", "softmax",
)  # fmt: skip
EMBEDDING = (
    "model", "input", "inputs", "truncate", "encoding_format", "input_type", "dimensions", "normalize", "prompt_name", "user",
)  # fmt: skip
VALUES: tuple[Any, ...] = (None, True, -1, 1.5, "x", [], [[1]], [None, 2], {}, [{"image": "x"}])
PYTHON = re.compile(r"\b(dict|int|str|bool|NoneType|None|True|False)\b|\ba [aeiou]|b'")


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_tiny_student(tmp_path_factory.mktemp("embedder"))


@pytest.fixture(scope="module")
def addresses(published_encoder: Path, embedder: Path) -> Iterator[dict[str, str]]:
    """The server for each path: that of the reranker, or that of the embedding student."""
    with serving(published_encoder) as ranks, serving(embedder) as embeds:
        yield {path: embeds if "embed" in path else ranks for path in BODIES}


@pytest.mark.parametrize("path", list(BODIES))
def test_no_value_is_an_error_of_the_server(addresses: dict[str, str], path: str) -> None:
    with httpx.Client(base_url=addresses[path], timeout=30) as client:
        for field in EMBEDDING if "embed" in path else RANKING:
            for value in VALUES:
                answer = client.post(path, json=BODIES[path] | {field: value})
                assert answer.status_code in (200, 404, 422), (field, value, answer.text)
                if answer.status_code != 200:
                    message = answer.json()["message"]
                    assert not PYTHON.search(message.replace("=False", "")), (field, value, message)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/rerank", {"documents": [None]}, "documents[0] is null"),
        ("/v1/rerank", {"documents": [{"text": None}]}, "documents[0].text is null; expected a text"),
        ("/v1/rerank", {"documents": [{"image": "x.png"}]}, "documents[0] is an object with image; expected a text"),
        ("/v1/rerank", {"top_n": "3"}, "top_n is the text '3'; expected a whole number"),
        ("/v1/embeddings", {"input": []}, "input is an empty list"),
        ("/v1/embeddings", {"input": None}, "input is missing"),
        ("/v1/embeddings", {"input": [True]}, "input[0] is true; expected a text"),
        ("/v1/embeddings", {"input_type": ["query"]}, "input_type is a list; expected query or document"),
        ("/v1/embeddings", {"dimensions": 0}, "dimensions is 0; expected a whole number of 1 or more"),
        ("/embed", {"prompt_name": {"query": 1}}, "prompt_name is an object with query"),
    ],
)
def test_the_refusal_says_what_was_sent(addresses: dict[str, str], path: str, body: dict[str, Any], said: str) -> None:
    answer = httpx.post(f"{addresses[path]}{path}", json=BODIES[path] | body, timeout=30)
    assert answer.status_code == 422 and said in answer.json()["message"]
