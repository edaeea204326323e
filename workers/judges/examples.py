"""Worked examples in a judge's prompt: people's answers to other queries.

The option `examples` of the language-model judges holds them, so that they are part of a judge's identity.
`workers.jobs.teaching` chooses them from gold and people's answers. Imports no Django.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import pydantic

from labeling.records import Comparison
from scoring.numerics.measures.sides import TIE

MOST_EXAMPLES = 16
MOST_CHARACTERS = 4000


class WorkedExample(pydantic.BaseModel):
    """One answered pair. `preference` = P(the first document is the more relevant), no tie; `query_id` is the query's
    primary key, so that no question about that query gets its own answers.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    query_id: int
    query: str = pydantic.Field(max_length=MOST_CHARACTERS)
    first: str = pydantic.Field(max_length=MOST_CHARACTERS)
    second: str = pydantic.Field(max_length=MOST_CHARACTERS)
    preference: float = pydantic.Field(ge=0, le=1)
    why: str = pydantic.Field(default="", max_length=MOST_CHARACTERS)

    @pydantic.field_validator("preference")
    @classmethod
    def _takes_a_side(cls, value: float) -> float:
        if abs(value - 0.5) <= TIE:
            raise ValueError(f"is {value:g}, a tie; an example shows which document is the more relevant")
        return value

    @property
    def label(self) -> str:
        return "A" if self.preference > 0.5 else "B"

    def turned(self) -> WorkedExample:
        """The same answer with the documents in the other order."""
        changes = {"first": self.second, "second": self.first, "preference": 1.0 - self.preference}
        return self.model_copy(update=changes)


Examples = tuple[WorkedExample, ...]


def examples_for(comparison: Comparison, examples: Sequence[WorkedExample]) -> list[WorkedExample]:
    """The examples that this question may show: none about a query that it asks."""
    asked = (comparison.query_a, comparison.query_b)
    ids, texts = {each.id for each in asked}, {_bare(each.text) for each in asked}
    return [each for each in examples if each.query_id not in ids and _bare(each.query) not in texts]


def _bare(text: str) -> str:
    """The words of a query, so that "Who won?" and "who  won" count as one."""
    return " ".join(re.findall(r"\w+", text.casefold())) or text
