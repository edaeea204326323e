"""The text that a choice shows: its final text, without the thinking in fields, parts and tags.

`spoken_text` returns it or raises NoAnswer. Imports no Django.
"""

from __future__ import annotations

import json
import re
from typing import Any

from workers.judges.openai.reading.bodies.endings import Choice, calls_tool, check_ending
from workers.judges.openai.reading.bodies.marks import holds_text, is_final_part, message_of, speaks
from workers.judges.openai.reading.failures import Asked, Cause
from workers.judges.openai.reading.thinking import SecondTurn, UnfinishedThinking, final_text

# Fields of a message that hold thinking; their content is never an answer.
THINKING_FIELDS = (
    *("reasoning_content", "reasoning", "reasoning_details", "reasoning_text", "thinking", "thinking_blocks"),
    *("thinking_content", "thought", "thoughts", "analysis"),
)
_REFUSAL = re.compile(
    r"\W*(?:i['’]?m (?:very )?sorry|i am sorry|sorry,|i (?:can(?:no|['’])t|cannot|won['’]t|am unable|am not able)|"
    r"i must decline|i decline|as an ai\b)",
    re.IGNORECASE,
)


def spoken_text(choice: Choice, asked: Asked) -> str:
    """The final text of a finished choice, never empty. Raises NoAnswer for all that is not a final text."""
    text = shown_text(choice, asked)
    message = message_of(choice)
    if not text.strip() and has_thinking(choice) and not calls_tool(message):
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
    message = message_of(choice)
    if refusal := message.get("refusal"):
        raise asked.refused(str(refusal))
    if not speaks(message.get("role")):
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
    if not isinstance(part, dict) or not is_final_part(part):
        return ""
    text = part.get("text")
    if isinstance(text, dict):  # of assistants: {"value": "...", "annotations": []}
        text = text.get("value")
    return text if isinstance(text, str) else ""


def has_thinking(choice: Choice) -> bool:
    """Whether a choice holds thinking outside its text."""
    message = message_of(choice)
    content = message.get("content")
    if isinstance(content, dict):
        content = content.get("parts")
    parts = content if isinstance(content, list) else []
    return any(holds_text(each.get(name)) for each in (message, choice) for name in THINKING_FIELDS) or any(
        isinstance(part, dict) and not is_final_part(part) for part in parts
    )


def is_refusal(text: str) -> bool:
    """Whether a text without an answer declines to give one."""
    return _REFUSAL.match(text) is not None
