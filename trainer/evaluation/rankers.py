"""The orders that an evaluation compares: each gives one score for every document of every query.

First stage, Elo and judges use stored values; BM25 and cosine are computed on the same candidates; external rerankers and
run files represent the systems that people use today. Imports no Django.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from labeling.records import FloatArray, TextRecord
from labeling.retrieval.bm25 import BM25Index
from labeling.retrieval.embedder import DEFAULT_EMBEDDER, Float32Array, cosines, load_embedder
from labeling.retrieval.query_instruction import with_instruction
from scoring.numerics.measures.rankings import run_ranks
from trainer.evaluation.external.rerankers import OutsideEndpoint, OutsideReranker
from trainer.evaluation.matching import is_all_equal
from trainer.evaluation.metrics import EvaluationQuery, RunRanks

MOST_VECTORS = 50_000  # 75 MB at 384 dimensions
TEXTS_TOGETHER = 400
Progress = Callable[[int, int], None]


class Order(Protocol):
    """Scores of queries, one float64[n] per query over its candidates; higher is better, NaN for no score."""

    def scores(self, queries: Sequence[EvaluationQuery], progress: Progress) -> list[FloatArray]: ...


class FirstStage:
    """The rank of each candidate in the first stage."""

    def scores(self, queries: Sequence[EvaluationQuery], progress: Progress) -> list[FloatArray]:
        return [-query.first_stage_rank for query in queries]


class Elo:
    """Elo from the judgments: the upper bound for a model trained on it."""

    def scores(self, queries: Sequence[EvaluationQuery], progress: Progress) -> list[FloatArray]:
        return [query.elo for query in queries]


class Strengths:
    """Given strengths by candidate id, such as those of one judge alone."""

    def __init__(self, strengths: Mapping[int, float]) -> None:
        self._strengths = strengths

    def scores(self, queries: Sequence[EvaluationQuery], progress: Progress) -> list[FloatArray]:
        return [
            np.array([self._strengths.get(each, math.nan) for each in query.candidate_ids.tolist()])
            for query in queries
        ]


class BM25:
    """BM25 over the candidates, with the word statistics of all documents of the split."""

    def scores(self, queries: Sequence[EvaluationQuery], progress: Progress) -> list[FloatArray]:
        texts = {text: row for row, text in enumerate(dict.fromkeys(t for query in queries for t in query.documents))}
        index = BM25Index([TextRecord(row, text) for text, row in texts.items()])
        return [index.scores(query.text, [texts[text] for text in query.documents]) for query in queries]


class Cosine:
    """The cosine of an untrained bi-encoder's embeddings. A text of several queries is embedded once."""

    def __init__(self, model: str = DEFAULT_EMBEDDER, *, threads: int = 1) -> None:
        self._model, self._threads = model, threads

    def scores(self, queries: Sequence[EvaluationQuery], progress: Progress) -> list[FloatArray]:
        embedder = load_embedder(self._model)
        found: list[FloatArray] = []
        vectors: dict[str, Float32Array] = {}
        for group in _groups(queries):
            progress(len(found), len(queries))
            if len(vectors) > MOST_VECTORS:
                vectors.clear()
            texts = dict.fromkeys(text for query in group for text in query.documents)
            new = [text for text in texts if text not in vectors]
            if new:
                vectors |= zip(new, embedder.encode(new, role="document", threads=self._threads), strict=True)
            asked = embedder.encode([query.text for query in group], role="query", threads=self._threads)
            for query, own in zip(group, asked, strict=True):
                found.append(cosines(np.stack([vectors[text] for text in query.documents]), own))
        return found


def _groups(queries: Sequence[EvaluationQuery]) -> Iterator[list[EvaluationQuery]]:
    """Groups of queries to embed together: larger groups have more texts of similar length and need less padding."""
    group: list[EvaluationQuery] = []
    for query in queries:
        group.append(query)
        if sum(len(each.documents) for each in group) >= TEXTS_TOGETHER:
            yield group
            group = []
    if group:
        yield group


class Scorer:
    """A model as a function (query, documents) -> float64[n]; `told`: instructions stand before the queries."""

    def __init__(self, score: Callable[[str, Sequence[str]], FloatArray], *, told: bool = False) -> None:
        self._score, self._told = score, told

    def scores(self, queries: Sequence[EvaluationQuery], progress: Progress) -> list[FloatArray]:
        found = []
        for done, query in enumerate(queries):
            progress(done, len(queries))
            text = with_instruction(query.text, query.instruction) if self._told else query.text
            found.append(np.asarray(self._score(text, query.documents), dtype=np.float64))
        return found


class Outside:
    """An external reranker over HTTP; a query's own instruction has a place if the endpoint's template has one."""

    def __init__(self, endpoint: OutsideEndpoint) -> None:
        self._endpoint = endpoint

    def scores(self, queries: Sequence[EvaluationQuery], progress: Progress) -> list[FloatArray]:
        found = []
        with OutsideReranker(self._endpoint) as reranker:
            for done, query in enumerate(queries):
                progress(done, len(queries))
                found.append(reranker.scores(query.text, query.documents, instruction=query.instruction))
        return found


class RunFile:
    """A run of an existing system; `run[query][document]` is a score, keyed by the imported ids.

    Gives each candidate its negated rank among all documents that the run names for the query, candidates or not, in
    trec_eval's order; a candidate that it does not name is not retrieved.
    """

    def __init__(self, run: Mapping[str, Mapping[str, float]]) -> None:
        self._run = run

    def scores(self, queries: Sequence[EvaluationQuery], progress: Progress) -> list[FloatArray]:
        return [self._ranks(query, query.document_ids) for query in queries]

    def beyond(self, queries: Sequence[EvaluationQuery]) -> RunRanks:
        """The number of documents that the run names, and its ranks of the graded ones that are not candidates."""
        return RunRanks(
            named={query.id: len(self._run.get(query.id, {})) for query in queries},
            others={query.id: self._ranks(query, query.other_documents) for query in queries if query.other_documents},
            equal=frozenset(query.id for query in queries if self._is_all_equal(query.id)),
        )

    def _is_all_equal(self, query_id: str) -> bool:
        return is_all_equal(np.array(list(self._run.get(query_id, {}).values()), dtype=np.float32))

    def _ranks(self, query: EvaluationQuery, documents: Sequence[str]) -> FloatArray:
        own = self._run.get(query.id, {})
        ids = list(own)
        ranks = dict(zip(ids, run_ranks(list(own.values()), ids).tolist(), strict=True))
        return np.array([-ranks.get(each, math.nan) for each in documents], dtype=np.float64)
