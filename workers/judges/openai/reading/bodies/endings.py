"""The end of a choice: complete, cut off, filtered, broken off, or with the call of a tool. Imports no Django."""

from __future__ import annotations

import re
from typing import Any

from labeling.records import FailureKind
from workers.judges.openai.reading.bodies.marks import UNFINISHED, holds_text, message_of
from workers.judges.openai.reading.failures import Asked, Cause, NoAnswer, storable

Choice = dict[str, Any]

_FINISHED = {
    *(
        "",
        "stop",
        "eos",
        "eostoken",
        "stopsequence",
        "endturn",
        "endofturn",
        "finishreasonstop",
        "completed",
        "complete",
    ),
    *(
        "finish",
        "normal",
        "endoftext",
        "done",
        "end",
        "finished",
        "eosfound",
        "stopstringfound",
        "stopword",
        "success",
        "succeeded",
        "ok",
    ),
}
_CUT = re.compile(r"length|max|token|limit|truncat|context|incomplete|unfinished|pause")
_FILTERED = re.compile(r"filter|safety|recitation|blocklist|prohibited|spii|guardrail|sensitive|moderation|language")
_TOOL = re.compile(r"tool|function")
_TOOL_FIELDS = ("tool_calls", "function_call", "tool_call", "functionCall")
_TOOL_PARTS = {"tool_use", "tool_call", "function_call", "toolUse", "tool-call"}
_UNFINISHED_FIELDS = ("is_finished", "finished", "is_complete", "complete", "done")
_BROKEN = re.compile(r"error|abort|cancel|fail|insufficient|overload|load|malformed|userstopped|disconnect")


def check_ending(choice: Choice, asked: Asked, text: str, *, may_be_cut: bool = False) -> None:
    """Raise NoAnswer unless the choice ended by itself, without a call of a tool. `may_be_cut`: a limit of tokens is no failure (a label)."""
    message = choice.get("message")
    errors = [each.get("error") for each in (choice, message) if isinstance(each, dict)]
    if error := next((each for each in errors if each and not isinstance(each, bool)), None):
        raise asked.broken(Cause.BROKEN_OFF, f"the server broke off: {asked.shown(str(error))}")
    for reason in _endings(choice):
        word = re.sub(r"[^a-z]", "", reason.lower())
        if word == "refusal":
            raise asked.refused(text)
        if word in _FINISHED and (word or not reason.strip()):
            continue
        if _FILTERED.search(word):
            message = "the provider's content filter withheld the answer"
            raise NoAnswer(FailureKind.CONTENT_FILTER, message, retryable=False, cause=Cause.FILTERED)
        if _TOOL.search(word):
            raise _tool_call(asked)
        if _BROKEN.search(word):
            raise asked.broken(Cause.BROKEN_OFF, f"the server broke off with finish_reason {storable(reason)[:40]!r}")
        if not _CUT.search(word):
            message = f"the answer ended for an unknown reason: finish_reason {storable(reason)[:40]!r}"
            raise asked.unreadable(Cause.UNKNOWN_ENDING, message)
        if not may_be_cut:
            raise asked.cut_off(text)
    if calls_tool(message_of(choice)):
        raise _tool_call(asked)


def _endings(choice: Choice) -> list[str]:
    """The reasons that a choice states for its end. vLLM's `stop_reason` beside `finish_reason` is a text or token, no reason."""
    stated = [choice.get(name) for name in ("finish_reason", "native_finish_reason", "done_reason", "finish_details")]
    message = choice.get("message")
    stated += [each.get("status") for each in (choice, message) if isinstance(each, dict)]
    further = choice.get("further_endings")
    stated += further if isinstance(further, list) else [further]
    if "finish_reason" not in choice:
        stated.append(choice.get("stop_reason"))
    elif choice.get("stop_reason") in ("max_tokens", "length", "refusal"):
        stated.append(choice["stop_reason"])
    flags = [each.get(name) for each in (choice, message) if isinstance(each, dict) for name in UNFINISHED]
    if choice.get("incomplete_details") or True in flags:
        stated.append("incomplete")
    if any(choice.get(name) is False for name in _UNFINISHED_FIELDS):
        stated.append("unfinished")
    if _is_filtered(choice.get("content_filter_results")):
        stated.append("content_filter")
    typed = [each.get("type", each.get("reason")) if isinstance(each, dict) else each for each in stated]
    return [reason if isinstance(reason, str) else repr(reason) for reason in typed if reason is not None]


def _is_filtered(results: Any) -> bool:
    """Whether Azure's marks of a choice say that its content was withheld."""
    return isinstance(results, dict) and any(
        isinstance(each, dict) and each.get("filtered") is True for each in results.values()
    )


def body_endings(body: dict[str, Any]) -> list[str]:
    """The statements of a body about the end of all its choices, unless they are simply "completed"."""
    stated = [body[name] for name in ("status", "state") if isinstance(body.get(name), str)]
    if any(body.get(name) for name in ("incomplete_details", *UNFINISHED)):
        stated.append("incomplete")
    if any(body.get(name) is False for name in _UNFINISHED_FIELDS):
        stated.append("unfinished")
    return [reason for reason in stated if re.sub(r"[^a-z]", "", reason.lower()) not in _FINISHED]


def calls_tool(message: dict[str, Any]) -> bool:
    content = message.get("content")
    content = content.get("parts") if isinstance(content, dict) else content
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    return any(holds_text(each.get(name)) for each in (message, *parts) for name in _TOOL_FIELDS) or any(
        str(part.get("type")) in _TOOL_PARTS for part in parts
    )


def _tool_call(asked: Asked) -> NoAnswer:
    message = (
        "the model called a tool instead of answering; remove tools from extra_body and from the server's settings"
    )
    return asked.unreadable(Cause.TOOL, message)
