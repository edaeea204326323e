"""The base of judges that score each document by itself and prefer the higher score.

`lexical` and `embedding` are subclasses. A score means nothing outside its query, so preferences rest on
standardised scores: (score - mean) / deviation over the query's candidates. Imports no Django.
"""

from __future__ import annotations

import abc
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from scipy.special import expit

from labeling.plugins import Judge
from labeling.records import Collection, Comparison, Failure, FailureKind, FloatArray, TextRecord, Verdict

STEEPNESS = 1.5  # a difference of one deviation gives a preference of 0.82
QUERIES_KEPT = 1024

Key = TypeVar("Key")
Value = TypeVar("Value")


class NotPrepared(RuntimeError):
    """`judge` was called before `prepare`."""


class Recent(Generic[Key, Value]):
    """An LRU cache with at most `capacity` entries."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._entries: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: Key, value: Value) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        while len(self._entries) > self.capacity:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)


@dataclass(frozen=True, slots=True)
class StandardisedScores:
    """The standardised scores of one query's candidates by document id; None if all scores are equal."""

    by_document: dict[int, float] | None
    documents: frozenset[int]

    @classmethod
    def of(cls, documents: Sequence[TextRecord], scores: FloatArray) -> StandardisedScores:
        """From raw scores float64[len(documents)]. A deviation lost in rounding counts as zero."""
        ids = [document.id for document in documents]
        deviation = float(np.std(scores)) if len(scores) else 0.0
        if deviation <= 1e-9 * (1.0 + float(np.max(np.abs(scores), initial=0.0))):
            return cls(None, frozenset(ids))
        standardised = (scores - np.mean(scores)) / deviation
        return cls(dict(zip(ids, standardised.tolist(), strict=True)), frozenset(ids))


class ScoreDifferenceJudge(Judge):
    """preference = sigmoid(1.5 x difference of standardised scores); 0.5 if all scores of a query are equal.

    Within a query this is the difference of scores over their deviation; across queries each score is
    standardised within its own query. The order of presentation has no effect. Subclasses implement `score`.
    """

    # A batch covers several whole queries: scoring all candidates of a query is the main cost, and every
    # process that gets a part of a query repeats it.
    batch_size = 2048
    can_drift = False

    def __init__(self, options: Judge.Options | None = None) -> None:
        super().__init__(options)
        self._collection: Collection | None = None
        self._scores: Recent[int, StandardisedScores] = Recent(QUERIES_KEPT)

    @abc.abstractmethod
    def score(self, query: TextRecord, documents: Sequence[TextRecord]) -> FloatArray:
        """One score per document, float64[len(documents)], larger is more relevant."""

    def prepare(self, collection: Collection) -> None:
        self._collection = collection
        self._scores = Recent(QUERIES_KEPT)

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        if self._collection is None:
            raise NotPrepared(f"judge {self.name!r} was asked before it was prepared; call prepare(collection) first")
        return [self._answer(comparison, self._collection) for comparison in comparisons]

    def _answer(self, comparison: Comparison, collection: Collection) -> Verdict | Failure:
        sides = ((comparison.query_a, comparison.a), (comparison.query_b, comparison.b))
        standardised = []
        for query, document in sides:
            scores = self._query_scores(query, document, collection)
            if document.id not in scores.documents:
                return Failure(
                    kind=FailureKind.BAD_REQUEST,
                    message=f"document {document.id} is not a candidate of query {query.id}; draw the pairs again",
                    retryable=False,
                )
            if scores.by_document is None:
                return Verdict(preference=0.5)
            standardised.append(scores.by_document[document.id])
        return Verdict(preference=float(expit(STEEPNESS * (standardised[0] - standardised[1]))))

    def _query_scores(self, query: TextRecord, document: TextRecord, collection: Collection) -> StandardisedScores:
        """The cached scores of the query's candidates; computed again where the document is new."""
        kept = self._scores.get(query.id)
        if kept is not None and document.id in kept.documents:
            return kept
        candidates = collection.candidates(query.id)
        scores = StandardisedScores.of(candidates, self.score(query, candidates))
        self._scores.put(query.id, scores)
        return scores


def lookup_or_compute(
    cache: Recent[int, Value], records: Sequence[TextRecord], compute: Callable[[Sequence[TextRecord]], list[Value]]
) -> list[Value]:
    """One value per record, in order; `compute` is called once, with the records missing from the cache."""
    found = {record.id: value for record in records if (value := cache.get(record.id)) is not None}
    missing = [record for record in records if record.id not in found]
    if missing:
        for record, value in zip(missing, compute(missing), strict=True):
            found[record.id] = value
            cache.put(record.id, value)
    return [found[record.id] for record in records]
