"""Criteria of a rubric: the model scores each, and stated weights combine the scores. Imports no Django."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from labeling.stored_texts import stored_text

MOST_CRITERIA = 8
RESERVED = {"score", "scores", "reasoning"}
BAD_NAME = stored_text("%(name)s is a word of the answer's format; choose another name")
NAMES_TWICE = stored_text("the criterion %(name)s is there twice; names must differ in more than case")


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
