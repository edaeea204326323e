"""Frozen values that plugins receive and return.

Imports no Django, so that judges, samplers and raters run without a database. The tables of `labeling.models` use the
same vocabulary.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class AnswerKind(enum.StrEnum):
    """Kinds of answers. A tie is a preference of 0.5, never a missing answer."""

    PREFERENCE = "preference"
    BOTH_IRRELEVANT = "both_irrelevant"
    CANNOT_JUDGE = "cannot_judge"


class FailureKind(enum.StrEnum):
    """Reasons for a missing answer. None of these enters a fit."""

    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"
    RATE_LIMITED = "rate_limited"
    REFUSAL = "refusal"
    UNPARSEABLE = "unparseable"
    LABEL_MASS = "label_mass"
    CONTEXT_OVERFLOW = "context_overflow"
    CONTENT_FILTER = "content_filter"
    OVER_BUDGET = "over_budget"
    BAD_REQUEST = "bad_request"
    JUDGE_ERROR = "judge_error"
    NOT_RECORDED = "not_recorded"


# --- import and export -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ImportedDocument:
    """One document of a query in a file, or a document alone, which then has its 1-based `line`.

    `rank` is 1-based, `score` any finite number, `grade` a person's grade (an integer >= 0); a document alone has none.
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    rank: int | None = None
    score: float | None = None
    grade: int | None = None
    line: int = 0


@dataclass(frozen=True, slots=True)
class ImportedQuery:
    """One query with its candidates, in the file's order; `line` is 1-based."""

    id: str
    text: str
    documents: tuple[ImportedDocument, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0


@dataclass(frozen=True, slots=True)
class ImportedCandidate:
    """A candidate by its ids, without texts, as in a run. A `score` without a `rank` is ranked within its query."""

    query_id: str
    document_id: str
    rank: int | None = None
    score: float | None = None
    line: int = 0


@dataclass(frozen=True, slots=True)
class ImportedGrade:
    """A human grade (an integer >= 0) of one document for one query."""

    query_id: str
    document_id: str
    grade: int
    line: int = 0


@dataclass(frozen=True, slots=True)
class ExportedDocument:
    """A candidate with its scores, which are None if it has not been rated."""

    id: str
    text: str
    metadata: Mapping[str, Any]
    theta: float | None
    stderr: float | None
    elo: float | None
    relevance: float | None
    comparisons: int
    grade: int | None
    first_stage_rank: int | None
    first_stage_score: float | None = None


@dataclass(frozen=True, slots=True)
class ExportedQuery:
    """A query with its candidates, best Elo first; unrated ones last."""

    id: str
    text: str
    metadata: Mapping[str, Any]
    documents: tuple[ExportedDocument, ...]


# --- judging -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TextRecord:
    """A query or a document by its primary key."""

    id: int
    text: str


class Collection(Protocol):
    """The texts that a judge may read in `prepare`, never grades."""

    def documents(self) -> Iterator[TextRecord]:
        """Every document of the project, in id order."""
        ...

    def candidates(self, query_id: int) -> Sequence[TextRecord]:
        """The candidate documents of one query, in id order."""
        ...

    def query(self, query_id: int) -> TextRecord:
        """One query."""
        ...

    def named_documents(self, names: Sequence[str]) -> Mapping[str, TextRecord]:
        """Documents by their imported id, without unknown ones."""
        ...

    def named_queries(self, names: Sequence[str]) -> Mapping[str, TextRecord]:
        """Queries by their imported id, without unknown ones."""
        ...


@dataclass(frozen=True, slots=True)
class Comparison:
    """One question to a judge: is `a` more relevant to its query than `b` to its own?

    `swapped`: present b first. `query_b` equals `query_a` unless the pair is a cross-query pair. `key` belongs to the
    caller; answers return in the order of the comparisons. `documents`: for a question about a set, all its documents in
    the order in which they are shown, a and b among them; empty for a pair. Only judges with a `set_size` above 2 get sets.
    """

    key: int
    query_a: TextRecord
    query_b: TextRecord
    a: TextRecord
    b: TextRecord
    swapped: bool = False
    instruction: str = ""
    documents: tuple[TextRecord, ...] = ()

    @property
    def shown(self) -> tuple[TextRecord, ...]:
        """The documents in the order in which they are shown: two of a pair, or those of the set."""
        return self.documents or (self.first, self.second)

    @property
    def cross_query(self) -> bool:
        return self.query_a.id != self.query_b.id

    @property
    def first(self) -> TextRecord:
        """The document presented first."""
        return self.b if self.swapped else self.a

    @property
    def second(self) -> TextRecord:
        """The document presented second."""
        return self.a if self.swapped else self.b

    def preference_of_a(self, preference_of_first: float) -> float:
        """Turn P(first is the more relevant) into P(a is the more relevant)."""
        return 1.0 - preference_of_first if self.swapped else preference_of_first


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, cost in millionths of a dollar, and latency in seconds of one comparison.

    `calls`: the usage of each call if there were several, of which the other fields are the sums; empty for one call.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cost_micros: int = 0
    latency_s: float = 0.0
    calls: tuple[Usage, ...] = ()


@dataclass(frozen=True, slots=True)
class PlacedPreference:
    """One preference from a question about a set: P(the document at place `one` beats that at `other`), in [0, 1].

    Places count from 0 in the order in which the documents were shown. Raises ValueError for anything else.
    """

    one: int
    other: int
    preference: float

    def __post_init__(self) -> None:
        check_answer(AnswerKind.PREFERENCE, self.preference)
        if min(self.one, self.other) < 0 or self.one == self.other:
            raise ValueError(f"places are {self.one} and {self.other}; expected two different places from 0")


@dataclass(frozen=True, slots=True)
class PointwiseGrade:
    """A model's grade of one candidate, as a share of its scale in [0, 1]. Raises ValueError outside it."""

    query_id: int
    document_id: int
    value: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.value <= 1.0:
            raise ValueError(f"a grade is {self.value!r}; expected a share of the scale in [0, 1]")


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's answer. `preference` = P(a is the more relevant) in [0, 1] if `kind` is PREFERENCE, else None.

    `placed`: the preferences that answer a question about a set, which are stored instead of `preference`; empty for a
    pair. `grades`: grades of single documents on which the answer rests; they are stored apart from people's. Raises
    ValueError for anything else, NaN included.
    """

    preference: float | None
    kind: AnswerKind = AnswerKind.PREFERENCE
    rationale: str = ""
    truncated: bool = False
    usage: Usage = Usage()
    placed: tuple[PlacedPreference, ...] = ()
    grades: tuple[PointwiseGrade, ...] = ()

    def __post_init__(self) -> None:
        check_answer(self.kind, self.preference)

    @classmethod
    def on_set(cls, placed: Sequence[PlacedPreference], **rest: Any) -> Verdict:
        """The answer to a question about a set. Raises ValueError without any preference."""
        if not placed:
            raise ValueError("an answer about a set holds no preference; report a Failure instead")
        return cls(preference=placed[0].preference, placed=tuple(placed), **rest)


@dataclass(frozen=True, slots=True)
class Failure:
    """A missing answer and its reason. `retryable`: whether a retry can help; `retry_after_s`: the delay before it."""

    kind: FailureKind
    message: str
    retryable: bool
    retry_after_s: float | None = None
    usage: Usage = Usage()


def check_answer(kind: AnswerKind, preference: float | None) -> None:
    """Raise ValueError unless `preference` fits `kind`: in [0, 1] for a preference, None otherwise."""
    if kind is AnswerKind.PREFERENCE:
        if preference is None or not math.isfinite(preference) or not 0.0 <= preference <= 1.0:
            raise ValueError(
                f"preference is {preference!r}; expected P(a is the more relevant) in [0, 1]; "
                "report a missing answer as a Failure, not as a number"
            )
    elif preference is not None:
        raise ValueError(f"preference is {preference!r} with the answer {kind.value!r}; expected None")


@dataclass(frozen=True, slots=True)
class CallPlaces:
    """The places of a judgment's two documents in a call about a set of `size` documents; places count from 0.

    Judgments with the same `call` come from one call, so their errors are correlated.
    """

    call: int
    size: int
    a: int
    b: int


@dataclass(frozen=True, slots=True)
class NewJudgment:
    """A new answer for `labeling.judgments.record_judgments`; `places` if it comes from a call about a set."""

    pair_id: int
    annotator_id: int
    swapped: bool
    preference: float | None
    kind: AnswerKind = AnswerKind.PREFERENCE
    rationale: str = ""
    truncated: bool = False
    places: CallPlaces | None = None

    def __post_init__(self) -> None:
        check_answer(self.kind, self.preference)


# --- pairs -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QueryState:
    """The state of one query for a sampler. Candidates are 0 .. size - 1.

    `pairs` is int64[m, 2] with a < b: distinct pairs already drawn, judged or not. `theta` and
    `weight`, where the query has been rated: strengths float64[size] and the summed vote weight
    float64[m] of each pair (0 where unanswered). `preference` float64[m] is its mean preference, without
    position biases that the strengths leave out (NaN where unanswered). `first_stage_rank` int64[size] is 1-based, 0 where unknown. `free` bool[m], or None: pairs that only a
    student of the run's judges has answered, whose weight is that of a student's vote and which may be drawn again.
    `recorded` int64[r, 2], a < b, or None: the pairs for which a judge of the run has a recorded answer, or that the run's
    order names and that are left to ask; the samplers `recorded` and `named` draw only these.
    """

    size: int
    pairs: IntArray
    first_stage_rank: IntArray
    theta: FloatArray | None = None
    preference: FloatArray | None = None
    weight: FloatArray | None = None
    prior_precision: float = 0.1
    logit_scale: float = 2.41
    free: BoolArray | None = None
    recorded: IntArray | None = None


# --- rating ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ComparisonColumns:
    """Votes of Q queries, query after query.

    Rows offsets[q] .. offsets[q + 1] belong to query q, whose candidates are 0 .. sizes[q] - 1.
    `a`, `b` int64[m] local indices; `preference` float64[m] in [0, 1]; `weight` float64[m] >= 0;
    `judge` int64[m] index of the annotator; `swapped` bool[m] whether b was presented first.
    """

    a: IntArray
    b: IntArray
    preference: FloatArray
    weight: FloatArray
    judge: IntArray
    swapped: BoolArray
    offsets: IntArray
    sizes: IntArray

    @property
    def queries(self) -> int:
        return len(self.sizes)


@dataclass(frozen=True, slots=True)
class Fit:
    """Strengths of Q queries laid end to end; query q owns starts[q] .. starts[q + 1].

    `theta`, `stderr` float64[sum sizes], natural units of the model, mean zero within a query;
    multiply by `logit_scale` for logits. `dispersion` float64[Q]; `gradient_norm` float64[Q];
    `iterations` int64[Q]; `component` int64[sum sizes] numbers the connected components of each query from 0;
    `comparisons` int64[sum sizes] distinct pairs a candidate took part in; `undefeated`, `winless`
    bool[sum sizes].
    """

    theta: FloatArray
    stderr: FloatArray
    starts: IntArray
    dispersion: FloatArray
    gradient_norm: FloatArray
    iterations: IntArray
    component: IntArray
    comparisons: IntArray
    undefeated: BoolArray
    winless: BoolArray
    prior_precision: float
    logit_scale: float


# --- training ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Examples:
    """Training or dev rows as columns: entry i is one query with one document.

    `labels` float64[n] calibrated relevance in [0, 1]; `weights` float64[n] weights of the rows, 1 on average;
    `query_ids` int64[n]: rows of one query have the same number and stand together; `elo` float64[n], None where the rows
    hold no Elo; `instructions` of the queries, empty where the rows hold none.
    """

    queries: Sequence[str]
    documents: Sequence[str]
    labels: FloatArray
    weights: FloatArray
    query_ids: IntArray
    elo: FloatArray | None = None
    instructions: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class PairExamples:
    """Judged pairs of documents as columns: entry i is one query with two documents.

    `preferences` float64[n]: the panel's mean P(a is the more relevant); `weights` float64[n], 1 on average; `query_ids`
    int64[n]: pairs of one query stand together; `a_ids`, `b_ids` int64[n] name the candidates within a query.
    """

    queries: Sequence[str]
    a: Sequence[str]
    b: Sequence[str]
    instructions: Sequence[str]
    preferences: FloatArray
    weights: FloatArray
    query_ids: IntArray
    a_ids: IntArray
    b_ids: IntArray

    def __len__(self) -> int:
        return len(self.preferences)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The rows of a snapshot for a trainer: training rows, and dev rows that choose the checkpoint (may be empty).

    The pairs are there for trainers that learn from pairs, None for the others.
    """

    train: Examples
    dev: Examples
    train_pairs: PairExamples | None = None
    dev_pairs: PairExamples | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a training: the folder of a PEFT adapter in safetensors, and its base model.

    `max_length` is in tokens, of query and document together or, for a bi-encoder, of each text; `facts` are plain values
    for the model card. `embedding_sizes` are those that a bi-encoder was trained for, the whole one first; `token_weight` is the share of
    token similarity in its scores, `list_weight` that of the similarity to the other documents. `reads_instruction`: it was trained with instructions before its queries. `base_won`: no
    checkpoint ranks the dev split better than the untrained base, so there is nothing to publish.
    """

    adapter: Path
    base: str
    max_length: int
    facts: Mapping[str, Any]
    form: Literal["cross-encoder", "bi-encoder", "pairwise"] = "cross-encoder"
    embedding_sizes: tuple[int, ...] = ()
    token_weight: float = 0.0
    list_weight: float = 0.0
    base_won: bool = False
    reads_instruction: bool = False
