"""The sample's questions in plain words, with answers graded by hand, read from `questions.json`.

Answers were named from knowledge of the library, then checked against their docstrings and against what
BM25 and embeddings find, so that they favour neither. They name documents of `docstrings` as of Python
3.11; a later version may lack a few. Imports no Django.
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
    """All questions in the file's order; with `names`, only grades of documents that are among them."""
    file = importlib.resources.files(__package__).joinpath("questions.json")
    questions = [Question(**row) for row in json.loads(file.read_text(encoding="utf-8"))]
    if names is None:
        return questions
    return [
        replace(question, grades={name: grade for name, grade in question.grades.items() if name in names})
        for question in questions
    ]
