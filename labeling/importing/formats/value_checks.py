"""Checks of single ids and texts, shared by all formats. Imports no Django."""

from __future__ import annotations

import re
import unicodedata

from labeling.importing.strict_json import BadJson, quoted

MAX_ID_CHARACTERS = 500
MAX_GRADE = 2**15 - 1

# Characters that Unicode shows as nothing (Default_Ignorable_Code_Point) outside the category Cf, and the blank Braille
# pattern.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Category Cf, but visible (Prepended_Concatenation_Mark).
_VISIBLE_FORMATS = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd]")
# Marks without width that editors and web pages leave at the edge of copied text.
_EDGE_MARKS = "\u00ad\u200b\u200e\u200f\u2060\ufeff"
# An id of visible ASCII, which needs no other check but its length.
_PLAIN = re.compile("[!-~](?:[ -~]*[!-~])?")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def is_blank(text: str) -> bool:
    """True if no character of the text is visible: blanks, control, zero-width and filler characters."""
    if text and "!" <= text[0] <= "~":  # nearly always
        return False
    return all(_is_invisible(character) for character in text)


def _is_invisible(character: str) -> bool:
    if character.isspace() or _INVISIBLE.match(character):
        return True
    return unicodedata.category(character) in ("Cc", "Cf") and not _VISIBLE_FORMATS.match(character)


def is_plain_identifier(value: str) -> bool:
    """Whether an id is visible ASCII without blanks around it, and not too long."""
    return len(value) <= MAX_ID_CHARACTERS and _PLAIN.fullmatch(value) is not None


def check_identifier(value: str, field: str) -> None:
    """Raise BadJson for an id that is empty or too long, or that export formats cannot keep."""
    if is_plain_identifier(value):
        return
    expectation = f"an id of 1 to {MAX_ID_CHARACTERS} characters"
    if is_blank(value):
        raise BadJson("is empty", expectation=expectation, remedy="give it an id", field=field)
    if len(value) > MAX_ID_CHARACTERS:
        raise BadJson(
            f"has {len(value)} characters", expectation=expectation, remedy="shorten or hash the id", field=field
        )
    if found := _CONTROL.search(value):
        raise BadJson(
            f"is {quoted(value)}, with the control character U+{ord(found[0]):04X} at position {found.start() + 1}",
            expectation="an id without line ends, tabs and other control characters",
            remedy="remove the character from the id",
            field=field,
        )
    if value != value.strip():
        raise BadJson(
            f"is {quoted(value)}, with a blank at its beginning or end",
            expectation="an id without surrounding blanks",
            remedy="remove the blanks around the id",
            field=field,
        )
    if mark := next((each for each in (value[0], value[-1]) if each in _EDGE_MARKS), ""):
        raise BadJson(
            f"is {quoted(value)}, with the invisible character U+{ord(mark):04X} at its beginning or end",
            expectation="an id without invisible characters around it",
            remedy="remove the character from the id",
            field=field,
        )
