"""Strict JSON: `parse` refuses values that `json.loads` accepts and PostgreSQL cannot store.

These are NaN and infinities, NUL, lone surrogates, duplicate keys, integers beyond 64 bits and deep nesting.
`labeling.importing.formats` reads every line through it. Imports no Django.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

MAX_DEPTH = 32
_INT64 = range(-(2**63), 2**63)
_TOO_LONG_FOR_INT64 = 2**63

# Matches whole strings, so that brackets inside them do not count. The possessive quantifiers and the alternative at
# the end of the input keep the scan linear for any input.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


class BadJson(ValueError):
    """JSON that is refused. `field` is the path of the value, empty for the whole text."""

    def __init__(self, problem: str, *, expectation: str, remedy: str, field: str = "") -> None:
        super().__init__(f"{field + ': ' if field else ''}{problem}; expected {expectation}; {remedy}")
        self.problem = problem
        self.expectation = expectation
        self.remedy = remedy
        self.field = field


class NotJson(BadJson):
    """A text that is no JSON at all, or no UTF-8."""


def parse(text: bytes, *, max_depth: int = MAX_DEPTH, check: bool = True) -> Any:
    """Return the value of a UTF-8 JSON text that PostgreSQL can store. Raises BadJson.

    With `check` false the caller calls `check_part` for each part of the value that it keeps.
    """
    try:
        value = _DECODER.decode(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise NotJson(
            f"byte {error.start + 1} of the line (0x{text[error.start]:02x}) is not UTF-8",
            expectation="UTF-8 text",
            remedy="save or convert the file as UTF-8",
        ) from None
    except RecursionError:
        _check_depth(text, max_depth)
        raise
    except BadJson:
        _check_depth(text, max_depth)
        raise
    except json.JSONDecodeError as error:
        _check_depth(text, max_depth)
        raise NotJson(
            f"not JSON: {error.msg} at character {error.pos + 1}",
            expectation="one JSON object on one line",
            remedy="write the line with a JSON library, not by hand",
        ) from None
    if _is_deeper(value, max_depth):
        _check_depth(text, max_depth)  # which names the place
    if check:
        _check_value(value)
    return value


def _is_deeper(value: Any, max_depth: int) -> bool:
    """Whether a value is nested more than `max_depth` levels deep."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(max_depth):
        if not level:
            return False
        level = [
            item
            for each in level
            for item in (each.values() if type(each) is dict else each)
            if type(item) is dict or type(item) is list
        ]
    return bool(level)


def parse_repaired(text: bytes, *, max_depth: int = MAX_DEPTH) -> tuple[Any, int]:
    """The value of a JSON text with its bad characters replaced, and how many replacements there were; numbers stay as they are.

    NUL becomes a blank; lone surrogates and bytes that are not UTF-8 become U+FFFD. Raises BadJson for everything else.
    """
    try:
        decoded, bad_bytes = text.decode("utf-8-sig"), 0
    except UnicodeDecodeError:
        decoded, bad_bytes = text.decode("utf-8-sig", errors="replace"), 1
    value, repaired = _repaired(parse(decoded.encode(), max_depth=max_depth, check=False))
    return value, repaired + bad_bytes


def _repaired(value: Any) -> tuple[Any, int]:
    """`value` with every bad character of its strings replaced, and the number of changed strings."""
    if isinstance(value, str):
        if value.isascii() and "\x00" not in value:
            return value, 0
        whole = value.replace("\x00", " ").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return whole, int(whole != value)
    if isinstance(value, list):
        items = [_repaired(each) for each in value]
        return [each for each, _ in items], sum(count for _, count in items)
    if isinstance(value, dict):
        members = {key: _repaired(each) for key, each in value.items()}
        return {key: each for key, (each, _) in members.items()}, sum(count for _, count in members.values())
    return value, 0


def check_text(text: str) -> None:
    """Raise BadJson for NUL and lone surrogates, which PostgreSQL cannot store."""
    if text.isascii() and "\x00" not in text:
        return
    if "\x00" in text:
        raise BadJson(
            f"contains a NUL character at position {text.index(chr(0)) + 1}",
            expectation="text without NUL",
            remedy="remove the \\u0000",
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadJson(
            f"contains the lone surrogate \\u{ord(text[error.start]):04x} at position {error.start + 1}",
            expectation="whole characters",
            remedy="the text was cut inside a surrogate pair; cut between characters or remove the lone surrogate",
        ) from None


def _check_depth(text: bytes, max_depth: int) -> None:
    depth = 0
    for token in _TOKEN.finditer(text):
        bracket = text[token.start()]
        if bracket in b"[{":
            depth += 1
            if depth > max_depth:
                raise BadJson(
                    f"nested more than {max_depth} levels deep at byte {token.start() + 1}",
                    expectation=f"at most {max_depth} levels",
                    remedy="flatten the metadata",
                )
        elif bracket in b"]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadJson(
            f"the key {twice[:80]!r} occurs twice in one object",
            expectation="each key once",
            remedy="keep one of the two values",
            field=printable(twice),
        )
    return made


def _integer(digits: str) -> int:
    """An integer; digits beyond 64 bits are not converted, since Python's conversion is quadratic."""
    return int(digits) if len(digits) <= 20 else _TOO_LONG_FOR_INT64


def _constant(name: str) -> float:
    """Keep NaN, Infinity or -Infinity until `_check_value` finds it and names its field."""
    return float(name)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_constant=_constant)


def check_value(value: Any, *, max_depth: int = MAX_DEPTH) -> None:
    """Apply the rules of `parse` to a value. Raises BadJson."""
    level, depth = [value], 0
    while level := [item for each in level if isinstance(each, dict | list) for item in _items(each)]:
        depth += 1
        if depth > max_depth:
            raise BadJson(
                f"is nested more than {max_depth} levels deep",
                expectation=f"at most {max_depth} levels",
                remedy="flatten the value",
            )
    _check_value(value)


def has_odd_texts(text: bytes) -> bool:
    """Whether texts in this JSON may hold a NUL or a lone surrogate, which only these escapes give: for `is_plain`."""
    return b"\\u0000" in text or b"\\ud" in text or b"\\uD" in text


def is_plain(value: Any) -> bool:
    """Whether `check_value` finds nothing in a value whose texts are not odd: a look at its numbers, much faster than that."""
    for item in value.values() if type(value) is dict else value if type(value) is list else (value,):
        kind = type(item)
        if kind is str:
            continue
        if kind is int:
            if not -(2**63) <= item < 2**63:
                return False
        elif kind is float:
            if not math.isfinite(item):
                return False
        elif (kind is dict or kind is list) and not is_plain(item):
            return False
    return True


def check_part(value: Any, path: str) -> None:
    """Apply `check_value` to the part at `path` of a larger value; errors name the whole path. Raises BadJson."""
    try:
        _check_value(value)
    except BadJson as error:
        raise _within(path, error) from None


def _items(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _check_value(value: Any) -> None:
    """Check the strings and numbers in `value`, at most MAX_DEPTH deep. Raises BadJson with the path."""
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_member(key, item)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            try:
                _check_value(item)
            except BadJson as error:
                raise _within(f"[{position}]", error) from None
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise BadJson(f"is {value}", expectation="a finite number", remedy="omit the field if there is no value")
    elif isinstance(value, int) and value not in _INT64:
        raise BadJson(
            "is an integer beyond 64 bits",
            expectation="an integer from -2^63 to 2^63 - 1",
            remedy="write it as a string",
        )


def _check_member(key: str, item: Any) -> None:
    try:
        check_text(key)
        _check_value(item)
    except BadJson as error:
        raise _within(printable(key), error) from None


def _within(part: str, error: BadJson) -> BadJson:
    """The same error with `part` before its path."""
    joint = "" if not error.field or error.field.startswith("[") else "."
    return BadJson(
        error.problem, expectation=error.expectation, remedy=error.remedy, field=f"{part}{joint}{error.field}"
    )


def printable(text: str, limit: int = 80) -> str:
    """Return `text` for a message: short, without control characters or lone surrogates."""
    cut = text[:limit]
    return cut if cut.isprintable() else ascii(cut)[1:-1]


def quoted(text: str, limit: int = 80) -> str:
    """As `printable`, in quotes."""
    return f"'{printable(text, limit)}'"
