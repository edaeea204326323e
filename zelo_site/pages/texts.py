"""Document titles on pages: from the metadata, or the document's first words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TITLE_KEYS = ("title", "name", "heading", "qualified_name")
TITLE_LENGTH = 110
SNIPPET_LENGTH = 400
_SPACE = re.compile(r"\s+")


def clipped(text: str, length: int) -> str:
    """Return one line of at most `length` characters, cut at a word."""
    line = _SPACE.sub(" ", text).strip()
    if len(line) <= length:
        return line
    head = line[: length - 1]
    cut = head.rfind(" ")
    return (head[:cut] if cut > length // 2 else head) + "…"


def document_title(text: str, metadata: Mapping[str, Any] | None) -> str:
    """Return the title from the metadata, or the first words of the text."""
    for key in TITLE_KEYS:
        value = (metadata or {}).get(key)
        if isinstance(value, str) and value.strip():
            return clipped(value, TITLE_LENGTH)
    return clipped(text, TITLE_LENGTH)
