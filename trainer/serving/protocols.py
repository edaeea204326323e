"""Parses requests and builds responses of the rerank protocols over HTTP, as pure functions.

Requests with `documents` are those of Cohere, Jina, Voyage, vLLM and llama.cpp clients and get one response that all of them
read; requests with `texts` are TEI's. Neighbours: `score_protocol` (vLLM's `/score`), `embedding_protocol`. The serving process and the web proxy share this module, so errors look the same in both.
Imports no Django.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from labeling.importing.strict_json import BadJson, NotJson, parse_repaired, printable
from labeling.stored_texts import counted
from trainer.serving.addresses import EMBED, HEALTH, INFO, METHODS, allows, normal
from trainer.serving.loading import Ranked

Dialect = Literal["rerank", "tei"]

TEI_PATHS = ("/rerank", "/v1/rerank", "/reranking", "/v1/reranking")  # llama.cpp takes TEI's form at each of them
MOST_BODY_BYTES = 32 * 1024 * 1024
MOST_DOCUMENTS = 10_000
INSTRUCTION = "instruction"
EXPECTED_BODY = "expected one JSON object, in UTF-8"
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "overloaded_error",
}
_COMMON_FIELDS = (
    "model", "truncate", "truncation", "truncation_direction", "truncation_side", "truncate_prompt_tokens", "return_embeddings",
    "raw_scores", "use_activation", "activation", "softmax",
)  # fmt: skip
_TEI_KINDS = {
    401: "Unauthenticated",
    404: "NotFound",
    400: "Validation",
    405: "Validation",
    413: "Validation",
    415: "Validation",
    422: "Validation",
    429: "Overloaded",
}


class RerankRefused(ValueError):
    """The request is refused with the HTTP status `status`; `retry_after_s` says when to retry, `allow` which method to use."""

    def __init__(self, status: int, message: str, *, retry_after_s: int | None = None, allow: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.allow = allow
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """One validated request. `model` is empty if the request names none; `top_n` None returns all documents.

    `document_tokens` shortens each document before ranking; without `truncate`, texts beyond the model's maximum length are
    refused. `as_voyage` adds the results under `data`. `instruction` says what is relevant. `warnings` says what was not used or was repaired.
    """

    dialect: Dialect
    query: str
    documents: tuple[str, ...]
    model: str = ""
    top_n: int | None = None
    return_documents: bool = False
    raw_scores: bool = False
    truncate: bool = True
    document_tokens: int | None = None
    as_voyage: bool = False
    warnings: tuple[str, ...] = ()
    instruction: str = ""


def read_body(body: bytes) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The JSON object of a request with bad characters replaced, and warnings that say so. Raises RerankRefused."""
    if len(body) > MOST_BODY_BYTES:
        raise too_large(len(body))
    try:
        value, repaired = parse_repaired(body)
    except BadJson as error:  # its remedy is for files
        told = "is" if isinstance(error, NotJson) else "cannot be read:"
        raise RerankRefused(400, f"the body {told} {error.problem}; {EXPECTED_BODY}") from error
    if not isinstance(value, dict):
        raise RerankRefused(400, f"the body is {_called(value, in_list=True)}; {EXPECTED_BODY}")
    told = "characters that are not text (NUL, half a surrogate, bytes that are not UTF-8) were replaced"
    return value, (told,) if repaired else ()


def too_large(size: int) -> RerankRefused:
    return RerankRefused(
        413, f"the body has {size:,} bytes; expected at most {MOST_BODY_BYTES:,}; send fewer documents per request"
    )


def check_method(path: str, method: str) -> None:
    """Raise RerankRefused for a method that an address does not take."""
    if not allows(path, method):
        raise RerankRefused(405, f"{path} takes {METHODS[path]}, not {printable(method, 20)}", allow=METHODS[path])


def check_encoding(encoding: str) -> None:
    """Raise RerankRefused for a body that is compressed."""
    if encoding.strip().lower() not in ("", "identity"):
        raise RerankRefused(
            415, f"the body has the Content-Encoding {printable(encoding, 40)}; expected none; send it uncompressed"
        )


def dialect_of(path: str, body: Mapping[str, Any] | None = None) -> Dialect:
    """Whether the request uses TEI's protocol: it sends `texts` where the others send `documents`.

    `/rerank` without either is taken for TEI's; `/v2/rerank` and `/score` never are.
    """
    fields, address = body or {}, normal(path)
    if address in (EMBED, INFO, HEALTH):
        return "tei"
    if address not in TEI_PATHS or "documents" in fields:
        return "rerank"
    return "tei" if "texts" in fields or address == "/rerank" else "rerank"


def model_id(name: str) -> str:
    """The name of a reranker for programs: only lowercase letters, digits, `.`, `_` and `-`."""
    return re.sub(r"[^\w.]+", "-", name.lower()).strip("-.") or "reranker"


def model_entry(listed: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """The entry of a list of models that requests may call `name`: its id, or its own name if that is the only one. Raises RerankRefused."""
    project, _, own = name.rpartition("/")
    ids = {each["id"]: each for each in listed}
    called = [
        each
        for given, each in ids.items()
        if given.rpartition("/")[2] == model_id(own) and project in ("", given.rpartition("/")[0])
    ]
    if name in ids or len(called) == 1:
        return ids.get(name) or called[0]
    known = ", ".join(each["id"] for each in listed[:20]) or "none"
    raise RerankRefused(404, f"no model has the id {name[:200]!r}; those that the key may use: {known}")


def model_named(body: Mapping[str, Any]) -> str:
    """The model name in the body, or "". Raises RerankRefused."""
    model = body.get("model")
    if model is None:
        return ""
    if not isinstance(model, str):
        raise wrong("model", model, "a reranker's name")
    return model


def instruction_named(body: Mapping[str, Any]) -> str:
    """The instruction in the body, or "". Raises RerankRefused."""
    value = body.get(INSTRUCTION)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise wrong(INSTRUCTION, value, "a text that says which documents are relevant")
    return value


def read_request(path: str, body: Mapping[str, Any], warnings: tuple[str, ...] = ()) -> RerankRequest:
    """The validated request of a body. `warnings` go in front of its own. Raises RerankRefused."""
    dialect = dialect_of(path, body)
    query = text_of(body.get("query"), "query")
    if not query.strip():
        raise RerankRefused(422, "query is empty; expected a text to rank documents for")
    field, returning = ("texts", "return_text") if dialect == "tei" else ("documents", "return_documents")
    as_voyage = dialect == "rerank" and bool(body.keys() & {"top_k", "truncation"})
    by_default = dialect == "rerank" and normal(path) == "/rerank" and not as_voyage
    fields = _rank_fields(body) if dialect == "rerank" else ()
    documents = _documents(body.get(field), field, fields)
    used = {field, returning, "query", "top_n", "top_k", "max_tokens_per_doc", INSTRUCTION} | (
        {"rank_fields"} if fields else set()
    )
    if fields and not any(isinstance(each, dict) for each in body[field]):
        warnings = (*warnings, "rank_fields is not used: the documents are texts, not objects")
    return RerankRequest(
        dialect,
        query,
        documents,
        model=model_named(body),
        top_n=_top(body),
        return_documents=_flag(body, returning, default=by_default),
        raw_scores=raw_scores(body),
        truncate=truncates(body),
        document_tokens=count(body, "max_tokens_per_doc", least=1),
        as_voyage=as_voyage,
        warnings=(*warnings, *unused(body, used)),
        instruction=instruction_named(body),
    )


def truncates(body: Mapping[str, Any]) -> bool:
    """Whether long texts may be truncated. Raises RerankRefused for a way of truncating that is not offered."""
    for name in ("truncation_direction", "truncation_side"):
        direction = body.get(name)
        if direction is not None and str(direction).lower() != "right":
            raise wrong(name, direction, "right: texts are truncated at their end")
    most = body.get("truncate_prompt_tokens")
    if most is not None and most != -1:
        raise wrong("truncate_prompt_tokens", most, "-1 (the model's maximum); use max_tokens_per_doc")
    if _flag(body, "return_embeddings", default=False):
        raise RerankRefused(
            422, "return_embeddings is true; expected false; use /v1/embeddings with an embedding student"
        )
    tei, voyage = _flag(body, "truncate", default=True), _flag(body, "truncation", default=True)
    return tei and voyage


def raw_scores(body: Mapping[str, Any]) -> bool:
    """Whether logits are asked for: TEI's `raw_scores`, or vLLM's `use_activation: false`, whose old names still work."""
    activated = [_flag(body, name, default=True) for name in ("use_activation", "activation", "softmax")]
    return _flag(body, "raw_scores", default=False) or not all(activated)


def unused(body: Mapping[str, Any], used: Collection[str]) -> tuple[str, ...]:
    """A warning for each field of a body with a value that nothing reads."""
    known = {*used, *_COMMON_FIELDS}
    return tuple(
        f"{printable(name)} is not used" for name in sorted(body) if name not in known and body[name] is not None
    )


def answer(
    request: RerankRequest, ranked: Sequence[Ranked], *, model: str, tokens: int, cut: int, query_cut: bool
) -> dict[str, Any] | list[dict[str, Any]]:
    """The body of a successful response. `cut`: number of truncated documents."""
    scores = {each.index: each.logit if request.raw_scores else each.score for each in ranked}
    texts = {row: request.documents[row] for row in scores} if request.return_documents else {}
    if request.dialect == "tei":
        return [
            {"index": row, "score": score} | ({"text": texts[row]} if texts else {}) for row, score in scores.items()
        ]
    rows = [(row, {"index": row, "relevance_score": score}) for row, score in scores.items()]
    results = [found | ({"document": {"text": texts[row]}} if texts else {}) for row, found in rows]
    data = [found | ({"document": texts[row]} if texts else {}) for row, found in rows]
    return {
        "id": str(uuid.uuid4()),
        "object": "list",
        "model": model,
        "results": results,
        **({"data": data} if request.as_voyage else {}),
        "usage": {"total_tokens": tokens, "prompt_tokens": tokens},
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": tokens, "output_tokens": 0},
            **truncation(request.warnings, cut=cut, query_cut=query_cut),
        },
    }


def truncation(warnings: Sequence[str], *, cut: int, query_cut: bool) -> dict[str, Any]:
    """The part of `meta` that counts truncated texts and lists all warnings."""
    listed = {"warnings": list(warnings)} if warnings else {}
    return {"truncated_documents": cut, "truncated_query": query_cut, **listed}


def warnings_of_truncation(texts: int, *, cut: int, query_cut: bool, query_tokens: int) -> tuple[str, ...]:
    """Warnings about truncated texts, `cut` of `texts`, and about the query, which keeps at most `query_tokens`."""
    verbs = ("exceeds", "was") if cut == 1 else ("exceed", "were")
    found = (
        [f"{cut:,} of {counted(texts, 'text')} {verbs[0]} the model's maximum length and {verbs[1]} truncated"]
        if cut
        else []
    )
    if query_cut:
        found.append(
            f"the query exceeds {query_tokens:,} tokens, the most that the model reads of it, and was truncated"
        )
    return tuple(found)


def check_lengths(*, truncate: bool, cut: int, query_cut: bool, longest: int, query_tokens: int) -> None:
    """Raise RerankRefused if texts were truncated and the request forbids it. `longest`: the model's maximum in tokens."""
    if not truncate and (cut or query_cut):
        which = [f"{cut:,} text{'s' * (cut != 1)}"] * bool(cut) + ["the query"] * query_cut
        most = f", of which the query may have {query_tokens:,}" if query_cut else ""
        raise RerankRefused(
            422,
            f"{' and '.join(which)} would be truncated: the model takes {longest:,} tokens{most}; send shorter texts, or allow "
            "truncation",
        )


def error_body(dialect: Dialect, error: RerankRefused) -> dict[str, Any]:
    """The body of a refusal, as the dialect's clients look for it: `message`, `detail`, `error.message`, or TEI's."""
    text = str(error)
    if dialect == "tei":
        return {"error": text, "error_type": _TEI_KINDS.get(error.status, "Backend"), "message": text}
    kind = _KINDS.get(error.status, "server_error")
    return {"message": text, "detail": text, "error": {"message": text, "type": kind, "code": error.status}}


def error_headers(error: RerankRefused) -> dict[str, str]:
    """The headers that HTTP asks for beside a refusal."""
    found = {}
    if error.retry_after_s:
        found["retry-after"] = str(error.retry_after_s)
    if error.status == 401:
        found["www-authenticate"] = "Bearer"
    if error.status == 415:
        found["accept-encoding"] = "identity"
    if error.allow:
        found["allow"] = "GET, HEAD" if error.allow == "GET" else error.allow
    return found


def _rank_fields(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of Cohere's `rank_fields`, in the order in which their values are ranked."""
    value = body.get("rank_fields")
    if value is None:
        return ()
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise wrong("rank_fields", value, "a list of the names of fields")
    return tuple(value)


def _documents(value: Any, field: str, fields: Sequence[str] = ()) -> tuple[str, ...]:
    return tuple(_document(each, f"{field}[{place}]", fields) for place, each in enumerate(several(value, field)))


def several(value: Any, field: str) -> list[Any]:
    """A list of 1 to MOST_DOCUMENTS values. Raises RerankRefused."""
    if not isinstance(value, list):
        raise wrong(field, value, "a list of texts")
    if not value:
        raise RerankRefused(422, f"{field} is empty; expected at least one text to rank")
    if len(value) > MOST_DOCUMENTS:
        raise RerankRefused(
            422, f"{field} holds {len(value):,} texts; expected at most {MOST_DOCUMENTS:,}; send several requests"
        )
    return value


def _document(value: Any, field: str, fields: Sequence[str]) -> str:
    """The text of a document; of an object, the values of `fields` one below the other, or else its `text`."""
    if not fields or not isinstance(value, dict):
        return text_of(value, field)
    found = [value[name] for name in fields if isinstance(value.get(name), str | int | float)]
    if not found:
        raise RerankRefused(422, f"{field} has none of the rank_fields {', '.join(map(printable, fields))}")
    return "\n".join(each if isinstance(each, str) else json.dumps(each) for each in found)


def text_of(value: Any, field: str) -> str:
    """A text, or an object that holds one under `text`, as Cohere and Jina allow. Raises RerankRefused."""
    text = value.get("text") if isinstance(value, dict) else value
    if isinstance(value, dict) and "text" in value and not isinstance(text, str):
        raise RerankRefused(422, f"{field}.text is {_called(text, in_list=True)}; expected a text")
    if not isinstance(text, str):
        raise wrong(field, value, 'a text, or an object such as {"text": "..."}')
    return text


def _top(body: Mapping[str, Any]) -> int | None:
    """The number of documents to return, from `top_n` or Voyage's `top_k`; 0 is all, as in vLLM."""
    asked = {found for name in ("top_n", "top_k") if (found := count(body, name, least=0)) is not None}
    if len(asked) > 1:
        raise RerankRefused(422, f"top_n is {body['top_n']} and top_k is {body['top_k']}; expected one of them")
    return (asked.pop() or None) if asked else None


def count(body: Mapping[str, Any], field: str, *, least: int) -> int | None:
    """The whole number in a field, or None. Raises RerankRefused."""
    value = body.get(field)
    if value is None:
        return None
    if isinstance(value, float) and value.is_integer():  # as programs in R and Lua write 2
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(field, value, f"a whole number of {least} or more")
    if value < least:
        raise RerankRefused(422, f"{field} is {value}; expected a whole number of {least} or more")
    return value


def _flag(body: Mapping[str, Any], field: str, *, default: bool) -> bool:
    value = body.get(field)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise wrong(field, value, "true or false")
    return value


def wrong(field: str, value: Any, expected: str) -> RerankRefused:
    """A refusal that says what a field is and what was expected, in the words of JSON."""
    return RerankRefused(422, f"{field} is {_called(value, in_list=field.endswith(']'))}; expected {expected}")


def _called(value: Any, *, in_list: bool = False) -> str:
    if value is None:
        return "null" if in_list else "missing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, dict):
        names = ", ".join(map(printable, list(value)[:5]))
        return f"an object with {names}" if names else "an empty object"
    return f"the number {str(value)[:60]}"
