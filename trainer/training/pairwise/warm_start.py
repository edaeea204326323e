"""Pairs of the training texts that are labelled by an embedder base's own cosines: they cost no answers.

A fresh head learns the base's order from them before it learns from the panel. Imports no Django.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from scipy.special import expit

from labeling.plugins import Report
from labeling.records import PairExamples
from trainer.bases import Base
from trainer.recommendation import is_bi_encoder
from trainer.training.pairwise.options import PairwiseOptions

# A difference of one deviation of the cosines within a query gives a preference of 0.82, as for the judge `embedding`.
STEEPNESS = 1.5


def with_own_order(base: Base, pairs: PairExamples, options: PairwiseOptions, report: Report) -> PairExamples | None:
    """`warm_pairs` random pairs of documents of one query with the base's preference; None without any, or without an embedder."""
    if not options.warm_pairs or not is_bi_encoder(base):
        return None
    from trainer.training.embedding.bi_encoder import load_bi_encoder

    documents: dict[int, dict[int, str]] = defaultdict(dict)
    place: dict[int, int] = {}
    for at, query in enumerate(pairs.query_ids.tolist()):
        place.setdefault(query, at)
        documents[query][int(pairs.a_ids[at])] = pairs.a[at]
        documents[query][int(pairs.b_ids[at])] = pairs.b[at]
    queries = sorted(query for query, own in documents.items() if len(own) > 2)
    if not queries:
        return None
    report("warm_start", step=0, steps=-(-options.warm_pairs // options.batch_size))
    model = load_bi_encoder(base)
    texts = list(dict.fromkeys(text for query in queries for text in documents[query].values()))
    vectors = model.encode_document(texts, normalize_embeddings=True, show_progress_bar=False)
    asked = model.encode_query(
        [pairs.queries[place[query]] for query in queries], normalize_embeddings=True, show_progress_bar=False
    )
    row = {text: at for at, text in enumerate(texts)}
    rng = np.random.default_rng([options.seed, 5])
    columns: list[tuple[int, int, int, float]] = []
    for number in rng.permutation(np.resize(np.arange(len(queries)), options.warm_pairs)).tolist():
        query = queries[number]
        a, b = rng.choice(sorted(documents[query]), 2, replace=False).tolist()
        cosines = vectors[[row[text] for text in documents[query].values()]] @ asked[number]
        own = (vectors[row[documents[query][a]]] - vectors[row[documents[query][b]]]) @ asked[number]
        columns.append((query, a, b, float(expit(STEEPNESS * own / max(float(np.std(cosines)), 1e-6)))))
    return PairExamples(
        queries=[pairs.queries[place[query]] for query, *_ in columns],
        a=[documents[query][a] for query, a, _, _ in columns],
        b=[documents[query][b] for query, _, b, _ in columns],
        instructions=[pairs.instructions[place[query]] for query, *_ in columns],
        preferences=np.array([wanted for *_, wanted in columns]),
        weights=np.ones(len(columns)),
        query_ids=np.array([query for query, *_ in columns], dtype=np.int64),
        a_ids=np.array([a for _, a, _, _ in columns], dtype=np.int64),
        b_ids=np.array([b for _, _, b, _ in columns], dtype=np.int64),
    )
