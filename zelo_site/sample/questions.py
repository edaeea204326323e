"""The sample's questions in plain words, with answers graded by hand, read from `questions.json`.

The answers were chosen by hand, then checked against their docstrings and against the results of BM25 and
embeddings, so that they favour neither. They name documents of `docstrings` in Python 3.11; later versions
may lack a few. Imports no Django.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its grades by qualified name: 3 answers it exactly, 2 is good, 1 is related."""

    id: str
    text: str
    domain: str
    grades: Mapping[str, int]


def sample_questions(names: Collection[str] | None = None) -> list[Question]:
    """Return all questions in file order; `names` limits the grades to these documents."""
    file = importlib.resources.files(__package__).joinpath("questions.json")
    questions = [Question(**row) for row in json.loads(file.read_text(encoding="utf-8"))]
    if names is None:
        return questions
    return [
        replace(question, grades={name: grade for name, grade in question.grades.items() if name in names})
        for question in questions
    ]
