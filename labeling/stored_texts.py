"""Stored sentences, for example why a run ended, why a judge is paused, or the result of a job.

A stored sentence is `{"msgid": ..., "params": {...}}`, so that pages show it in the visitor's language. In Python it is
a `StoredText`: the English sentence as a string that keeps both. `stored_text` declares a sentence where it is
written, `labeling.models.fields.MessageField` stores it, and `labeling.wording` translates it. Imports no Django.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_declared: dict[str, str] = {}  # each with its form for one, if it has one
_PLACEHOLDER = re.compile(r"%\((\w+)\)s")


class StoredText(str):
    """An English sentence that keeps its msgid and its parameters."""

    msgid: str
    params: dict[str, Any]
    # Of a declared sentence: the parameter that counts, and the sentence for one.
    singular: tuple[str, str] | None = None

    def __new__(cls, msgid: str, params: Mapping[str, Any] | None = None) -> StoredText:
        text = super().__new__(cls, msgid % dict(params) if params else msgid)
        text.msgid, text.params = msgid, dict(params or {})
        return text

    def __mod__(self, params: Any) -> StoredText:
        """Return the sentence with its `%(name)s` filled in, the one for one where that many are counted."""
        values = {name: plain(value) for name, value in params.items()}
        if self.singular is not None and str(values.get(self.singular[0])) == "1":
            return StoredText(self.singular[1], values)
        return StoredText(self.msgid, values)

    def __getnewargs__(self) -> tuple[str, dict[str, Any]]:  # type: ignore[override]  # pickle calls __new__ with these
        return self.msgid, self.params

    def as_json(self) -> dict[str, Any]:
        """Return the sentence in the form of JSON columns and files."""
        return {"msgid": self.msgid, "params": self.params}


def plain(value: Any) -> Any:
    """Return a parameter as a JSON value."""
    return value if isinstance(value, int | float | bool | None) else str(value)


def stored_text(sentence: str, *, one: str = "", of: str = "") -> StoredText:
    """Declare a sentence with placeholders `%(name)s`, which `%` fills in.

    `one` is the sentence where the placeholder `of`, by default its first, is 1.
    """
    found = StoredText(sentence)
    _declared[sentence] = one or _declared.get(sentence, "")
    if one:
        _declared.setdefault(one, "")
        found.singular = (of or _PLACEHOLDER.findall(one)[0], one)
    return found


def stored_texts() -> list[str]:
    """Return the msgids of all declared sentences."""
    return list(_declared)


def form_for_one(sentence: str) -> str:
    """Return the msgid of a declared sentence for a count of one; empty if it has none."""
    return _declared[sentence]


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
