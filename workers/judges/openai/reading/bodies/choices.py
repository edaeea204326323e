"""The choices of a reply: those of a chat completion, or those that a server's own shape holds. Imports no Django."""

from __future__ import annotations

from typing import Any

from labeling.records import FailureKind
from workers.judges.openai.reading.bodies.endings import body_endings
from workers.judges.openai.reading.bodies.native import Choice, native_choices
from workers.judges.openai.reading.failures import Asked, Cause, NoAnswer


def choices_of(body: Any, asked: Asked) -> list[Choice]:
    """The choices, at least one, each with `message` (or `text`), `finish_reason` and `logprobs`. Raises NoAnswer."""
    if isinstance(body, list) and len(body) == 1 and isinstance(body[0], dict):  # TGI
        body = body[0]
    if isinstance(body, dict) and body.get("error"):
        raise asked.broken(Cause.BROKEN_OFF, f"the server reports an error: {asked.shown(str(body['error']))}")
    choices = body.get("choices") if isinstance(body, dict) else None
    if choices is None and isinstance(body, dict):
        choices = native_choices(body)
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise asked.broken(Cause.NO_CHOICES, "the reply holds no choices")
    for choice in choices:
        if "message" not in choice and isinstance(choice.get("delta"), dict):
            message = (
                "the reply is a piece of a stream, although none was asked for; turn streaming off at the endpoint"
            )
            raise NoAnswer(FailureKind.UNPARSEABLE, message, retryable=False, cause=Cause.STREAM)
    endings = body_endings(body) if isinstance(body, dict) and "choices" in body else []
    return [_with_endings(choice, endings) for choice in choices] if endings else choices


def _with_endings(choice: Choice, endings: list[str]) -> Choice:
    further = choice.get("further_endings")
    return {**choice, "further_endings": [*(further if isinstance(further, list) else [further]), *endings]}
