"""The choices of a reply in any server's shape, how each ended, and the text that each shows.

`choices_of` brings native shapes (Ollama, Anthropic, Gemini, Responses, TGI) into that of a chat completion. `spoken_text`
returns the final text of a choice or raises NoAnswer. Imports no Django.
"""

from __future__ import annotations

import json
import re
from typing import Any

from labeling.records import FailureKind
from workers.judges.openai.reading.failures import Asked, Cause, NoAnswer, storable
from workers.judges.openai.reading.thinking import SecondTurn, UnfinishedThinking, final_text

Choice = dict[str, Any]

# Fields of a message that hold thinking; their content is never an answer.
THINKING_FIELDS = (
    *("reasoning_content", "reasoning", "reasoning_details", "reasoning_text", "thinking", "thinking_blocks"),
    *("thinking_content", "thought", "thoughts", "analysis"),
)
_TEXT_TYPES = {None, "", "text", "output_text"}
_THINKING_MARKS = ("thought", "is_thought", "is_thinking", "is_reasoning", "thinking", "reasoning")
_FINAL_CHANNELS = {None, "", "final", "final_answer"}
_OTHER_ROLES = {"user", "system", "developer", "tool", "function", "ipython"}

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
    *("done", "end", "finished", "eosfound", "stopstringfound", "stopword", "success", "succeeded", "ok"),
}
_CUT = re.compile(r"length|max|token|limit|truncat|context|incomplete|unfinished|pause")
_FILTERED = re.compile(r"filter|safety|recitation|blocklist|prohibited|spii|guardrail|sensitive|moderation|language")
_TOOL = re.compile(r"tool|function")
_TOOL_FIELDS = ("tool_calls", "function_call", "tool_call", "functionCall")
_TOOL_PARTS = {"tool_use", "tool_call", "function_call", "toolUse", "tool-call"}
_ENDING_FIELDS = ("finish_reason", "finishReason", "stop_reason", "stopReason", "stop_type")
_UNFINISHED_FIELDS = ("is_finished", "finished", "is_complete", "complete", "done")
_BROKEN = re.compile(r"error|abort|cancel|fail|insufficient|overload|load|malformed|userstopped|disconnect")
_REFUSAL = re.compile(
    r"\W*(?:i['’]?m (?:very )?sorry|i am sorry|sorry,|i (?:can(?:no|['’])t|cannot|won['’]t|am unable|am not able)|"
    r"i must decline|i decline|as an ai\b)",
    re.IGNORECASE,
)


def choices_of(body: Any, asked: Asked) -> list[Choice]:
    """The choices, at least one, each with `message` (or `text`), `finish_reason` and `logprobs`. Raises NoAnswer."""
    if isinstance(body, list) and len(body) == 1 and isinstance(body[0], dict):  # TGI
        body = body[0]
    if isinstance(body, dict) and body.get("error"):
        raise asked.broken(Cause.BROKEN_OFF, f"the server reports an error: {asked.shown(str(body['error']))}")
    choices = body.get("choices") if isinstance(body, dict) else None
    if choices is None and isinstance(body, dict):
        choices = _native(body)
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise asked.broken(Cause.NO_CHOICES, "the reply holds no choices")
    for choice in choices:
        if "message" not in choice and isinstance(choice.get("delta"), dict):
            message = (
                "the reply is a piece of a stream, although none was asked for; turn streaming off at the endpoint"
            )
            raise NoAnswer(FailureKind.UNPARSEABLE, message, retryable=False, cause=Cause.STREAM)
    return choices


def _native(body: dict[str, Any]) -> list[Choice] | None:
    """One server's own shape as choices, None if it is none that is known."""
    if isinstance(body.get("candidates"), list):  # Gemini
        return [
            {"message": {"content": each.get("content")}, "finish_reason": each.get("finishReason"),
             "logprobs": each.get("logprobsResult")}
            for each in body["candidates"] if isinstance(each, dict)
        ]  # fmt: skip
    if isinstance(body.get("output"), list):  # OpenAI's Responses
        return [_of_items([item for item in body["output"] if isinstance(item, dict)], body)]
    if body.get("type") == "message":  # Anthropic
        return [{"message": body, "finish_reason": body.get("stop_reason") or "unfinished"}]
    if isinstance(body.get("generated_text"), str):  # TGI
        details = body.get("details")
        details = details if isinstance(details, dict) else {}
        return [{"text": body["generated_text"], "finish_reason": details.get("finish_reason"), "logprobs": details}]
    if isinstance(body.get("content"), str) and "stop_type" in body:  # llama.cpp's /completion
        stopped = {"eos": "stop", "word": "stop", "limit": "length"}.get(str(body["stop_type"]), "unfinished")
        return [{"text": body["content"], "finish_reason": stopped, "logprobs": body.get("completion_probabilities")}]
    if isinstance(body.get("text"), str) and isinstance(body.get("meta_info"), dict):  # SGLang's /generate
        return [{"text": body["text"], "finish_reason": body["meta_info"].get("finish_reason") or "unfinished"}]
    message = body.get("message")
    if isinstance(message, str | dict) or "response" in body:  # Ollama, Cohere
        ending = body.get("done_reason") if body.get("done", True) else "unfinished"
        shown = (
            message
            if isinstance(message, dict)
            else {"content": body.get("response"), "thinking": body.get("thinking")}
        )
        further = [body[name] for name in _ENDING_FIELDS if body.get(name)]
        return [
            {"message": shown, "finish_reason": ending, "logprobs": body.get("logprobs"), "further_endings": further}
        ]
    return None


def _of_items(items: list[dict[str, Any]], body: dict[str, Any]) -> Choice:
    """The choice that the output items of OpenAI's Responses add up to. An item that is not complete ends it as that."""
    calls = [item for item in items if str(item.get("type", "")).endswith("_call")]
    endings = [item.get("status") for item in items if item.get("type") == "message"]
    details = body.get("incomplete_details")
    rows = [
        row
        for item in items
        for part in _parts_of_item(item)
        if isinstance(part, dict) and not _is_thinking_part(part)
        for row in part.get("logprobs") or ()
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
    if _calls_tool(_message(choice)):
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
    elif choice.get("stop_reason") in {"max_tokens", "length", "refusal"}:
        stated.append(choice["stop_reason"])
    if choice.get("incomplete_details") or choice.get("truncated") is True or choice.get("stopped_limit") is True:
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


def spoken_text(choice: Choice, asked: Asked) -> str:
    """The final text of a finished choice, never empty. Raises NoAnswer for all that is not a final text."""
    text = shown_text(choice, asked)
    message = _message(choice)
    if not text.strip() and has_thinking(choice) and not _calls_tool(message):
        check_ending(choice, asked, text, may_be_cut=True)
        raise asked.only_thinking("the model's thinking took the place of its answer: the reply has no final text")
    check_ending(choice, asked, text)
    try:
        final = final_text(text)
    except UnfinishedThinking:
        raise asked.only_thinking(f"the reply ends inside the model's thinking ({asked.shown(text)!r})") from None
    except SecondTurn:
        problem = (
            f"the model continued after the end of its turn ({asked.shown(text)!r}); set a stop sequence at the server"
        )
        raise asked.unreadable(Cause.TWO_TURNS, problem) from None
    if final:
        return final
    if text.strip():
        raise asked.only_thinking("the model's thinking took the place of its answer: the reply has no final text")
    raise asked.unreadable(Cause.EMPTY, "the reply has no text; see whether the model supports chat completions")


def shown_text(choice: Choice, asked: Asked) -> str:
    """The content as the server shows it: parts of text joined, thinking fields left out. Raises NoAnswer for a refusal."""
    message = _message(choice)
    if refusal := message.get("refusal"):
        raise asked.refused(str(refusal))
    if message.get("role") in _OTHER_ROLES:
        return ""
    content = message.get("content", choice.get("text"))
    shown = _text_of(content, asked)
    delta = choice.get("delta")
    for other in (choice.get("text"), delta.get("content") if isinstance(delta, dict) else None):
        if isinstance(other, str) and other.strip() and shown.strip() and other.strip() != shown.strip():
            raise asked.broken(Cause.CONTRADICTION, f"the reply holds two different texts ({asked.shown(other)!r})")
    return shown


def _text_of(content: Any, asked: Asked) -> str:
    """A content as text, its thinking left out. Raises NoAnswer for a refusal."""
    if isinstance(content, dict):
        if "parts" in content:  # Gemini
            content = content["parts"]
        elif "type" in content or "text" in content:
            content = [content]
        else:  # JSON that a gateway has parsed
            content = json.dumps(content)
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    for part in parts:
        if isinstance(part, dict) and (part.get("refusal") or part.get("type") == "refusal"):
            raise asked.refused(str(part.get("refusal") or part.get("text") or ""))
    return "".join(map(_text_of_part, parts))


def _text_of_part(part: Any) -> str:
    """The text of one part of a content; "" for thinking and for everything that is no text."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict) or _is_thinking_part(part):
        return ""
    text = part.get("text")
    if isinstance(text, dict):  # of assistants: {"value": "...", "annotations": []}
        text = text.get("value")
    return text if isinstance(text, str) else ""


def _is_thinking_part(part: dict[str, Any]) -> bool:
    kind = part.get("type")
    if part.get("role") in _OTHER_ROLES | {"reasoning", "thinking"}:
        return True
    channels = [part.get("channel"), part.get("phase")]
    return (
        (not isinstance(kind, str) and kind is not None)
        or (kind.lower() if isinstance(kind, str) else kind) not in _TEXT_TYPES
        or any(not isinstance(each, str | None) or each not in _FINAL_CHANNELS for each in channels)
        or any(part.get(mark) for mark in _THINKING_MARKS)
        or part.get("kind") in {"thinking", "reasoning"}
    )


def has_thinking(choice: Choice) -> bool:
    """Whether a choice holds thinking outside its text."""
    message = _message(choice)
    content = message.get("content")
    if isinstance(content, dict):
        content = content.get("parts")
    parts = content if isinstance(content, list) else []
    return any(_holds_text(each.get(name)) for each in (message, choice) for name in THINKING_FIELDS) or any(
        isinstance(part, dict) and _is_thinking_part(part) for part in parts
    )


def _holds_text(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else bool(value)


def is_refusal(text: str) -> bool:
    """Whether a text without an answer declines to give one."""
    return _REFUSAL.match(text) is not None


def _message(choice: Choice) -> dict[str, Any]:
    message = choice.get("message")
    if isinstance(message, str):
        return {"content": message}
    if not isinstance(message, dict):
        return {}
    if _is_marked_thinking({**choice, **message}):
        return {"thinking": message.get("content")}
    return message


def _is_marked_thinking(part: dict[str, Any]) -> bool:
    """Whether a channel, a phase or a flag says that this message or part is thinking."""
    channels = [part.get("channel"), part.get("phase")]
    if any(not isinstance(each, str | None) or each not in _FINAL_CHANNELS for each in channels):
        return True
    return part.get("role") in {"reasoning", "thinking"} or any(part.get(mark) is True for mark in _THINKING_MARKS)


def _calls_tool(message: dict[str, Any]) -> bool:
    content = message.get("content")
    content = content.get("parts") if isinstance(content, dict) else content
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    return any(_holds_text(each.get(name)) for each in (message, *parts) for name in _TOOL_FIELDS) or any(
        part.get("type") in _TOOL_PARTS for part in parts
    )


def _tool_call(asked: Asked) -> NoAnswer:
    message = (
        "the model called a tool instead of answering; remove tools from extra_body and from the server's settings"
    )
    return asked.unreadable(Cause.TOOL, message)
