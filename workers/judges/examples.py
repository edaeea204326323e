"""Worked examples in a judge's prompt: people's answers to other queries, chosen to cover what the project asks.

The option `examples` of the language-model judges holds them, so that they are part of a judge's identity.
`workers.judging.teaching` chooses them from gold and people's answers. Imports no Django.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pydantic
from scipy import sparse

from labeling.records import Comparison, FloatArray
from labeling.retrieval.tokenize import CollectionStatistics, words
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
    asked = {comparison.query_a.id, comparison.query_b.id}
    return [example for example in examples if example.query_id not in asked]


def choose_examples(
    known: Sequence[WorkedExample], count: int, *, like: Sequence[str] = (), rng: np.random.Generator
) -> list[WorkedExample]:
    """Choose up to `count` examples by coverage, at most one a query, half of them with the answer A.

    Greedy facility location: each choice adds the most similarity between the texts to be covered (`like`, by default the
    examples themselves) and their nearest chosen example; similarity is the cosine of TF-IDF vectors. A pair with a note
    is preferred to an equal one without.
    """
    pool = [known[place] for place in rng.permutation(len(known))]
    if not pool or count < 1:
        return []
    texts = [f"{each.query}\n{each.first}\n{each.second}" for each in pool]
    similarity = _cosines(list(like) or texts, texts)
    gain_of_note = np.array([1.0 if each.why else 0.9 for each in pool])
    covered = np.zeros(len(similarity))
    is_open = np.ones(len(pool), dtype=bool)
    chosen: list[WorkedExample] = []
    while len(chosen) < count and is_open.any():
        gains = np.maximum(similarity - covered[:, None], 0.0).sum(axis=0) * gain_of_note
        best = int(np.argmax(np.where(is_open, gains, -1.0)))
        covered = np.maximum(covered, similarity[:, best])
        is_open &= np.array([each.query_id != pool[best].query_id for each in pool])
        wants_a = len(chosen) % 2 == 0
        chosen.append(pool[best] if (pool[best].label == "A") == wants_a else pool[best].turned())
    return chosen


def _cosines(rows: Sequence[str], columns: Sequence[str]) -> FloatArray:
    """Cosines of TF-IDF vectors, float64[rows, columns]."""
    statistics = CollectionStatistics.of([*rows, *columns])
    places = {term: place for place, term in enumerate(statistics.document_frequency)}

    def vectors(texts: Sequence[str]) -> sparse.csr_array:
        values, row_of, column_of = [], [], []
        for row, text in enumerate(texts):
            counts = Counter(words(text))
            weights = np.array([math.sqrt(n) * statistics.idf(term) for term, n in counts.items()])
            values += (weights / (np.linalg.norm(weights) or 1.0)).tolist()
            row_of += [row] * len(counts)
            column_of += [places[term] for term in counts]
        return sparse.csr_array((values, (row_of, column_of)), shape=(len(texts), len(places)))

    return np.asarray((vectors(rows) @ vectors(columns).T).toarray(), dtype=np.float64)
