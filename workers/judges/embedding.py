"""A judge that compares embeddings: the cosine of query and document under a sentence-transformers model.

Unless another model is named it uses the weights of the installation. `score_difference` turns scores into preferences.
Imports no Django, and torch only in `prepare`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from labeling.plugins import Judge, register
from labeling.records import Collection, FloatArray, TextRecord
from labeling.retrieval.dense import DenseOptions
from labeling.retrieval.embedder import Float32Array, cosines, embedder_revision, load_embedder
from workers.judges.score_difference import Recent, ScoreDifferenceJudge, lookup_or_compute

EMBEDDINGS_KEPT = 20_000  # 30 MB at 384 dimensions


@register
class EmbeddingJudge(ScoreDifferenceJudge):
    """Prefers the document whose embedding is closer to the query's."""

    name = "embedding"
    label = "Embeddings (cosine)"
    Options = DenseOptions
    options: DenseOptions

    def __init__(self, options: Judge.Options | None = None) -> None:
        super().__init__(options)
        self.model_revision = embedder_revision(self.options.model)
        self._vectors: Recent[int, Float32Array] = Recent(EMBEDDINGS_KEPT)

    def prepare(self, collection: Collection) -> None:
        super().prepare(collection)
        self._vectors = Recent(EMBEDDINGS_KEPT)
        load_embedder(self.options.model, max_tokens=self.options.max_tokens)

    def score(self, query: TextRecord, documents: Sequence[TextRecord]) -> FloatArray:
        if not documents:
            return np.zeros(0)
        vectors: list[Float32Array] = lookup_or_compute(self._vectors, documents, self._encode)
        return cosines(np.stack(vectors), self._encode([query], role="query")[0])

    def _encode(
        self, records: Sequence[TextRecord], role: Literal["query", "document"] = "document"
    ) -> list[Float32Array]:
        embedder = load_embedder(self.options.model, max_tokens=self.options.max_tokens)
        texts = [record.text for record in records]
        return list(embedder.encode(texts, role=role, batch_size=self.options.batch_size, threads=self.options.threads))
