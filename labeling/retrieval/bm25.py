"""BM25: scores of a few texts, an index over a collection, and the retriever `bm25`.

The judge `bm25` (`workers.judges.lexical`) uses the same functions. Imports no Django; building an index imports
bm25s.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pydantic

from labeling.plugins import Plugin, Retriever, register
from labeling.records import FloatArray, IntArray, TextRecord
from labeling.retrieval.ranking import Ranking, best
from labeling.retrieval.tokenize import CollectionStatistics, words


class UnknownDocument(LookupError):
    """The index does not contain a requested document."""


def bm25_scores(
    query: str,
    texts: Sequence[str],
    *,
    statistics: CollectionStatistics | None = None,
    k1: float = 0.9,
    b: float = 0.4,
) -> FloatArray:
    """Return BM25 of each text for the query, float64[len(texts)] >= 0, larger is better.

    `statistics` describe the whole collection; by default the texts are the collection.
    """
    if statistics is None:
        statistics = CollectionStatistics.of(texts)
    weights = [(term, count * statistics.idf(term)) for term, count in Counter(words(query)).items()]
    scores = np.zeros(len(texts))
    for row, text in enumerate(texts):
        terms = words(text)
        counts = Counter(terms)
        norm = k1 * (1.0 - b + b * len(terms) / statistics.average_length)
        scores[row] = sum(w * counts[term] / (counts[term] + norm) for term, w in weights if counts[term])
    return scores


class BM25Index:
    """An inverted index over a collection, built once (bm25s, Lucene's variant)."""

    def __init__(self, documents: Sequence[TextRecord], *, k1: float = 0.9, b: float = 0.4) -> None:
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # its import sets DEBUG
        self.ids: IntArray = np.array([document.id for document in documents], dtype=np.int64)
        self._rows = {document.id: row for row, document in enumerate(documents)}
        self._vocabulary: dict[str, int] = {}
        terms = [
            [self._vocabulary.setdefault(word, len(self._vocabulary)) for word in words(document.text)]
            for document in documents
        ]
        self._index: Any = None
        if self._vocabulary:
            self._index = bm25s.BM25(method="lucene", k1=k1, b=b)
            self._index.index((terms, self._vocabulary), create_empty_token=False, show_progress=False)

    def all_scores(self, query: str) -> FloatArray:
        """Return the query's score for every document, float64[documents], in the order of `ids`."""
        terms = [self._vocabulary[word] for word in words(query) if word in self._vocabulary]
        if not terms:
            return np.zeros(len(self.ids))
        return np.asarray(self._index.get_scores_from_ids(terms), dtype=np.float64)

    def scores(self, query: str, document_ids: Sequence[int]) -> FloatArray:
        """Return the query's score for the given documents, in their order. Raises UnknownDocument."""
        try:
            rows = [self._rows[document_id] for document_id in document_ids]
        except KeyError as error:
            raise UnknownDocument(
                f"document {error.args[0]} is not in the index of {len(self.ids)} documents; rebuild the index"
            ) from None
        return self.all_scores(query)[rows]

    def top(self, query: str, k: int) -> Ranking:
        """Return up to k documents that share a word with the query, best first; ties by document id."""
        scores = self.all_scores(query)
        matching = np.flatnonzero(scores > 0.0)
        return best(scores[matching], self.ids[matching], k)


class BM25Options(Plugin.Options):
    k1: float = pydantic.Field(
        default=0.9, ge=0, le=10, description="Saturation of repeated words. Higher: repetitions count longer."
    )
    b: float = pydantic.Field(default=0.4, ge=0, le=1, description="Length normalization. 0: none, 1: full.")


@register
class BM25Retriever(Retriever):
    """Documents that share words with the query; one that shares none is never returned."""

    name = "bm25"
    label = "BM25 (words)"
    Options = BM25Options
    options: BM25Options

    def retrieve(self, queries: Sequence[TextRecord], documents: Sequence[TextRecord], k: int) -> list[Ranking]:
        index = BM25Index(documents, k1=self.options.k1, b=self.options.b)
        return [index.top(query.text, k) for query in queries]
