"""Reads the fields of a choice, a message or a part that say whether its text is the final one.

Any channel, type, role or flag that is not known to name a final text names something else, so that thinking under a new name is no
answer. Imports no Django.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from workers.judges.openai.reading.field_names import is_no_answer

# Fields that say of which kind a text is, or to whom it is shown.
KINDS = (
    *(
        "type",
        "kind",
        "subtype",
        "channel",
        "phase",
        "stage",
        "section",
        "purpose",
        "category",
        "visibility",
        "audience",
    ),
    *("title", "name", "label", "step"),
)
_FINAL = re.compile(
    r"(?:text|output_?text|markdown|plain_?text|text/plain|json|json_object|message|chat_?message|content|answer|response|reply|output|result|"
    r"(?:text_|chat\.)?completion|final(?:_?(?:answer|text|response|output|message))?|assistant|model|user|public|visible|default|main)?"
)
_SPEAKERS = {"", "assistant", "model", "ai", "bot", "chatbot"}
_HARMLESS_FLAG = re.compile(
    r"(?:is_?)?(?:final|complete|completed|finished|done|valid|ok|success|visible|public|cached|from_cache|cache_hit|stop|stopped|"
    r"stopped_(?:eos|word)|closed|text|answer|required)"
)
# Flags of an unfinished text, which `endings` reads: a choice or message with one was cut off.
UNFINISHED = ("truncated", "is_truncated", "stopped_limit", "incomplete", "is_incomplete", "partial", "is_partial")
_THINKING = ("thought", "is_thought", "is_thinking", "is_reasoning", "thinking", "reasoning")
_CONTAINERS = ("metadata", "meta", "extra", "attributes", "extra_content", "provider_metadata", "annotations", "google")


def is_final(fields: Mapping[str, Any]) -> bool:
    """Whether no field of a choice or a message says that its text is something else than the final one."""
    return speaks(fields.get("role")) and all(_keeps(name.casefold(), value) for name, value in fields.items())


def is_final_part(part: Mapping[str, Any]) -> bool:
    """As `is_final`, of one part of a content; a part with a field of thinking holds nothing else."""
    return is_final(part) and not any(part.get(mark) for mark in (*_THINKING, *UNFINISHED))


def speaks(role: Any) -> bool:
    """Whether a role is the model's."""
    return role is None or (isinstance(role, str) and role.casefold() in _SPEAKERS)


def _keeps(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        if not value:
            return name in UNFINISHED or not is_no_answer(name, value)
        return name in UNFINISHED or _HARMLESS_FLAG.fullmatch(name) is not None
    if name in KINDS:
        values = value if isinstance(value, list) else [value]
        return all(
            each is None or (isinstance(each, str) and _FINAL.fullmatch(each.strip().casefold())) for each in values
        )
    if name in _CONTAINERS and isinstance(value, dict):
        return all(_keeps(inner.casefold(), each) for inner, each in value.items() if isinstance(inner, str))
    return True


def message_of(choice: Mapping[str, Any]) -> dict[str, Any]:
    """The message of a choice; only its thinking where a field says that it is no final text."""
    message = choice.get("message")
    if isinstance(message, str):
        return {"content": message}
    if not isinstance(message, dict):
        return {}
    if not is_final({**choice, **message}):
        return {"thinking": message.get("content")}
    return message


def holds_text(value: Any) -> bool:
    """Whether a field holds anything."""
    return bool(value.strip()) if isinstance(value, str) else bool(value)
