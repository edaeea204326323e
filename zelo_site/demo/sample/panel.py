"""The recorded panel of the sample: questions with candidates, answers of three judges, grades, and the judges' prompts.

The answers and the grades come from a large language model; `docs/sample.md` says how. They were recorded on Python 3.11: a text is
found by its qualified name and a hash, and what refers to other texts is left out. `packing` makes the files. Imports no Django.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.resources
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any

HASH_DIGITS = 16
FOLDER = "recorded"
QUESTIONS, ANSWERS, GRADES, PROMPTS = "questions.json.gz", "answers.jsonl.gz", "grades.jsonl.gz", "prompts.json"
GRADED, TRAINING = "graded", "training"
# P(the first document is better) of the five verdicts, by their score: the steps of people's answer scale.
PREFERENCES = {-0.9: 0.95, -0.4: 0.75, 0.0: 0.5, 0.4: 0.25, 0.9: 0.05}


@dataclass(frozen=True, slots=True)
class PanelQuestion:
    """A question of the panel; `candidates` are (qualified name, hash of the text) in first-stage order."""

    id: str
    domain: str
    text: str
    part: str
    candidates: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PanelAnswer:
    """A verdict: `a` was shown first; `preference` is P(a is better)."""

    query: str
    a: str
    b: str
    judge: str
    preference: float
    rationale: str = ""


@dataclass(frozen=True, slots=True)
class FoundTexts:
    """The part of the panel about texts of this Python: names of candidates by question, and counts of both."""

    candidates: Mapping[str, tuple[str, ...]]
    known: int
    left_out: int


@dataclass(frozen=True, slots=True)
class Panel:
    """Everything that was recorded; a grade is the smallest of those that the grader's `passes` gave."""

    questions: tuple[PanelQuestion, ...]
    answers: tuple[PanelAnswer, ...]
    grades: Mapping[str, Mapping[str, int]]
    prompts: Mapping[str, str]
    passes: Mapping[str, Mapping[str, tuple[int, ...]]]

    @property
    def test_ids(self) -> frozenset[str]:
        """Ids of the test questions: those that were graded and have a candidate with a positive grade.

        Every order of the candidates of the other graded questions has the same NDCG, so they are questions to learn from.
        """
        return frozenset(
            each.id
            for each in self.questions
            if each.part == GRADED and any(self.grades.get(each.id, {}).get(name) for name, _ in each.candidates)
        )

    def only(self, ids: Collection[str]) -> Panel:
        """The part about some questions."""
        return Panel(
            tuple(each for each in self.questions if each.id in ids),
            tuple(each for each in self.answers if each.query in ids),
            {query: own for query, own in self.grades.items() if query in ids},
            self.prompts,
            {query: own for query, own in self.passes.items() if query in ids},
        )

    def found(self, documents: Mapping[str, str]) -> FoundTexts:
        """The candidates whose text is the recorded one. `documents`: text by qualified name."""
        hashes = {name: text_hash(text) for name, text in documents.items()}
        candidates = {
            each.id: tuple(name for name, own in each.candidates if hashes.get(name) == own) for each in self.questions
        }
        there = {query: set(names) for query, names in candidates.items()}
        known = sum(each.a in there[each.query] and each.b in there[each.query] for each in self.answers)
        return FoundTexts(candidates, known, len(self.answers) - known)

    def lines(self) -> Iterator[bytes]:
        """The answers as a file for the judge `recorded`, with the hashes of the texts."""
        hashes = {each.id: dict(each.candidates) for each in self.questions}
        for each in self.answers:
            own = hashes[each.query]
            row = {
                "query": each.query, "a": each.a, "b": each.b, "preference": each.preference, "judge": each.judge,
                "a_hash": own[each.a], "b_hash": own[each.b],
            }  # fmt: skip
            yield json.dumps(row | ({"rationale": each.rationale} if each.rationale else {})).encode() + b"\n"


def text_hash(text: str) -> str:
    """The first digits of the SHA-256 of a document's text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_DIGITS]


@functools.cache
def sample_panel() -> Panel:
    """Return the panel that comes with the sample."""
    return read_panel(importlib.resources.files(__package__).joinpath(FOLDER))


def read_panel(folder: Traversable) -> Panel:
    """Return the panel in a folder of packed files."""
    questions = tuple(
        PanelQuestion(**{**row, "candidates": tuple((name, own) for name, own in row["candidates"])})
        for row in json.loads(_unpacked(folder, QUESTIONS))
    )
    grades: dict[str, dict[str, int]] = {}
    passes: dict[str, dict[str, tuple[int, ...]]] = {}
    for row in _rows(folder, GRADES):
        grades.setdefault(row["query"], {})[row["document"]] = int(row["grade"])
        passes.setdefault(row["query"], {})[row["document"]] = tuple(row["passes"])
    answers = tuple(
        PanelAnswer(
            row["query"], row["a"], row["b"], row["judge"], PREFERENCES[row["score"]], row.get("rationale") or ""
        )
        for row in _rows(folder, ANSWERS)
    )
    prompts = json.loads(folder.joinpath(PROMPTS).read_text(encoding="utf-8"))
    return Panel(questions, answers, grades, prompts, passes)


def _rows(folder: Traversable, name: str) -> Iterator[dict[str, Any]]:
    for line in _unpacked(folder, name).splitlines():
        yield json.loads(line)


def _unpacked(folder: Traversable, name: str) -> bytes:
    return gzip.decompress(folder.joinpath(name).read_bytes())
