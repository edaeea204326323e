"""Fields of a row as importers read them: decoded text, ids, texts, numbers. Each raises RowError. Imports no Django."""

from __future__ import annotations

import math
import re
from typing import Any

from labeling.importing.formats.value_checks import MAX_GRADE, check_identifier, is_blank
from labeling.importing.lines import RowError
from labeling.importing.strict_json import BadJson, check_text, printable, quoted

MAX_RANK = 2**31 - 1
HEAD_BYTES = 64 * 1024
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_MAX_NUMBER_CHARACTERS = 400


def decoded(body: bytes, line: int) -> str:
    """The UTF-8 text of a line."""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(
            f"byte {error.start + 1} of the line (0x{body[error.start]:02x}) is not UTF-8",
            line=line,
            expectation="UTF-8 text",
            remedy="save or convert the file as UTF-8",
        ) from None


def text_lines(head: bytes) -> list[str]:
    """The whole lines at the beginning of a file, without blank ones; empty if they are no text.

    Single bytes that are not UTF-8, and a NUL, do not hide a format: its importer names their line.
    """
    cut = head if len(head) < HEAD_BYTES else head[: head.rfind(b"\n") + 1]
    found = cut.decode("utf-8", "replace").removeprefix("\ufeff").rstrip("\x1a")
    bad = found.count("\x00") + found.count("\ufffd")
    return [] if bad > 2 + len(found) // 20 else [line for line in found.splitlines() if line.strip()]


def shown(value: Any) -> str:
    """The field's name and the value that was refused."""
    if value is None:
        return "is missing"
    return f"is {named(value)}" if isinstance(value, bool | list | dict) else f"is {quoted(str(value))}"


def width_problem(found: int, text: str) -> str:
    """The problem of a line with too few or too many columns."""
    if found != 1:
        return f"has {found} columns"
    marks = {",": "commas", ";": "semicolons", "|": "bars", "\u00a0": "no-break spaces"}
    name = next((name for mark, name in marks.items() if text.count(mark) > 1), "")
    return f"has one column: {name} separate its fields" if name else "has one column"


def row_error(error: BadJson, line: int) -> RowError:
    """The error of a value as the error of a row."""
    return RowError(error.problem, line=line, field=error.field, expectation=error.expectation, remedy=error.remedy)


def named(value: Any) -> str:
    """A value that is no text, in the words of messages."""
    names = {bool: "true or false", list: "a list", dict: "an object", bytes: "bytes that are not UTF-8"}
    return names.get(
        type(value), f"{printable(str(value))}" if isinstance(value, int | float) else "a date or another type"
    )


def identifier(value: Any, field: str, line: int) -> str:
    """An id; whole numbers become text, and blanks around an id are dropped."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is not None and (isinstance(value, bool) or not isinstance(value, str | int)):
        raise RowError(
            f"is {named(value)}",
            line=line,
            field=field,
            expectation="an id: a text or a whole number",
            remedy="write all ids as texts",
        )
    text = "" if value is None else str(value).strip()
    try:
        check_text(text)
        check_identifier(text, field)
    except BadJson as error:
        raise row_error(
            BadJson(error.problem, expectation=error.expectation, remedy=error.remedy, field=field), line
        ) from None
    return text


def text(value: Any, field: str, line: int) -> str:
    """A text with a visible character."""
    problem = "is empty" if value is None or isinstance(value, str) else f"is {named(value)}, not a text"
    if not isinstance(value, str) or is_blank(value):
        raise RowError(
            problem,
            line=line,
            field=field,
            expectation="a text with at least one visible character",
            remedy="leave the row out",
        )
    try:
        check_text(value)
    except BadJson as error:
        raise row_error(
            BadJson(error.problem, expectation=error.expectation, remedy=error.remedy, field=field), line
        ) from None
    return value


def number(value: Any) -> float | None:
    """The finite number of a cell, as a number or spelled; None if it is neither."""
    if isinstance(value, str):
        spelled = value.strip()
        fits = len(spelled) <= _MAX_NUMBER_CHARACTERS and _NUMBER.fullmatch(spelled)
        value = float(spelled) if fits else None
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, int) and abs(value) > 2**63:
        return None
    return float(value) if math.isfinite(value) else None


def grade(value: Any, line: int) -> int:
    """A whole number; negative ones are returned as they are. Raises RowError for fractions and texts."""
    found = number(value)
    if found is not None and found.is_integer() and abs(found) <= MAX_GRADE:
        return int(found)
    is_fraction = found is not None and abs(found) <= MAX_GRADE
    as_number = "write the grade as a number; a larger grade means more relevant"
    is_id = found is not None and not is_fraction
    raise RowError(
        f"{shown(value)}, a fraction" if is_fraction else shown(value),
        line=line,
        field="grade",
        expectation=f"a whole number up to {MAX_GRADE}",
        remedy="multiply all grades until they are whole numbers, or round them"
        if is_fraction
        else "choose another format: triples of ids hold no grades"
        if is_id
        else as_number,
    )


def rank(value: Any, line: int) -> int:
    """A rank from 1."""
    found = number(value)
    if found is not None and found.is_integer() and 1 <= found <= MAX_RANK:
        return int(found)
    raise RowError(
        shown(value),
        line=line,
        field="rank",
        expectation=f"a rank from 1 to {MAX_RANK}",
        remedy="count ranks from 1, or leave them out",
    )


def score(value: Any, line: int) -> float:
    """A finite number."""
    found = number(value)
    if found is None:
        raise RowError(
            shown(value),
            line=line,
            field="score",
            expectation="a finite number",
            remedy="write the first stage's score with a decimal point, or leave it out",
        )
    return found
