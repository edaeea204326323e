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
from trainer.serving.protocols import RerankRefused, model_named, truncates, unused

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
    prompt = body.get("prompt_name") or "document"
    if prompt not in _ROLES:
        raise RerankRefused(422, f"prompt_name is {str(prompt)[:60]!r}; expected query or document")
    return EmbeddingRequest(
        texts=_texts(body.get("inputs"), "inputs"),
        model=model_named(body),
        role=_ROLES[prompt],
        size=_size(body.get("dimensions")),
        warnings=(*warnings, *unused(body, ("inputs", "normalize", "prompt_name", "dimensions"))),
        truncate=truncates(body),
        as_tei=True,
    )


def read_embedding_request(body: Mapping[str, Any], warnings: tuple[str, ...] = ()) -> EmbeddingRequest:
    """The validated request of a body. `warnings` go in front of its own. Raises RerankRefused."""
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise RerankRefused(422, f"encoding_format is {str(encoding)[:60]!r}; expected float or base64")
    kind = body.get("input_type") or "document"
    if kind not in _ROLES:
        raise RerankRefused(422, f"input_type is {str(kind)[:60]!r}; expected query or document")
    return EmbeddingRequest(
        texts=_texts(body.get("input"), "input"),
        model=model_named(body),
        role=_ROLES[kind],
        size=_size(body.get("dimensions")),
        as_base64=encoding == "base64",
        truncate=truncates(body),
        warnings=(*warnings, *unused(body, ("input", "encoding_format", "input_type", "dimensions"))),
    )


def _texts(value: Any, field: str) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise RerankRefused(422, f"{field} is missing, empty or of another type; expected a text or a list of texts")
    if len(texts) > MOST_TEXTS:
        raise RerankRefused(
            422, f"{field} holds {len(texts):,} texts; expected at most {MOST_TEXTS:,}; send several requests"
        )
    for place, text in enumerate(texts):
        if isinstance(text, int | list):
            raise RerankRefused(
                422,
                f"{field}[{place}] holds token numbers, which belong to another model's tokenizer; send texts "
                "(LangChain's OpenAIEmbeddings: check_embedding_ctx_length=False)",
            )
        if not isinstance(text, str) or not text:
            shown = "empty" if text == "" else f"a {type(text).__name__}"
            raise RerankRefused(422, f"{field}[{place}] is {shown}; expected a text")
    return tuple(texts)


def _size(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RerankRefused(422, f"dimensions is {str(value)[:60]!r}; expected a whole number of 1 or more")
    return value


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
