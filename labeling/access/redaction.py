"""Removes keys from texts that are kept: rationales lose the endpoint's own key, error messages whatever looks like a key.

Replies are parsed first; only texts that are stored or shown are redacted, never the reply itself. Imports no Django.
"""

from __future__ import annotations

import html
import json
import re
from urllib.parse import quote, quote_plus

import pydantic

LEAST_KEY_CHARACTERS = 8
REDACTED = "[key]"

_SECRET = re.compile(r"\b(?:sk|pk|gsk|xai|key|hf)[-_][A-Za-z0-9*._-]{6,}|Bearer\s+\S+", re.IGNORECASE)
# What JavaScript's encodeURI leaves as it is, and percent escapes, whose case differs from library to library.
_OF_ADDRESSES = ";,/?:@&=+$#!*'()"
_ESCAPE = re.compile(r"%[0-9A-F]{2}")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
# Placeholders for servers that want no key are short words, some joined by hyphens: "lm-studio", "no-key-required".
_SHORT_WORDS = re.compile(r"(?=.{1,19}\Z)(?:[A-Z]?[a-z]+|[A-Z]+)(?:[-_. ](?:[A-Z]?[a-z]+|[A-Z]+))*")


def is_plausible(key: str) -> bool:
    """Whether the text can be a secret: at least eight characters and no plain word, as placeholders are."""
    is_words = _WORD.fullmatch(key) or _SHORT_WORDS.fullmatch(key)
    return len(key) >= LEAST_KEY_CHARACTERS and not is_words


def without_key(text: str, *keys: pydantic.SecretStr | None) -> str:
    """The text without these keys, and otherwise unchanged: for rationales, which may speak of keys and tokens."""
    values = {key.get_secret_value().strip() for key in keys if key is not None}
    spelled = {each for value in filter(is_plausible, values) for each in _spellings(value)}
    for value in sorted(spelled, key=len, reverse=True):
        text = text.replace(value, REDACTED)
    return text


def _spellings(key: str) -> set[str]:
    """The key as servers echo it: plain, in JSON with or without escaped slashes, in an address, and in HTML."""
    in_json = json.dumps(key)[1:-1]
    in_address = {
        *(
            spell(key, safe=safe, errors="replace")
            for spell in (quote, quote_plus)
            for safe in ("", "/", _OF_ADDRESSES)
        ),
    }
    in_address |= {_ESCAPE.sub(lambda each: each[0].lower(), spelled) for spelled in in_address}
    return {key, in_json, in_json.replace("/", "\\/"), html.escape(key), *in_address}


def redact(text: str, *keys: pydantic.SecretStr | None) -> str:
    """The text without these keys and without anything that looks like a key: for error messages and logs."""
    return _SECRET.sub(REDACTED, without_key(text, *keys))
