"""Index terms of a text, and the term statistics of a collection.

The BM25 retriever and the lexical judges (`workers.judges.lexical`) share them. Imports no Django.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# The revision of `words`, part of the provenance of every lexical judgment. Raise it when `words` changes.
WORDS_REVISION = "words-1"

# Lucene's English stop words without "if", "no" and "not", which matter in short technical questions.
STOP_WORDS = frozenset(
    """
    a an and are as at be but by for in into is it of on or such that the their then there these they this
    to was will with
    """.split()  # noqa: SIM905
)

# A run of letters and digits, split at underscores. Each kana or ideograph is a word, as no spaces separate them.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+")


def words(text: str) -> list[str]:
    """Return the index terms of a text in order: lower-case, no stop words, plurals folded to singular."""
    return [_singular(word) for word in _WORD.findall(text.lower()) if word not in STOP_WORDS]


@functools.lru_cache(maxsize=65536)
def _singular(word: str) -> str:
    """The singular by Harman's S-stemmer. Rejected: Porter's, which conflates too much for short texts."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1]


@dataclass(frozen=True, slots=True)
class CollectionStatistics:
    """Statistics of a collection; lengths and counts are in index terms."""

    documents: int
    length: int
    document_frequency: Mapping[str, int]
    collection_frequency: Mapping[str, int]

    @classmethod
    def of(cls, texts: Iterable[str]) -> CollectionStatistics:
        """The statistics of a stream of texts, read once; memory grows with the vocabulary only."""
        documents = 0
        document_frequency: Counter[str] = Counter()
        collection_frequency: Counter[str] = Counter()
        for text in texts:
            terms = words(text)
            documents += 1
            collection_frequency.update(terms)
            document_frequency.update(set(terms))
        return cls(documents, collection_frequency.total(), document_frequency, collection_frequency)

    @property
    def average_length(self) -> float:
        """Mean document length, 1.0 for a collection without terms, since it is a divisor."""
        return self.length / self.documents if self.length else 1.0

    def idf(self, term: str) -> float:
        """Return Lucene's inverse document frequency, positive for every term."""
        frequency = self.document_frequency.get(term, 0)
        return math.log1p((self.documents - frequency + 0.5) / (frequency + 0.5))
