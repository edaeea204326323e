"""Stored sentences, for example why a run ended, why a judge is paused, or the result of a job.

A stored sentence is `{"msgid": ..., "params": {...}}`, so that pages show it in the visitor's language. In Python it is
a `StoredText`: the English sentence as a string that keeps both. `stored_text` declares a sentence where it is
written, `labeling.models.fields.MessageField` stores it, and `labeling.wording` translates it. Imports no Django.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_declared: dict[str, None] = {}


class StoredText(str):
    """An English sentence that keeps its msgid and its parameters."""

    msgid: str
    params: dict[str, Any]

    def __new__(cls, msgid: str, params: Mapping[str, Any] | None = None) -> StoredText:
        text = super().__new__(cls, msgid % dict(params) if params else msgid)
        text.msgid, text.params = msgid, dict(params or {})
        return text

    def __mod__(self, params: Any) -> StoredText:
        """Return the sentence with its `%(name)s` filled in."""
        return StoredText(self.msgid, {name: plain(value) for name, value in params.items()})

    def __getnewargs__(self) -> tuple[str, dict[str, Any]]:  # type: ignore[override]  # pickle calls __new__ with these
        return self.msgid, self.params

    def as_json(self) -> dict[str, Any]:
        """Return the sentence in the form of JSON columns and files."""
        return {"msgid": self.msgid, "params": self.params}


def plain(value: Any) -> Any:
    """Return a parameter as a JSON value."""
    return value if isinstance(value, int | float | bool | None) else str(value)


def stored_text(sentence: str) -> StoredText:
    """Declare a sentence with placeholders `%(name)s`, which `%` fills in."""
    _declared[sentence] = None
    return StoredText(sentence)


def stored_texts() -> list[str]:
    """Return the msgids of all declared sentences."""
    return list(_declared)


def counted(number: int, one: str, many: str = "") -> str:
    """Return a number with its English noun: 1 query, 1,200 queries; `many` defaults to `one` with an s."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"


def as_stored(text: str) -> str:
    """Return the column's value: JSON of msgid and parameters. A free text, such as an error, is its own msgid."""
    if not text:
        return ""
    message = text if isinstance(text, StoredText) else StoredText(str(text))
    return json.dumps(message.as_json(), ensure_ascii=False)


def read_stored(value: object) -> str:
    """Return a `StoredText` from a column's value or from JSON; anything else as a plain string."""
    if isinstance(value, Mapping):
        return StoredText(str(value.get("msgid", "")), value.get("params") or {})
    if not isinstance(value, str) or not value.startswith('{"msgid":'):
        return str(value or "")
    try:
        return read_stored(json.loads(value))
    except ValueError:
        return value


def stored_json(text: str) -> dict[str, Any] | str:
    """Return a sentence as JSON columns store it; a free text stays a string."""
    return text.as_json() if isinstance(text, StoredText) else text
