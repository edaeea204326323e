"""Prepares texts for a tokenizer: spelled-out special tokens stay text, and long documents can be shortened. Imports no Django."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

# Few texts have longer tokens on average; such a text is tokenised completely.
CHARACTERS_OF_TOKEN = 12
USUAL_CHARACTERS_OF_TOKEN = 6


class PlainText:
    """Breaks up the special tokens that a text spells, such as `[SEP]` or `</s>`, by a blank after their first character.

    A tokenizer would read them as separators, so that a document could pose as a query. Its option `split_special_tokens` is no
    substitute: a chat template needs its own special tokens.
    """

    def __init__(self, tokenizer: Any) -> None:
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        spelled = {str(each) for each in tokenizer.all_special_tokens} | {str(each) for each in added if each.special}
        several = sorted((each for each in spelled if len(each) > 1), key=len, reverse=True)
        # A token with `normalized` is searched in the lowercased text.
        folded = {str(each) for each in added if each.special and each.normalized}
        parts = [f"(?i:{re.escape(each)})" if each in folded else re.escape(each) for each in several]
        self._special = re.compile("|".join(parts)) if parts else None

    def __call__(self, text: str) -> str:
        if self._special is None:
            return text
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def shortened(tokenizer: Any, text: str, tokens: int) -> str:
    """The first `tokens` tokens of a text. Not thread-safe: a tokenizer keeps its truncation as state."""
    for head in (text[: tokens * CHARACTERS_OF_TOKEN], text):
        encoded = tokenizer(head, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        if len(encoded["input_ids"]) > tokens:
            return text[: encoded["offset_mapping"][tokens - 1][1]]
        if len(head) == len(text):
            break
    return text


def all_shortened(tokenizer: Any, texts: Sequence[str], tokens: int | None) -> list[str]:
    """The first `tokens` tokens of each text; the whole texts for None."""
    return list(texts) if tokens is None else [shortened(tokenizer, each, tokens) for each in texts]


def start_of(text: str, characters: int | None) -> str:
    """The first words of a text, about so many characters; the whole text for None."""
    if characters is None or len(text) <= characters:
        return text
    blank = text.rfind(" ", characters // 2, characters)
    return text[: blank if blank > 0 else characters]
