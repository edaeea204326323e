"""Replies in a server's own shape, as the choices of a chat completion.

Shapes with details of their own (Gemini, Anthropic, OpenAI's Responses, TGI, llama.cpp, SGLang, Ollama) have a branch each. Any other is
read where one path leads to one text beside the reason for its end, as in the bodies of Bedrock, Watsonx, DashScope or Cohere. Imports
no Django.
"""

from __future__ import annotations

from typing import Any

from workers.judges.openai.reading.bodies.marks import is_final_part

Choice = dict[str, Any]

ENDINGS = ("finish_reason", "finishReason", "stop_reason", "stopReason", "stop_type", "completionReason", "done_reason")
# Fields that hold the generated texts, and fields that are one; each may be both, as `output` of some servers is.
_HOLDERS = (
    *("choices", "outputs", "results", "generations", "completions", "predictions"),
    *("output", "result", "data", "response", "message"),
)
_TEXTS = (
    *("text", "outputText", "generated_text", "generation", "completion", "text_output", "content"),
    *("output", "result", "response"),
)
MOST_LEVELS = 5


def native_choices(body: dict[str, Any]) -> list[Choice] | None:
    """One server's own shape as choices, None if it is none that can be read."""
    if isinstance(body.get("candidates"), list):  # Gemini
        return [
            {"message": {"content": each.get("content")}, "finish_reason": each.get("finishReason"),
             "logprobs": each.get("logprobsResult")}
            for each in body["candidates"] if isinstance(each, dict)
        ]  # fmt: skip
    if isinstance(body.get("output"), list) and any(
        isinstance(item, dict) for item in body["output"]
    ):  # OpenAI's Responses
        return [_of_items([item for item in body["output"] if isinstance(item, dict)], body)]
    if body.get("type") == "message":  # Anthropic
        return [{"message": body, "finish_reason": body.get("stop_reason") or "unfinished"}]
    if isinstance(body.get("generated_text"), str) and not any(body.get(name) for name in ENDINGS):  # TGI
        details = body.get("details")
        details = details if isinstance(details, dict) else {}
        return [{"text": body["generated_text"], "finish_reason": details.get("finish_reason"), "logprobs": details}]
    if isinstance(body.get("content"), str) and "stop_type" in body:  # llama.cpp's /completion
        stopped = {"eos": "stop", "word": "stop", "limit": "length"}.get(str(body["stop_type"]), "unfinished")
        return [{"text": body["content"], "finish_reason": stopped, "logprobs": body.get("completion_probabilities")}]
    if isinstance(body.get("text"), str) and isinstance(body.get("meta_info"), dict):  # SGLang's /generate
        return [{"text": body["text"], "finish_reason": body["meta_info"].get("finish_reason") or "unfinished"}]
    message = body.get("message")
    if isinstance(message, str | dict) or isinstance(body.get("response"), str):  # Ollama, Cohere
        return [_of_ollama(message, body)]
    return _one_path(body, [], MOST_LEVELS)


def _of_ollama(message: Any, body: dict[str, Any]) -> Choice:
    ending = body.get("done_reason") if body.get("done", True) else "unfinished"
    shown = (
        message if isinstance(message, dict) else {"content": body.get("response"), "thinking": body.get("thinking")}
    )
    further = [body[name] for name in ENDINGS if body.get(name)]
    return {"message": shown, "finish_reason": ending, "logprobs": body.get("logprobs"), "further_endings": further}


def _one_path(body: dict[str, Any], endings: list[Any], levels: int) -> list[Choice] | None:
    """The choices to which the only holder, or the only text, of each level leads; None without a stated end."""
    if body.get("errors") or body.get("error"):
        return None
    endings = endings + [body[name] for name in (*ENDINGS, "status") if isinstance(body.get(name), str | dict)]
    endings += ["incomplete" for name in ("is_truncated", "truncated") if body.get(name) is True]
    texts = [name for name in _TEXTS if isinstance(body.get(name), str)]
    holders = [name for name in _HOLDERS if isinstance(body.get(name), list | dict) and body[name]]
    if isinstance(body.get("content"), list):  # a message of parts
        return [{"message": body, "finish_reason": None, "further_endings": endings}] if endings else None
    if len(texts) + len(holders) != 1 or levels == 0:
        return None
    if texts:
        message = {**body, "content": body[texts[0]]}
        return [{"message": message, "finish_reason": None, "further_endings": endings}] if endings else None
    held = body[holders[0]]
    rows = held if isinstance(held, list) else [held]
    if all(isinstance(row, str) for row in rows):  # pieces of one text
        message = {"content": "".join(rows)}
        return [{"message": message, "finish_reason": None, "further_endings": endings}] if endings else None
    if not all(isinstance(row, dict) for row in rows):
        return None
    found = [_one_path(row, endings, levels - 1) for row in rows]
    return None if any(each is None for each in found) else [choice for each in found for choice in each or ()]


def _of_items(items: list[dict[str, Any]], body: dict[str, Any]) -> Choice:
    """The choice that the output items of OpenAI's Responses add up to. An item that is not complete ends it as that."""
    calls = [item for item in items if str(item.get("type", "")).endswith("_call")]
    endings = [item.get("status") for item in items if item.get("type") == "message"]
    details = body.get("incomplete_details")
    rows = [
        row
        for item in items
        for part in _parts_of_item(item)
        if isinstance(part, dict) and is_final_part(part) and isinstance(part.get("logprobs"), list)
        for row in part["logprobs"]
    ]
    return {
        "logprobs": rows or None,
        "message": {"content": [part for item in items for part in _parts_of_item(item)], "tool_calls": calls},
        "finish_reason": body.get("status"),
        "finish_details": details.get("reason") if isinstance(details, dict) else None,
        "incomplete_details": details,
        "further_endings": endings,
    }


def _parts_of_item(item: dict[str, Any]) -> list[Any]:
    """The parts of an item, each with the item's own phase, channel and role; an item that is no message is one part."""
    content = item.get("content")
    if item.get("type") != "message":
        return [item]
    content = [{"text": content}] if isinstance(content, str) else content if isinstance(content, list) else []
    marks = {name: item[name] for name in ("phase", "channel", "role") if item.get(name) is not None}
    return [{**marks, **part} if isinstance(part, dict) else {**marks, "text": part} for part in content]
