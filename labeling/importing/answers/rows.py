"""Rows of imported and exported answers: preferences between two documents, and grades of single raters.

Texts, candidates and grades are in `labeling.records`. Imports no Django.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labeling.records import AnswerKind, check_answer


@dataclass(frozen=True, slots=True)
class ImportedPreference:
    """One annotator's answer in a file. `preference` = P(a is the more relevant), None unless `kind` is PREFERENCE.

    `swapped`: b was shown first. `annotator_key`: the source's own id of the annotator, where two may share a name.
    `second_query_id`: the query of b in an answer across queries, else empty. Raises ValueError for a bad preference.
    """

    query_id: str
    a_id: str
    b_id: str
    preference: float | None
    kind: AnswerKind = AnswerKind.PREFERENCE
    annotator: str = "imported"
    annotator_key: str = ""
    by_person: bool = False
    swapped: bool = False
    rationale: str = ""
    second_query_id: str = ""
    line: int = 0

    def __post_init__(self) -> None:
        check_answer(self.kind, self.preference)

    @property
    def query_b(self) -> str:
        return self.second_query_id or self.query_id


@dataclass(frozen=True, slots=True)
class ImportedRating:
    """One rater's grade (an integer >= 0) of a document for a query. Several raters may grade the same document."""

    query_id: str
    document_id: str
    grade: int
    annotator: str = "imported"
    annotator_key: str = ""
    by_person: bool = True
    line: int = 0


@dataclass(frozen=True, slots=True)
class ExportedJudgment:
    """One live judgment by imported ids. `preference` = P(a is the more relevant); `created_at` in ISO 8601."""

    query_a: str
    document_a: str
    query_b: str
    document_b: str
    annotator: str
    annotator_id: int
    by_person: bool
    swapped: bool
    kind: str
    preference: float | None
    rationale: str
    created_at: str


@dataclass(frozen=True, slots=True)
class ExportedText:
    """One text of the project, once: `kind` is "document" or "query"."""

    kind: str
    id: str
    text: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ExportedPair:
    """Two judged documents of a query with their texts; `preference`: mean of the live answers, None without any."""

    query_id: str
    query: str
    a_id: str
    a: str
    b_id: str
    b: str
    preference: float | None
    answers: int
