"""Reads a reply that a server streams although it was asked for a whole one: server-sent events of completion chunks.

`.client` uses it; imports no Django.
"""

from __future__ import annotations

import json
from typing import Any

STREAMS = "this endpoint streams although `stream` is false"


class BadStream(Exception):
    """A stream that is incomplete, or not one of completion chunks."""


class StreamError(Exception):
    """A stream that reports an error instead of an answer; `body` is the event."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__("the stream holds an error")
        self.body = body


def is_stream(content_type: str, content: bytes) -> bool:
    """Whether a reply consists of server-sent events."""
    if "text/event-stream" in content_type.lower():
        return True
    start = content[:64].lstrip(b"\xef\xbb\xbf \r\n")
    return start.startswith((b"data:", b"event:", b": ", b"id:"))


def read_stream(content: bytes) -> dict[str, Any]:
    """The completion that a complete stream adds up to: deltas of content, reasoning and log-probabilities by choice.

    Complete is a stream that ends with [DONE] and finishes every choice. Raises BadStream, StreamError.
    """
    events = _events(content)
    if not events or events[-1] != "[DONE]":
        raise BadStream(f"{STREAMS}, and the stream does not end with [DONE]")
    body: dict[str, Any] = {"object": "chat.completion"}
    choices: dict[int, dict[str, Any]] = {}
    for event in events[:-1]:
        chunk = _chunk(event)
        body |= {name: chunk[name] for name in ("id", "model", "system_fingerprint") if chunk.get(name)}
        if isinstance(chunk.get("usage"), dict):
            body["usage"] = chunk["usage"]
        for row in chunk.get("choices") or []:
            _add(choices, row)
    if not choices or any(choice["finish_reason"] is None for choice in choices.values()):
        raise BadStream(f"{STREAMS}, and the stream ends before its answer does")
    return {**body, "choices": [choices[index] for index in sorted(choices)]}


def _events(content: bytes) -> list[str]:
    """The data of each event; its lines are joined as the standard says."""
    text = content.decode("utf-8", errors="replace").lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    found = []
    for block in text.split("\n\n"):
        lines = [line.removeprefix("data:").removeprefix(" ") for line in block.split("\n") if line.startswith("data:")]
        if data := "\n".join(lines).strip():
            found.append(data)
    return found


def _chunk(event: str) -> dict[str, Any]:
    try:
        chunk = json.loads(event)
    except (ValueError, RecursionError):
        raise BadStream(f"{STREAMS}, and an event of the stream is not JSON") from None
    if not isinstance(chunk, dict) or not isinstance(chunk.get("choices") or [], list):
        raise BadStream(f"{STREAMS}, and an event of the stream is no completion chunk")
    if chunk.get("error"):
        raise StreamError(chunk)
    return chunk


def _add(choices: dict[int, dict[str, Any]], row: Any) -> None:
    """Add one delta to its choice."""
    index = row.get("index", 0) if isinstance(row, dict) else None
    delta = (row.get("delta") or {}) if isinstance(row, dict) else None
    if not isinstance(index, int) or not isinstance(delta, dict):
        raise BadStream(f"{STREAMS}, and a choice of the stream has no index or delta")
    choice = choices.setdefault(
        index,
        {"index": index, "message": {"role": "assistant", "content": None}, "logprobs": None, "finish_reason": None},
    )
    for name in ("content", "reasoning", "reasoning_content", "refusal"):
        if isinstance(delta.get(name), str):
            choice["message"][name] = (choice["message"].get(name) or "") + delta[name]
    logprobs = row.get("logprobs")
    if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
        choice["logprobs"] = choice["logprobs"] or {"content": []}
        choice["logprobs"]["content"] += logprobs["content"]
    choice["finish_reason"] = row.get("finish_reason") or choice["finish_reason"]
