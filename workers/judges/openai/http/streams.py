"""Reads a reply that a server streams although it was asked for a whole one: server-sent events of completion chunks.

`.client` uses it; imports no Django.
"""

from __future__ import annotations

import json
from typing import Any

from workers.judges.openai.reading.bodies.marks import KINDS

# What says whose text a piece is, and in which channel; what `_add` reads itself; what the last event of a body states.
_MARKS = ("role", *KINDS)
_READ = ("index", "delta", "message", "text", "logprobs", "finish_reason")
_OF_BODY = ("id", "model", "system_fingerprint", "provider", "timings", "incomplete_details")
STREAMS = "this endpoint streams although `stream` is false"


class BadStream(Exception):
    """A stream that is incomplete, or not one of completion chunks."""


class StreamError(Exception):
    """A stream that reports an error instead of an answer; `body` is the event."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__("the stream holds an error")
        self.body = body


def is_stream(content_type: str, content: bytes) -> bool:
    """Whether a reply consists of server-sent events, or of JSON objects one after another; a whole object is none, whatever its type says."""
    start = content[:64].lstrip(b"\xef\xbb\xbf\x1e \r\n")
    if start.startswith(b"{"):
        return _is_sequence(content)
    if "text/event-stream" in content_type.lower():
        return True
    return start.startswith((b"data:", b"event:", b": ", b"id:"))


def _is_sequence(content: bytes) -> bool:
    """Whether more objects follow the first one, each on a line of its own."""
    lines = [
        line
        for line in content.decode("utf-8", "replace").lstrip("\ufeff").replace("\x1e", "\n").split("\n")
        if line.strip()
    ]
    try:
        return len(lines) > 1 and all(isinstance(json.loads(line), dict) for line in lines[:2])
    except (ValueError, RecursionError):
        return False


def read_stream(content: bytes) -> dict[str, Any]:
    """The completion that a complete stream adds up to: by choice, all fields of its deltas, each text in its role and channel,
    errors, and every ending that it states.

    Complete is a stream that ends with [DONE] and finishes every choice. Raises BadStream, StreamError.
    """
    events = _events(content)
    while len(events) > 1 and events[-2][1] == events[-1][1] == "[DONE]":  # a gateway adds its own
        events.pop()
    if not events or events[-1][1] != "[DONE]":
        raise BadStream(f"{STREAMS}, and the stream does not end with [DONE]")
    body: dict[str, Any] = {"object": "chat.completion"}
    choices: dict[int, dict[str, Any]] = {}
    for name, data in events[:-1]:
        chunk = _chunk(name, data)
        body |= {name: chunk[name] for name in _OF_BODY if chunk.get(name)}
        if isinstance(chunk.get("usage"), dict):
            body["usage"] = chunk["usage"]
        for row in chunk.get("choices") or []:
            _add(choices, row)
    if not choices or any(choice["finish_reason"] is None for choice in choices.values()):
        raise BadStream(f"{STREAMS}, and the stream ends before its answer does")
    return {**body, "choices": [_whole(choices[index]) for index in sorted(choices)]}


def _events(content: bytes) -> list[tuple[str, str]]:
    """(name, data) of each event; its lines are joined as the standard says."""
    text = content.decode("utf-8", errors="replace").lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    found = []
    for block in text.split("\n\n"):
        rows = block.split("\n")
        lines = [line.removeprefix("data:").removeprefix(" ") for line in rows if line.startswith("data:")]
        names = [line.removeprefix("event:").strip() for line in rows if line.startswith("event:")]
        if data := "\n".join(lines).strip():
            found.append((names[-1] if names else "", data))
    return found


def _chunk(name: str, data: str) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError):
        if name == "error":
            raise StreamError({"error": {"message": data}}) from None
        raise BadStream(f"{STREAMS}, and an event of the stream is not JSON") from None
    if not isinstance(chunk, dict) or not isinstance(chunk.get("choices") or [], list):
        raise BadStream(f"{STREAMS}, and an event of the stream is not a completion chunk")
    if chunk.get("error"):
        raise StreamError(chunk)
    is_error = name == "error" or "error" in (chunk.get("type"), chunk.get("object"))
    if is_error or ("choices" not in chunk and (chunk.get("message") or chunk.get("detail"))):
        raise StreamError({"error": chunk})
    return chunk


def _add(choices: dict[int, dict[str, Any]], row: Any) -> None:
    """Add one delta to its choice."""
    index = row.get("index", 0) if isinstance(row, dict) else None
    delta = (row.get("delta") or {}) if isinstance(row, dict) else None
    if not isinstance(index, int) or not isinstance(delta, dict):
        raise BadStream(f"{STREAMS}, and a choice of the stream has no index or delta")
    choice = choices.setdefault(
        index, {"index": index, "message": {"content": []}, "logprobs": None, "finish_reason": None}
    )
    message = choice["message"]
    # A whole message beside the pieces is one more piece: if it repeats them, the two are equal answers.
    whole = row.get("message")
    for piece in (delta, whole if isinstance(whole, dict) else {}):
        _add_content(choice, {**{name: row[name] for name in _MARKS if row.get(name) is not None}, **piece})
        for name, value in piece.items():
            if name != "content" and name not in _MARKS and value is not None:
                message[name] = _joined(message.get(name), value)
    if isinstance(row.get("text"), str):
        _add_content(choice, {"content": row["text"]})
    _add_logprobs(choice, row.get("logprobs"))
    ending = row.get("finish_reason")
    if ending is not None and choice["finish_reason"] not in (None, ending):
        choice["further_endings"] = [*choice.get("further_endings", []), ending]
    else:
        choice["finish_reason"] = ending if ending is not None else choice["finish_reason"]
    for name, value in row.items():
        if name not in _READ and name not in _MARKS and value is not None:
            choice[name] = value


def _add_content(choice: dict[str, Any], piece: dict[str, Any]) -> None:
    """Add a text or parts under the role and channel that hold from here on: a delta without them continues the last."""
    marks = choice.setdefault("_marks", {})
    marks |= {name: piece[name] for name in _MARKS if piece.get(name) is not None}
    content, parts = piece.get("content"), choice["message"]["content"]
    if isinstance(content, str):
        is_text = bool(parts) and isinstance(parts[-1].get("text"), str)
        if is_text and {name: value for name, value in parts[-1].items() if name != "text"} == marks:
            parts[-1]["text"] += content
        else:
            parts.append({**marks, "text": content})
    elif isinstance(content, list):
        parts += [{**marks, **part} if isinstance(part, dict) else {**marks, "text": part} for part in content]
    elif content is not None:
        raise BadStream(f"{STREAMS}, and the content of a delta is neither text nor a list of parts")


def _joined(before: Any, value: Any) -> Any:
    """A field of a message with one more piece: texts and lists grow, other values are replaced."""
    if isinstance(before, str) and isinstance(value, str):
        return before + value
    if isinstance(before, list) and isinstance(value, list):
        return before + value
    return before if before and not value else value


def _add_logprobs(choice: dict[str, Any], logprobs: Any) -> None:
    """Add the positions of one event, in the shape of chat completions or of legacy completions."""
    if not isinstance(logprobs, dict):
        return
    choice["logprobs"] = choice["logprobs"] or {}
    for name, rows in logprobs.items():
        if isinstance(rows, list):
            choice["logprobs"][name] = choice["logprobs"].get(name, []) + rows


def _whole(choice: dict[str, Any]) -> dict[str, Any]:
    """The choice as a reply that is not streamed has it: plain text where it is all in one role and channel."""
    message = choice["message"]
    choice.pop("_marks", None)
    parts = message["content"]
    if len(parts) == 1 and set(parts[0]) <= {"text", *_MARKS} and isinstance(parts[0].get("text"), str):
        [part] = parts
        message |= {**part, "content": part["text"]}
        message.pop("text")
    elif not parts:
        message["content"] = None
    message.setdefault("role", "assistant")
    return choice
