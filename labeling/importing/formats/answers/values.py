"""Answers as files spell them: winners, scores, preferences and annotators' names. Each raises RowError. Imports no Django."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import pydantic

from labeling.importing.formats import fields
from labeling.importing.formats.line_importer import LineOptions
from labeling.importing.lines import RowError
from labeling.importing.strict_json import BadJson, check_text, quoted
from labeling.records import AnswerKind

LONGEST_NAME, LONGEST_RATIONALE = 200, 10_000
Answer = tuple[float | None, AnswerKind]

# Spellings after lower() and without all but letters and digits.
_FIRST = frozenset(("a", "first", "left", "1", "model1", "documenta", "text1", "answer1", "responsea", "response1"))
_SECOND = frozenset(("b", "second", "right", "2", "model2", "documentb", "text2", "answer2", "responseb", "response2"))
_TIE = frozenset(("tie", "tied", "equal", "same", "both", "draw", "equallygood", "nodifference", "c"))
_NEITHER = frozenset(("neither", "none", "bothirrelevant", "bothbad", "tiebothbad", "bad", "norelevant"))
_UNSURE = frozenset(("cannotjudge", "unsure", "unknown", "skip", "dontknow", "cantsay", "notsure"))

# Signs before a word, and letters and signs that `plain` would drop: "-1", "!a", "не a".
_UNREADABLE = re.compile(r"\A\s*[-+]|[!~<>=/|?]|[^\x00-\x7f]")


class AnswerOptions(LineOptions):
    """Options of every format that holds answers."""

    annotator: str = pydantic.Field(
        default="imported",
        min_length=1,
        max_length=LONGEST_NAME,
        description="Name for annotators without one.",
    )
    annotators_are: Literal["models", "people"] = pydantic.Field(
        default="models",
        description="Kind of the annotators if the file does not say. Scores are calibrated against people only.",
    )
    repeated_answers: Literal["refuse", "last", "mean"] = pydantic.Field(
        default="refuse",
        description="Two different answers of one annotator to the same question: refuse, the last one counts, or their mean.",
    )


def plain(text: str) -> str:
    """Lower case, letters and digits alone."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def of_winner(value: Any, a: str, b: str, line: int, *, field: str = "winner") -> Answer:
    """P(a is better) and the kind of the answer: a, b, tie, an id of the two, or a usual spelling of them."""
    spelled = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    known = plain(
        re.sub(r"(?i)\b(is )?(better|wins|preferred|more relevant)\b|\b(document|doc|option|model|text)\b", "", spelled)
    )
    known = "" if _UNREADABLE.search(spelled) else known or plain(spelled)
    if spelled in (a, b) and a != b:
        if known in (_SECOND if spelled == a else _FIRST):
            raise RowError(
                f"is {quoted(spelled)}, the id of one of the two documents and a word for the other one",
                line=line,
                field=field,
                expectation="an answer that names one document",
                remedy="write the answers as preferences: 1 where the document in column a is better, 0 where b is",
            )
        return (1.0 if spelled == a else 0.0), AnswerKind.PREFERENCE
    for names, preference in ((_FIRST, 1.0), (_SECOND, 0.0), (_TIE, 0.5)):
        if known in names:
            return preference, AnswerKind.PREFERENCE
    if spelled == "None":
        raise RowError(
            "is 'None', which Python writes for a missing value",
            line=line,
            field=field,
            expectation="an answer",
            remedy="write neither where no document is relevant; leave the line out where nobody answered",
        )
    if spelled == "0":
        raise RowError(
            "is '0', so 1 may be the document in column a or in b, and leaving out such lines would not help",
            line=line,
            field=field,
            expectation="a, b, tie, both_irrelevant, cannot_judge, or the id of one of the two documents",
            remedy="write a where the document in column a is better",
            ends_file=True,
        )
    if known in _NEITHER:
        return None, AnswerKind.BOTH_IRRELEVANT
    if known in _UNSURE:
        return None, AnswerKind.CANNOT_JUDGE
    raise RowError(
        fields.shown(value),
        line=line,
        field=field,
        expectation="a, b, tie, both_irrelevant, cannot_judge, or the id of one of the two documents",
        remedy="write a where the document in column a is better",
    )


def of_number(value: Any, line: int, *, field: str, low: float, high: float) -> float:
    """A number in a range."""
    found = fields.number(value)
    if found is None or not low <= found <= high:
        raise RowError(
            fields.shown(value),
            line=line,
            field=field,
            expectation=f"a number from {low:g} to {high:g}",
            remedy="convert it: preference is P(a is better), 0 to 1; score is -1 where a is better and 1 where b is",
        )
    return found


def rating(value: Any, line: int, *, field: str = "grade") -> int:
    """A grade from 0."""
    found = fields.grade(value, line)
    if found < 0:
        raise RowError(
            f"is {found}",
            line=line,
            field=field,
            expectation="a grade from 0",
            remedy="leave ungraded documents out, and count grades from 0",
        )
    return found


def name_of(value: Any, line: int, *, field: str, default: str) -> str:
    """The name of an annotator; the default where there is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return default
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not text or len(text) > LONGEST_NAME or not text.isprintable():
        raise RowError(
            f"is {quoted(str(value))}" if text else "is not a name",
            line=line,
            field=field,
            expectation=f"a name of 1 to {LONGEST_NAME} printable characters",
            remedy="shorten or correct the name",
        )
    _check(text, field, line)
    return text


def rationale(value: Any, line: int, *, field: str = "rationale") -> str:
    """The reason of an answer; long ones are refused."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > LONGEST_RATIONALE:
        raise RowError(
            "is not a text of that length",
            line=line,
            field=field,
            expectation=f"at most {LONGEST_RATIONALE:,} characters",
            remedy="shorten it",
        )
    _check(value, field, line)
    return value


def truth(value: Any, line: int, *, field: str) -> bool:
    """A truth value, as such or spelled; False where there is none."""
    if isinstance(value, bool):
        return value
    known = {"": False, "true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    spelled = "" if value is None else str(value).strip().lower()
    if spelled in known:
        return known[spelled]
    raise RowError(
        f"is {quoted(spelled)}", line=line, field=field, expectation="true or false", remedy="correct the value"
    )


def different(a: str, b: str, line: int) -> None:
    """Refuse a document compared with itself."""
    if a == b:
        raise RowError(
            f"compares {quoted(a)} with itself",
            line=line,
            expectation="two different documents",
            remedy="leave the line out",
        )


def mapping(value: Any, line: int, *, field: str, expectation: str, remedy: str) -> Mapping[str, Any]:
    """A JSON object."""
    if isinstance(value, dict):
        return value
    raise RowError("is not an object", line=line, field=field, expectation=expectation, remedy=remedy)


def _check(text: str, field: str, line: int) -> None:
    try:
        check_text(text)
    except BadJson as error:
        raise RowError(
            error.problem, line=line, field=field, expectation=error.expectation, remedy=error.remedy
        ) from None
