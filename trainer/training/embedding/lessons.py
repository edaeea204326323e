"""Data of an embedding training: tokenised queries with candidates, and held-out queries.

Imports no Django.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from labeling.records import Examples, FloatArray
from scoring.numerics.measures.rankings import ndcg
from trainer.training.dev_ndcg import NDCG_AT, not_finite
from trainer.training.embedding.bi_encoder import BiEncoder
from trainer.training.embedding.line_search import SCALES
from trainer.training.losses.elo import elo_of

Tokens = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Lesson:
    """One training query: tokens of the query and of its candidates, `elo` float[n], its weight.

    `base_cosines` float[n] under the untrained base; empty if nothing pulls towards it.
    """

    query: Tokens
    documents: Sequence[Tokens]
    elo: torch.Tensor
    weight: float
    base_cosines: torch.Tensor

    @property
    def tokens(self) -> int:
        return sum(len(each["input_ids"]) for each in (self.query, *self.documents))


@dataclass(frozen=True, slots=True)
class Lessons:
    """All training queries; `cut` documents are longer than `max_length` tokens, the longest text has `longest`."""

    lessons: Sequence[Lesson]
    cut: int
    longest: int


def make_lessons(
    model: BiEncoder, examples: Examples, queries: Sequence[slice], *, max_length: int, most: int, pull: bool
) -> Lessons:
    """Tokenise the queries and their candidates; equal texts share their tokens."""
    elo = elo_of(examples)
    limit = min(max_length, model.whole_length)
    texts = list(dict.fromkeys(examples.documents[at] for rows in queries for at in range(rows.start, rows.stop)))
    asked = [examples.queries[rows.start] for rows in queries]
    documents = dict(zip(texts, _tokenised(model, texts, "document", limit), strict=True))
    cosines = _base_cosines(model, examples, queries, max_length=limit, most=most) if pull else []
    lessons = [
        Lesson(
            query=own,
            documents=[documents[examples.documents[at]] for at in range(rows.start, rows.stop)],
            elo=torch.tensor(elo[rows], dtype=torch.float32),
            weight=float(examples.weights[rows].mean()),
            base_cosines=cosines[number] if pull else torch.zeros(0),
        )
        for number, (own, rows) in enumerate(zip(_tokenised(model, asked, "query", limit), queries, strict=True))
    ]
    lengths = [len(each["input_ids"]) for each in documents.values()]
    return Lessons(lessons, cut=sum(length >= limit for length in lengths), longest=max(lengths))


def _tokenised(model: BiEncoder, texts: Sequence[str], role: str, limit: int) -> list[Tokens]:
    return [
        own
        for at in range(0, len(texts), 256)
        for own in model.tokens(texts[at : at + 256], "query" if role == "query" else "document", max_length=limit)
    ]


def _base_cosines(
    model: BiEncoder, examples: Examples, queries: Sequence[slice], *, max_length: int, most: int
) -> list[torch.Tensor]:
    model.at_scale(0.0)
    found = _cosines(model, examples, queries, max_length=max_length, most=most)
    model.at_scale(1.0)
    return found


def _cosines(
    model: BiEncoder, examples: Examples, queries: Sequence[slice], *, max_length: int, most: int
) -> list[torch.Tensor]:
    """Cosines of each query with its candidates; each distinct text is computed once."""
    was_training = model.training
    model.eval()
    texts = list(dict.fromkeys(examples.documents[at] for rows in queries for at in range(rows.start, rows.stop)))
    place = {text: at for at, text in enumerate(texts)}
    vectors = model.encode(texts, "document", most=most, max_length=max_length)
    asked = model.encode([examples.queries[rows.start] for rows in queries], "query", most=most, max_length=max_length)
    model.train(was_training)
    return [
        vectors[[place[examples.documents[at]] for at in range(rows.start, rows.stop)]] @ own
        for rows, own in zip(queries, asked, strict=True)
    ]


class HeldOut:
    """Queries that rank a checkpoint: NDCG@10 of each at every scale of the adapter, with relevance as gain."""

    def __init__(
        self, model: BiEncoder, examples: Examples, queries: Sequence[slice], *, most: int, length: int = 0
    ) -> None:
        self._model, self._examples, self._queries, self._most = model, examples, list(queries), most
        self._length = length or model.whole_length
        self._base: FloatArray | None = None

    def __len__(self) -> int:
        return len(self._queries)

    def values(self) -> FloatArray:
        """float64[queries, scales] of the model as it is, in the order of `SCALES`; texts of at most `length` tokens (0: as served).

        Raises LossNotFinite.
        """
        if self._base is None:
            self._base = self._at(0.0)
        columns = [self._base, *(self._at(scale) for scale in SCALES[1:])]
        self._model.at_scale(1.0)
        return np.column_stack(columns)

    def _at(self, scale: float) -> FloatArray:
        self._model.at_scale(scale)
        cosines = _cosines(self._model, self._examples, self._queries, max_length=self._length, most=self._most)
        if not all(bool(torch.isfinite(own).all()) for own in cosines):
            raise not_finite("a cosine of a held-out query")
        return np.array(
            [
                ndcg(own.numpy().astype(np.float64), self._examples.labels[rows], NDCG_AT)
                for own, rows in zip(cosines, self._queries, strict=True)
            ]
        )
