"""Parses requests and builds responses of the three rerank protocols over HTTP, as pure functions.

`/v1/rerank` and `/v2/rerank` accept requests of Cohere, Jina and vLLM clients and return one response that all three read;
`/rerank` with `texts` is TEI's. The serving process and the web proxy share this module, so errors look the same in both.
Imports no Django.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from labeling.importing.strict_json import BadJson, parse
from trainer.serving.loading import Ranked

Dialect = Literal["rerank", "tei"]

PATHS = ("/v1/rerank", "/v2/rerank", "/rerank")
MOST_BODY_BYTES = 32 * 1024 * 1024
MOST_DOCUMENTS = 10_000
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "overloaded_error",
}
_TEI_KINDS = {401: "Unauthenticated", 404: "NotFound", 413: "Validation", 422: "Validation", 400: "Validation"}


class RerankRefused(ValueError):
    """The request is refused with the HTTP status `status`; `retry_after_s` says when to retry."""

    def __init__(self, status: int, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """One validated request. `model` is empty if the request names none."""

    dialect: Dialect
    query: str
    documents: tuple[str, ...]
    model: str = ""
    top_n: int | None = None
    return_documents: bool = True
    raw_scores: bool = False


def read_body(body: bytes) -> dict[str, Any]:
    """The JSON object of a request. Raises RerankRefused."""
    if len(body) > MOST_BODY_BYTES:
        raise too_large(len(body))
    try:
        value = parse(body)
    except BadJson as error:
        raise RerankRefused(400, f"the body cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise RerankRefused(400, f"the body is a {type(value).__name__}; expected an object with query and documents")
    return value


def too_large(size: int) -> RerankRefused:
    return RerankRefused(
        413, f"the body has {size:,} bytes; expected at most {MOST_BODY_BYTES:,}; send fewer documents per request"
    )


def dialect_of(path: str, body: Mapping[str, Any] | None = None) -> Dialect:
    """Whether the request uses TEI's protocol: TEI and vLLM share the path `/rerank`, but TEI sends `texts`."""
    if not path.rstrip("/").endswith(("/v1/rerank", "/v2/rerank")) and "documents" not in (body or {}):
        return "tei"
    return "rerank"


def model_id(name: str) -> str:
    """The name of a reranker for programs: only lowercase letters, digits, `.`, `_` and `-`."""
    return re.sub(r"[^\w.]+", "-", name.lower()).strip("-.") or "reranker"


def model_named(body: Mapping[str, Any]) -> str:
    """The model name in the body, or "". Raises RerankRefused."""
    model = body.get("model")
    if model is None:
        return ""
    if not isinstance(model, str):
        raise _wrong("model", model, "a reranker's name")
    return model


def read_request(path: str, body: Mapping[str, Any]) -> RerankRequest:
    """The validated request of a body. Raises RerankRefused."""
    dialect = dialect_of(path, body)
    query = body.get("query")
    if not isinstance(query, str):
        raise _wrong("query", query, "a text")
    if not query.strip():
        raise RerankRefused(422, "query is empty; expected a text to rank documents for")
    field = "texts" if dialect == "tei" else "documents"
    documents = _documents(body.get(field), field)
    if dialect == "tei":
        return RerankRequest(
            dialect,
            query,
            documents,
            model=model_named(body),
            return_documents=_flag(body, "return_text", default=False),
            raw_scores=_flag(body, "raw_scores", default=False),
        )
    return RerankRequest(
        dialect,
        query,
        documents,
        model=model_named(body),
        top_n=_count(body, "top_n"),
        return_documents=_flag(body, "return_documents", default=True),
    )


def answer(
    request: RerankRequest, ranked: Sequence[Ranked], *, model: str, tokens: int, cut: int, query_cut: bool
) -> dict[str, Any] | list[dict[str, Any]]:
    """The body of a successful response. `cut`: number of truncated documents."""
    if request.dialect == "tei":
        return [
            {"index": each.index, "score": each.logit if request.raw_scores else each.score}
            | ({"text": request.documents[each.index]} if request.return_documents else {})
            for each in ranked
        ]
    results = [
        {"index": each.index, "relevance_score": each.score}
        | ({"document": {"text": request.documents[each.index]}} if request.return_documents else {})
        for each in ranked
    ]
    warnings = []
    if cut:
        warnings.append(
            f"{cut} of {len(request.documents)} documents exceed the model's maximum length and were truncated"
        )
    if query_cut:
        warnings.append("the query exceeds half of the model's maximum length and was truncated")
    return {
        "id": str(uuid.uuid4()),
        "object": "list",
        "model": model,
        "results": results,
        "usage": {"total_tokens": tokens, "prompt_tokens": tokens},
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": tokens, "output_tokens": 0},
            "truncated_documents": cut,
            "truncated_query": query_cut,
        }
        | ({"warnings": warnings} if warnings else {}),
    }


def error_body(dialect: Dialect, error: RerankRefused) -> dict[str, Any]:
    """The body of a refusal, as the dialect's clients look for it: `message`, `detail`, `error.message`, or TEI's."""
    text = str(error)
    if dialect == "tei":
        return {"error": text, "error_type": _TEI_KINDS.get(error.status, "Backend"), "message": text}
    kind = _KINDS.get(error.status, "server_error")
    return {"message": text, "detail": text, "error": {"message": text, "type": kind, "code": error.status}}


def _documents(value: Any, field: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _wrong(field, value, "a list of texts")
    if not value:
        raise RerankRefused(422, f"{field} is empty; expected at least one text to rank")
    if len(value) > MOST_DOCUMENTS:
        raise RerankRefused(
            422, f"{field} holds {len(value):,} texts; expected at most {MOST_DOCUMENTS:,}; send several requests"
        )
    return tuple(_text(each, f"{field}[{place}]") for place, each in enumerate(value))


def _text(value: Any, field: str) -> str:
    """A text, or an object that holds one under `text`, as Cohere and Jina allow."""
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise _wrong(field, value, 'a text, or an object such as {"text": "..."}')
    return text


def _count(body: Mapping[str, Any], field: str) -> int | None:
    value = body.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(field, value, "a whole number of 1 or more")
    if value < 1:
        raise RerankRefused(422, f"{field} is {value}; expected a whole number of 1 or more")
    return value


def _flag(body: Mapping[str, Any], field: str, *, default: bool) -> bool:
    value = body.get(field)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise _wrong(field, value, "true or false")
    return value


def _wrong(field: str, value: Any, expected: str) -> RerankRefused:
    shown = "missing" if value is None else f"a {type(value).__name__} ({str(value)[:60]!r})"
    return RerankRefused(422, f"{field} is {shown}; expected {expected}")
