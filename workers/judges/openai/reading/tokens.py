"""The positions of generated tokens with their alternatives, from log-probabilities in any server's shape.

Shapes: chat completions (`content`), legacy completions (`tokens`, `token_logprobs`, `top_logprobs`), Gemini's
`chosenCandidates`, TGI's `details`, Ollama's plain list. Also the spellings of one token: byte-level, SentencePiece, byte
fallback. Imports no Django.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Values at or below this mean "not among the likely tokens" (OpenAI writes -9999.0).
ABSENT = -9999.0
ROUNDING = 0.01

_BYTE_FALLBACK = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_ESCAPED_BYTES = re.compile(r"bytes:((?:\\x[0-9a-f]{2})+)")
_TOKEN_ID = re.compile(r"token_id:\d+")
# The characters by which byte-level vocabularies spell blanks, and SentencePiece's.
_BLANKS = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n", "ĉ": "\t", "č": "\r", "\u00a0": " ", "\ufeff": " "})


@dataclass(frozen=True, slots=True)
class Token:
    """A token as listed: its text, and its value, which may be anything."""

    text: str
    value: Any

    @property
    def is_number(self) -> bool:
        """Whether the value is a log-probability; slightly above zero is rounding."""
        return (
            isinstance(self.value, int | float)
            and not isinstance(self.value, bool)
            and math.isfinite(self.value)
            and self.value <= ROUNDING
        )

    @property
    def is_absent(self) -> bool:
        """Whether the server says that the token is all but impossible."""
        return isinstance(self.value, int | float) and not isinstance(self.value, bool) and self.value <= ABSENT

    @property
    def probability(self) -> float:
        return math.exp(min(float(self.value), 0.0)) if self.is_number else 0.0


@dataclass(frozen=True, slots=True)
class Position:
    """The token that was generated at one position, and the alternatives that the server lists there."""

    sampled: Token
    alternatives: tuple[Token, ...]

    @property
    def tokens(self) -> list[Token]:
        """Each token once: the alternatives, and the sampled one if it is not among them."""
        listed = list(dict.fromkeys((each.text, repr(each.value)) for each in self.alternatives))
        values = {(each.text, repr(each.value)): each for each in self.alternatives}
        tokens = [values[key] for key in listed]
        return tokens if any(each.text == self.sampled.text for each in tokens) else [self.sampled, *tokens]


def positions_of(logprobs: Any) -> list[Position]:
    """All positions, [] where there are no log-probabilities in a known shape."""
    if isinstance(logprobs, list):
        return _of_rows(logprobs)
    if not isinstance(logprobs, dict):
        return []
    if isinstance(logprobs.get("content"), list):
        return _of_rows(logprobs["content"])
    if isinstance(logprobs.get("chosenCandidates"), list):
        return _side_by_side(logprobs["chosenCandidates"], _lists(logprobs.get("topCandidates"), "candidates"))
    tokens = logprobs.get("tokens")
    if not isinstance(tokens, list):
        return []
    if tokens and isinstance(tokens[0], dict):  # TGI
        return _side_by_side(tokens, logprobs.get("top_tokens"))
    values = logprobs.get("token_logprobs")
    values = values if isinstance(values, list) else []
    rows = [
        {"token": token, "logprob": values[place] if place < len(values) else None}
        for place, token in enumerate(tokens)
    ]
    return _side_by_side(rows, logprobs.get("top_logprobs"))


def _of_rows(rows: list[Any]) -> list[Position]:
    positions: list[Position] = []
    for row in rows:
        sampled = _token(row)
        if sampled is None:
            return positions
        positions.append(Position(sampled, _alternatives(row.get("top_logprobs") or row.get("top_tokens"))))
    return positions


def _side_by_side(rows: list[Any], listed: Any) -> list[Position]:
    listed = listed if isinstance(listed, list) else []
    positions = []
    for place, row in enumerate(rows):
        sampled = _token(row)
        if sampled is None:
            break
        positions.append(Position(sampled, _alternatives(listed[place] if place < len(listed) else [])))
    return positions


def _lists(rows: Any, name: str) -> list[Any]:
    return [row.get(name) if isinstance(row, dict) else row for row in rows] if isinstance(rows, list) else []


def _alternatives(listed: Any) -> tuple[Token, ...]:
    """From a list of rows or from a mapping of tokens to values."""
    if isinstance(listed, dict):
        listed = [
            {"token": token, "logprob": value.get("logprob") if isinstance(value, dict) else value}
            for token, value in listed.items()
        ]
    rows = listed if isinstance(listed, list) else []
    return tuple(token for token in map(_token, rows) if token is not None)


def _token(row: Any) -> Token | None:
    if not isinstance(row, dict):
        return None
    text = _text(row)
    value = next((row[name] for name in ("logprob", "logProbability", "log_probability") if name in row), None)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > -ABSENT:
        value = math.copysign(math.inf, 1 if value > 0 else -1)  # an integer of any length, which a float may not hold
    return None if text is None else Token(text, value)


def _text(row: Mapping[str, Any]) -> str | None:
    """The token's text, from its bytes where the token itself is missing or only names them."""
    token = next((row[name] for name in ("token", "text", "decoded_token") if isinstance(row.get(name), str)), None)
    data = row.get("bytes")
    spelled = _ESCAPED_BYTES.fullmatch(token) if token else None
    if spelled is not None:
        return bytes.fromhex(spelled[1].replace("\\x", "")).decode(errors="replace")
    if not token and isinstance(data, list) and all(isinstance(each, int) and 0 <= each < 256 for each in data):
        return bytes(data).decode(errors="replace")
    return token


def plain(text: str) -> str:
    """The token's text with its blanks as blanks and byte fallback decoded."""
    fallback = _BYTE_FALLBACK.fullmatch(text)
    if fallback is not None:
        return bytes.fromhex(fallback[1]).decode(errors="replace")
    return unicodedata.normalize("NFKC", text.translate(_BLANKS))


def is_token_id(text: str) -> bool:
    """Whether a server lists ids in place of texts (vLLM's `return_tokens_as_token_ids`)."""
    return _TOKEN_ID.fullmatch(text) is not None
