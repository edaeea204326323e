"""Two judges that count words: BM25 and query likelihood with Dirichlet smoothing.

They need no network and no model, use the tokens of the BM25 retriever in `labeling.retrieval.bm25`,
and extend `score_difference`. Imports no Django.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pydantic

from labeling.plugins import Judge, register
from labeling.records import Collection, FloatArray, TextRecord
from labeling.retrieval.bm25 import BM25Options, bm25_scores
from labeling.retrieval.tokenize import WORDS_REVISION, CollectionStatistics, words
from workers.judges.score_difference import NotPrepared, ScoreDifferenceJudge


class LexicalJudge(ScoreDifferenceJudge):
    """Counts the words of the whole collection once, then scores candidates on demand."""

    model_revision = WORDS_REVISION
    _statistics: CollectionStatistics | None = None

    def prepare(self, collection: Collection) -> None:
        super().prepare(collection)
        self._statistics = CollectionStatistics.of(document.text for document in collection.documents())

    @property
    def statistics(self) -> CollectionStatistics:
        if self._statistics is None:
            raise NotPrepared(f"judge {self.name!r} has no collection yet; call prepare(collection) first")
        return self._statistics


@register
class BM25Judge(LexicalJudge):
    """Prefers the document with the higher BM25 score; word frequencies come from the whole collection."""

    name = "bm25"
    label = "BM25"
    Options = BM25Options
    options: BM25Options

    def score(self, query: TextRecord, documents: Sequence[TextRecord]) -> FloatArray:
        return bm25_scores(
            query.text,
            [document.text for document in documents],
            statistics=self.statistics,
            k1=self.options.k1,
            b=self.options.b,
        )


class QueryLikelihoodOptions(Judge.Options):
    mu: float = pydantic.Field(
        default=1000.0,
        gt=0,
        le=1e6,
        description="Smoothing: number of words of the collection that are mixed into each text.",
    )


@register
class QueryLikelihoodJudge(LexicalJudge):
    """Prefers the document whose smoothed language model gives the query the higher probability."""

    name = "query-likelihood"
    label = "Query likelihood (Dirichlet)"
    Options = QueryLikelihoodOptions
    options: QueryLikelihoodOptions

    def score(self, query: TextRecord, documents: Sequence[TextRecord]) -> FloatArray:
        return query_likelihood_scores(
            query.text, [document.text for document in documents], statistics=self.statistics, mu=self.options.mu
        )


def query_likelihood_scores(
    query: str, texts: Sequence[str], *, statistics: CollectionStatistics, mu: float
) -> FloatArray:
    """log P(query | text) with Dirichlet smoothing (Zhai and Lafferty, 2001), float64[len(texts)].

    sum over query words w of log((tf(w) + mu P(w | collection)) / (length + mu)); words that the
    collection lacks are ignored, because they do not distinguish texts.
    """
    terms_of_query = [word for word in words(query) if statistics.collection_frequency.get(word)]
    priors = np.array([mu * statistics.collection_frequency[word] / statistics.length for word in terms_of_query])
    scores = np.zeros(len(texts))
    for row, text in enumerate(texts):
        terms = words(text)
        counts = Counter(terms)
        frequencies = np.array([counts[word] for word in terms_of_query])
        scores[row] = np.sum(np.log((frequencies + priors) / (len(terms) + mu)))
    return scores
