"""How real servers differ from the API that they copy: parameters they reject, ignore or name differently, and streams.

Each dialect is a name in a judge's `dialect`. The errors are worded as those servers word them. Used by `server`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.fake_judge.faults import Reply

Request = dict[str, Any]


def _error(status: int, message: str, *, param: str | None = None, code: str | None = None) -> Reply:
    body = {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}
    return Reply(status, json.dumps(body).encode())


def _openai_token_limit(request: Request) -> Reply | None:
    if "max_tokens" not in request:
        return None
    message = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )
    return _error(400, message, param="max_tokens", code="unsupported_parameter")


def _max_tokens_only(request: Request) -> Reply | None:
    if "max_completion_tokens" not in request:
        return None
    return _detail(422, [("max_completion_tokens", "Extra inputs are not permitted")])


def _openai_temperature(request: Request) -> Reply | None:
    if request.get("temperature", 1) == 1:
        return None
    message = (
        f"Unsupported value: 'temperature' does not support {request['temperature']} with this model. "
        "Only the default (1) value is supported."
    )
    return _error(400, message, param="temperature", code="unsupported_value")


def _python_json_object(request: Request) -> Reply | None:
    """llama-cpp-python 0.3: the validation error of a request under status 500, as its error handler formats it."""
    form = (request.get("response_format") or {}).get("type", "text")
    if form in {"text", "json_object"}:
        return None
    message = (
        "1 validation error:\n  {'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), "
        "'msg': \"Input should be 'text' or 'json_object'\", 'input': 'json_schema', "
        "'ctx': {'expected': \"'text' or 'json_object'\"}}"
    )
    body = {"error": {"message": message, "type": "internal_server_error", "param": None, "code": None}}
    return Reply(500, json.dumps(body).encode())


def _no_response_format(request: Request) -> Reply | None:
    return _error(400, "response_format is not supported by this model") if "response_format" in request else None


def _vllm_logprobs(request: Request) -> Reply | None:
    asked = int(request.get("top_logprobs") or 0)
    if asked <= 5:
        return None
    message = f"Requested sample logprobs of {asked}, which is greater than max allowed: 5"
    return Reply(400, json.dumps({"object": "error", "message": message, "code": 400}).encode())


def _fastapi_logprobs(request: Request) -> Reply | None:
    if int(request.get("top_logprobs") or 0) <= 5:
        return None
    return _detail(422, [("top_logprobs", "Input should be less than or equal to 5")])


def _no_logprobs(request: Request) -> Reply | None:
    if not request.get("logprobs"):
        return None
    message = "logprobs is not supported for models created with logits_all=False"
    return Reply(500, json.dumps({"error": {"message": message, "type": "internal_server_error"}}).encode())


def _one_choice(request: Request) -> Reply | None:
    return _error(400, "Only one completion choice is allowed") if int(request.get("n") or 1) > 1 else None


def _no_seed(request: Request) -> Reply | None:
    return _detail(422, [("seed", "Extra inputs are not permitted")]) if "seed" in request else None


def _no_stream(request: Request) -> Reply | None:
    return _error(400, "Unrecognized request argument supplied: stream") if "stream" in request else None


def _unknown_model(request: Request) -> Reply | None:
    message = f"The model `{request['model']}` does not exist or you do not have access to it."
    return _error(404, message, code="model_not_found")


def _python_overflow(request: Request) -> Reply | None:
    message = "could not broadcast input array from shape (32000,) into shape (0,)"
    return Reply(500, json.dumps({"error": {"message": message, "type": "internal_server_error"}}).encode())


def _python_context(request: Request) -> Reply | None:
    message = "Requested tokens (5301) exceed context window of 2048"
    return Reply(500, json.dumps({"error": {"message": message, "type": "internal_server_error"}}).encode())


def _tgi_context(request: Request) -> Reply | None:
    message = "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5301 `inputs` tokens"
    return Reply(422, json.dumps({"error": message, "error_type": "validation"}).encode())


def _other_validation(request: Request) -> Reply | None:
    return _detail(500, [("messages", "List should have at most 1 item after validation")])


def _website(request: Request) -> Reply | None:
    body = b"<!DOCTYPE html><html><title>Welcome to our models</title><body>Sign in</body></html>"
    return Reply(200, body, {"content-type": "text/html"})


def _detail(status: int, rows: list[tuple[str, str]]) -> Reply:
    detail = [
        {"type": "value_error", "loc": ["body", name], "msg": said, "input": "seed stream"} for name, said in rows
    ]
    return Reply(status, json.dumps({"detail": detail}).encode())


REJECTIONS: dict[str, Callable[[Request], Reply | None]] = {
    "openai_token_limit": _openai_token_limit,
    "max_tokens_only": _max_tokens_only,
    "openai_temperature": _openai_temperature,
    "python_json_object": _python_json_object,
    "no_response_format": _no_response_format,
    "vllm_logprobs": _vllm_logprobs,
    "fastapi_logprobs": _fastapi_logprobs,
    "no_logprobs": _no_logprobs,
    "one_choice": _one_choice,
    "no_seed": _no_seed,
    "no_stream": _no_stream,
    "unknown_model": _unknown_model,
    "python_overflow": _python_overflow,
    "python_context": _python_context,
    "tgi_context": _tgi_context,
    "other_validation": _other_validation,
    "website": _website,
}
# These change the request or the reply instead of rejecting it.
OTHERS = {"n_ignored", "streams", "streams_without_type", "streams_and_stops"}


def checked(dialect: list[str]) -> tuple[str, ...]:
    """The names, or ValueError for an unknown one."""
    if unknown := sorted(set(dialect) - set(REJECTIONS) - OTHERS):
        raise ValueError(f"unknown dialects {unknown}; known: {sorted({*REJECTIONS, *OTHERS})}")
    return tuple(dialect)


def rejection(dialect: tuple[str, ...], request: Request) -> tuple[str, Reply] | None:
    """(name, reply) of the first rejection of the request."""
    for name in dialect:
        reply = REJECTIONS[name](request) if name in REJECTIONS else None
        if reply is not None:
            return name, reply
    return None


def understood(dialect: tuple[str, ...], request: Request) -> Request:
    """The request as a server of this dialect reads it."""
    return {**request, "n": 1} if "n_ignored" in dialect else request


def delivered(dialect: tuple[str, ...], answer: dict[str, Any]) -> Reply:
    """The answer, whole or streamed in pieces; `streams_and_stops` ends in the middle."""
    if not any(name.startswith("streams") for name in dialect):
        return Reply(200, json.dumps(answer).encode())
    events = [json.dumps(chunk) for chunk in _chunks(answer)]
    events = events[:2] if "streams_and_stops" in dialect else [*events, "[DONE]"]
    kind = "application/json" if "streams_without_type" in dialect else "text/event-stream; charset=utf-8"
    lines = [": ping", *(f"data: {event}" for event in events)]
    return Reply(200, "".join(f"{line}\r\n\r\n" for line in lines).encode(), {"content-type": kind})


def _chunks(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Chunks of three characters, choice after choice, with log-probabilities beside the first and usage at the end."""
    base = {"id": answer["id"], "object": "chat.completion.chunk", "model": answer["model"]}
    chunks = []
    for choice in answer["choices"]:
        text, index = choice["message"]["content"], choice["index"]
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": text[start : start + 3]} for start in range(0, len(text), 3)]
        for place, delta in enumerate(deltas):
            logprobs = choice["logprobs"] if place == 1 else None
            chunks.append(
                {**base, "choices": [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}]}
            )
        chunks.append({**base, "choices": [{"index": index, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    return [*chunks, {**base, "choices": [], "usage": answer["usage"]}]
