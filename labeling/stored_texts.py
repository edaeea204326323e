"""Sentences that are stored: why a run ended, why a judge is paused, what a job did.

A stored sentence is `{"msgid": ..., "params": {...}}`, so that pages show it in the visitor's language. In Python it is
a `StoredText`: a string, the English sentence, that remembers both. `stored_text` declares a sentence where it is
written; `labeling.models.fields.MessageField` is its column; `labeling.wording` translates it. Imports no Django.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_declared: dict[str, None] = {}


class StoredText(str):
    """An English sentence that remembers its msgid and its parameters."""

    msgid: str
    params: dict[str, Any]

    def __new__(cls, msgid: str, params: Mapping[str, Any] | None = None) -> StoredText:
        text = super().__new__(cls, msgid % dict(params) if params else msgid)
        text.msgid, text.params = msgid, dict(params or {})
        return text

    def __mod__(self, params: Any) -> StoredText:
        """The sentence with its `%(name)s` filled in."""
        return StoredText(self.msgid, {name: plain(value) for name, value in params.items()})

    def __getnewargs__(self) -> tuple[str, dict[str, Any]]:  # type: ignore[override]  # pickle calls __new__ with these
        return self.msgid, self.params

    def as_json(self) -> dict[str, Any]:
        """The form in which it is stored inside JSON columns and files."""
        return {"msgid": self.msgid, "params": self.params}


def plain(value: Any) -> Any:
    """A parameter as JSON keeps it."""
    return value if isinstance(value, int | float | bool | None) else str(value)


def stored_text(sentence: str) -> StoredText:
    """Declare a sentence, in which `%(name)s` stands for what varies; fill it in with `%`."""
    _declared[sentence] = None
    return StoredText(sentence)


def stored_texts() -> list[str]:
    """The msgids of all sentences declared so far."""
    return list(_declared)


def as_stored(text: str) -> str:
    """The column's value: JSON of msgid and parameters. A free text, such as an error's, is its own msgid."""
    if not text:
        return ""
    message = text if isinstance(text, StoredText) else StoredText(str(text))
    return json.dumps(message.as_json(), ensure_ascii=False)


def read_stored(value: object) -> str:
    """A `StoredText` from a column's value or from JSON; anything else as a plain string."""
    if isinstance(value, Mapping):
        return StoredText(str(value.get("msgid", "")), value.get("params") or {})
    if not isinstance(value, str) or not value.startswith('{"msgid":'):
        return str(value or "")
    try:
        return read_stored(json.loads(value))
    except ValueError:
        return value


def stored_json(text: str) -> dict[str, Any] | str:
    """A sentence as JSON columns keep it; a free text stays a string."""
    return text.as_json() if isinstance(text, StoredText) else text
