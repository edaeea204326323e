"""Criteria of a rubric: the model scores each, and stated weights combine the scores.

A project has a rubric for its judges, and a judge may have its own. On pages a criterion is a line, `3 x answers: It answers
the need`, whose weight and description may be left out. Imports no Django.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from labeling.stored_texts import stored_text

MOST_CRITERIA = 8
RESERVED = {"score", "scores", "reasoning"}
BAD_NAME = stored_text("%(name)s is a word of the answer's format; choose another name")
NAMES_TWICE = stored_text("the criterion %(name)s appears twice; names must differ in more than case")


class Criterion(pydantic.BaseModel):
    """One criterion: the model is asked about it by `name` and `description`; `weight` > 0 is its share of the verdict."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = pydantic.Field(min_length=1, max_length=60, pattern=r"^\w[\w /-]*$")
    description: str = pydantic.Field(default="", max_length=1000)
    weight: float = pydantic.Field(default=1.0, gt=0, le=1000)

    @pydantic.field_validator("name")
    @classmethod
    def _is_free(cls, value: str) -> str:
        if key_of(value) in RESERVED:
            raise ValueError(BAD_NAME % {"name": value})
        return value.strip()


Criteria = tuple[Criterion, ...]


def key_of(name: str) -> str:
    """The name as it is compared: models change case and spaces."""
    return " ".join(name.replace("_", " ").split()).casefold()


def check_names(criteria: Sequence[Criterion]) -> None:
    """Raise ValueError where two names cannot be told apart in an answer."""
    seen: set[str] = set()
    for each in criteria:
        if key_of(each.name) in seen:
            raise ValueError(NAMES_TWICE % {"name": each.name})
        seen.add(key_of(each.name))


def combined(criteria: Sequence[Criterion], scores: Mapping[str, float]) -> float:
    """The mean of the scores by name, each in [-1, 1], weighted by the criteria's weights."""
    weights = math.fsum(each.weight for each in criteria)
    return math.fsum(each.weight * scores[each.name] for each in criteria) / weights


def schema_of(criteria: Sequence[Criterion]) -> dict[str, Any]:
    """The JSON schema of an answer: reasoning, and a score from -1 to 1 for each criterion."""
    score = {"type": "number", "minimum": -1, "maximum": 1}
    names = [each.name for each in criteria]
    scores = {
        "type": "object",
        "properties": dict.fromkeys(names, score),
        "required": names,
        "additionalProperties": False,
    }
    reasoning = {"type": "string", "description": "Two or three short sentences that weigh both documents."}
    return {
        "type": "object",
        "properties": {"reasoning": reasoning, "scores": scores},
        "required": ["reasoning", "scores"],
        "additionalProperties": False,
    }


# --- a rubric as it is stored and written ------------------------------------------------

_LINE = re.compile(r"(?:(?P<weight>\d+(?:\.\d+)?)\s*[x×*]\s+)?(?P<name>[^:]+?)\s*(?::\s*(?P<description>.*))?")


def checked_rubric(rubric: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The criteria with all their fields, as JSON. Raises ValueError that names the criterion and the problem."""
    if len(rubric) > MOST_CRITERIA:
        raise ValueError(f"the rubric has {len(rubric)} criteria; expected at most {MOST_CRITERIA}")
    found = []
    for place, each in enumerate(rubric, 1):
        try:
            found.append(Criterion.model_validate(each))
        except pydantic.ValidationError as error:
            wrong = "; ".join(f"{'.'.join(map(str, row['loc']))}: {_said(row)}" for row in error.errors())
            raise ValueError(f"criterion {place} of the rubric cannot be used: {wrong}") from error
    check_names(found)
    return [each.model_dump(mode="json") for each in found]


def rubric_of_lines(text: str) -> list[dict[str, Any]]:
    """The criteria of a text with one in each line. Raises ValueError."""
    rows = []
    for line in filter(None, map(str.strip, text.splitlines())):
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(
                f"{line[:80]!r}is not a criterion; write one in each line, such as '3 x answers: It answers the need'"
            )
        weight, description = float(match["weight"] or 1), match["description"] or ""
        rows.append({"name": match["name"], "description": description, "weight": weight})
    return checked_rubric(rows)


def _said(row: Mapping[str, Any]) -> str:
    """A problem of a field in words."""
    if row["type"] == "string_pattern_mismatch":
        return f"{row['input']!r:.60} must begin with a letter or digit, and hold only those, blanks, - and /"
    return str(row["msg"])


def lines_of_rubric(rubric: Sequence[Mapping[str, Any]]) -> str:
    """The text that `rubric_of_lines` reads."""
    return "\n".join(
        ("" if each["weight"] == 1 else f"{each['weight']:g} x ")
        + each["name"]
        + (f": {' '.join(each['description'].split())}" if each["description"] else "")
        for each in rubric
    )
