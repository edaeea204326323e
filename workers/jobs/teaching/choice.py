"""Chooses worked examples that cover what a project asks. Pure functions of the texts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import sparse

from labeling.records import FloatArray
from labeling.retrieval.tokenize import CollectionStatistics, words
from workers.judges.examples import WorkedExample


def choose_examples(
    known: Sequence[WorkedExample], count: int, *, like: Sequence[str] = (), rng: np.random.Generator
) -> list[WorkedExample]:
    """Choose up to `count` examples by coverage, at most one a query, half of them with the answer A.

    Greedy facility location: each choice adds the most similarity between the texts to be covered (`like`, by default the
    examples themselves) and their nearest chosen example; similarity is the cosine of TF-IDF vectors. A pair with a note
    is preferred to an equal one without.
    """
    pool = [known[place] for place in rng.permutation(len(known))]
    if not pool or count < 1:
        return []
    texts = [f"{each.query}\n{each.first}\n{each.second}" for each in pool]
    similarity = _cosines(list(like) or texts, texts)
    gain_of_note = np.array([1.0 if each.why else 0.9 for each in pool])
    covered = np.zeros(len(similarity))
    is_open = np.ones(len(pool), dtype=bool)
    chosen: list[WorkedExample] = []
    while len(chosen) < count and is_open.any():
        gains = np.maximum(similarity - covered[:, None], 0.0).sum(axis=0) * gain_of_note
        best = int(np.argmax(np.where(is_open, gains, -1.0)))
        covered = np.maximum(covered, similarity[:, best])
        is_open &= np.array([each.query_id != pool[best].query_id for each in pool])
        wants_a = len(chosen) % 2 == 0
        chosen.append(pool[best] if (pool[best].label == "A") == wants_a else pool[best].turned())
    return chosen


def _cosines(rows: Sequence[str], columns: Sequence[str]) -> FloatArray:
    """Cosines of TF-IDF vectors, float64[rows, columns]."""
    statistics = CollectionStatistics.of([*rows, *columns])
    places = {term: place for place, term in enumerate(statistics.document_frequency)}

    def vectors(texts: Sequence[str]) -> sparse.csr_array:
        values, row_of, column_of = [], [], []
        for row, text in enumerate(texts):
            counts = Counter(words(text))
            weights = np.array([math.sqrt(n) * statistics.idf(term) for term, n in counts.items()])
            values += (weights / (np.linalg.norm(weights) or 1.0)).tolist()
            row_of += [row] * len(counts)
            column_of += [places[term] for term in counts]
        return sparse.csr_array((values, (row_of, column_of)), shape=(len(texts), len(places)))

    return np.asarray((vectors(rows) @ vectors(columns).T).toarray(), dtype=np.float64)
