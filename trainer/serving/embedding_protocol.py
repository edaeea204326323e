"""Parses requests and builds responses of OpenAI's `/v1/embeddings` and TEI's `/embed`, as pure functions. Imports no Django.

At `/v1/embeddings`, beyond OpenAI's fields, `input_type` (`query` or `document`) chooses the prompt of models that have prompts.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from labeling.retrieval.embedder import Float32Array
from trainer.serving.protocols import RerankRefused, count, model_named, truncates, unused, wrong

MOST_TEXTS = 2048
_ROLES: dict[str, Literal["query", "document"]] = {
    "query": "query", "search_query": "query", "document": "document", "search_document": "document",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """One validated request; `size` None is the model's whole size."""

    texts: tuple[str, ...]
    model: str = ""
    role: Literal["query", "document"] = "document"
    size: int | None = None
    as_base64: bool = False
    warnings: tuple[str, ...] = ()
    truncate: bool = True
    as_tei: bool = False


def read_tei_embedding(body: Mapping[str, Any], warnings: tuple[str, ...] = ()) -> EmbeddingRequest:
    """The validated request of a body of TEI's `/embed`. Raises RerankRefused."""
    if body.get("normalize") is False:
        raise RerankRefused(422, "normalize is false; expected true: the vectors of our models have length 1")
    return EmbeddingRequest(
        texts=_texts(body.get("inputs"), "inputs"),
        model=model_named(body),
        role=_role(body, "prompt_name"),
        size=count(body, "dimensions", least=1),
        warnings=(*warnings, *unused(body, ("inputs", "normalize", "prompt_name", "dimensions"))),
        truncate=truncates(body),
        as_tei=True,
    )


def read_embedding_request(body: Mapping[str, Any], warnings: tuple[str, ...] = ()) -> EmbeddingRequest:
    """The validated request of a body. `warnings` go in front of its own. Raises RerankRefused."""
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise wrong("encoding_format", encoding, "float or base64")
    return EmbeddingRequest(
        texts=_texts(body.get("input"), "input"),
        model=model_named(body),
        role=_role(body, "input_type"),
        size=count(body, "dimensions", least=1),
        as_base64=encoding == "base64",
        truncate=truncates(body),
        warnings=(*warnings, *unused(body, ("input", "encoding_format", "input_type", "dimensions"))),
    )


def _role(body: Mapping[str, Any], field: str) -> Literal["query", "document"]:
    named = body.get(field) or "document"
    if not isinstance(named, str) or named not in _ROLES:
        raise wrong(field, named, "query or document")
    return _ROLES[named]


def _texts(value: Any, field: str) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise wrong(field, value, "a text or a list of texts")
    if len(texts) > MOST_TEXTS:
        raise RerankRefused(
            422, f"{field} holds {len(texts):,} texts; expected at most {MOST_TEXTS:,}; send several requests"
        )
    for place, text in enumerate(texts):
        if isinstance(text, int | list) and not isinstance(text, bool):
            raise RerankRefused(
                422,
                f"{field}[{place}] holds token numbers, which belong to another model's tokenizer; send texts "
                "(LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False)",
            )
        if text == "":
            raise RerankRefused(422, f"{field}[{place}] is empty; expected a text")
        if not isinstance(text, str):
            raise wrong(f"{field}[{place}]", text, "a text")
    return tuple(texts)


def check_size(request: EmbeddingRequest, sizes: Sequence[int], *, model: str) -> None:
    """Raise RerankRefused for a size that the model was not trained for."""
    if request.size is not None and request.size not in sizes:
        known = ", ".join(map(str, sizes))
        raise RerankRefused(
            422, f"dimensions is {request.size}; model {model!r} was trained for {known}; choose one of them"
        )


def embedding_answer(
    request: EmbeddingRequest, vectors: Sequence[Float32Array], *, model: str, tokens: int
) -> dict[str, Any] | list[Any]:
    """The body of a successful response: OpenAI's, or TEI's list of vectors."""
    if request.as_tei:
        return [_written(vector, False) for vector in vectors]
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": place, "embedding": _written(vector, request.as_base64)}
            for place, vector in enumerate(vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _written(vector: Float32Array, as_base64: bool) -> Any:
    if as_base64:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return np.asarray(vector, dtype=np.float64).tolist()
