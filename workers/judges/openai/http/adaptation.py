"""Changes requests so that an endpoint accepts them, by what its rejections said: see `workers.endpoints.learned`.

Pure functions of a request, a rejection and what was learned before; the judge `openai-http` uses them. Imports no Django.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from workers.endpoints.learned import FORMATS, Learned
from workers.judges.openai.http.statuses import Rejection, stated_floor, stated_limit

TOKEN_LIMITS = ("max_tokens", "max_completion_tokens")
SYSTEM = "system"  # the role: templates such as Gemma's have none
OMITTABLE = ("temperature", "seed", "stream", SYSTEM)
# One request may be rejected for several parameters in turn.
MOST_CHANGES = 6
FEWEST_ALTERNATIVES = 2
# A floor above this is no matter of a label or a vote: it would multiply what a call costs.
MOST_FLOOR = 64


def adapted(request: Mapping[str, Any], learned: Learned) -> dict[str, Any]:
    """The request as this endpoint accepts it."""
    body = {name: value for name, value in request.items() if name not in learned.omitted}
    if SYSTEM in learned.omitted:
        body["messages"] = _without_system(body["messages"])
    if learned.token_limit_field:
        for name in TOKEN_LIMITS:
            if name in body and name != learned.token_limit_field:
                body[learned.token_limit_field] = body.pop(name)
    for name in TOKEN_LIMITS:
        if name in body:
            body[name] = max(body[name], learned.least_tokens)
    if learned.response_format and "response_format" in body:
        asked = body["response_format"]["type"]
        if FORMATS.index(learned.response_format) > FORMATS.index(asked):
            body.pop("response_format")
            if learned.response_format == "json_object":
                body["response_format"] = {"type": "json_object"}
    if learned.most_top_logprobs and "top_logprobs" in body:
        body["top_logprobs"] = min(body["top_logprobs"], learned.most_top_logprobs)
    if learned.n == "ignored":
        body.pop("n", None)
    return body


def _without_system(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with the system's text at the beginning of the user's."""
    system = [each["content"] for each in messages if each["role"] == SYSTEM]
    first, *others = (each for each in messages if each["role"] != SYSTEM)
    return [{**first, "content": "\n\n".join([*system, first["content"]])}, *others]


def lesson(request: Mapping[str, Any], rejection: Rejection) -> Learned | None:
    """The change of the request that a rejection calls for; None if no change can help."""
    change = Learned()
    for name in _named(request, rejection):
        change = _one(change, name, request, rejection.text)
    return change if change != Learned() else None


def _named(request: Mapping[str, Any], rejection: Rejection) -> list[str]:
    """The parameters of the request that the rejection is about. Where the text alone names several, as in "use
    max_completion_tokens instead of max_tokens", the request holds only those that can be changed.
    """
    aliases = {"json_schema": "response_format", "json_object": "response_format", "top_n_tokens": "top_logprobs"}
    if "max_output_tokens" in rejection.parameters:  # the name of OpenAI's Responses, behind some chat completions
        aliases["max_output_tokens"] = next((name for name in TOKEN_LIMITS if name in request), "")
    named = dict.fromkeys(aliases.get(name, name) for name in rejection.parameters)
    has_system = any(each["role"] == SYSTEM for each in request.get("messages", []))
    return [name for name in named if name in request or (name == SYSTEM and has_system)]


def _one(change: Learned, name: str, request: Mapping[str, Any], text: str) -> Learned:
    if name in TOKEN_LIMITS and (floor := stated_floor(text)) is not None and request[name] < floor:
        return replace(change, least_tokens=floor) if floor <= MOST_FLOOR else change
    if name in TOKEN_LIMITS and not _is_too_large(text):
        return replace(change, token_limit_field=TOKEN_LIMITS[1 - TOKEN_LIMITS.index(name)])
    if name in OMITTABLE:
        return replace(change, omitted=change.omitted | {name})
    if name == "response_format":
        asked = FORMATS.index(request["response_format"]["type"])
        return replace(change, response_format=FORMATS[asked + 1])
    if name == "n":
        return replace(change, n="ignored")
    if name in ("logprobs", "top_logprobs"):
        most = stated_limit(text)
        if most is not None and FEWEST_ALTERNATIVES <= most < request.get("top_logprobs", 0):
            return replace(change, most_top_logprobs=most)
    return change


def _is_too_large(text: str) -> bool:
    """Whether the endpoint knows the parameter, and only its value is too large."""
    return "too large" in text.lower() or (stated_limit(text) is not None and "instead" not in text.lower())
