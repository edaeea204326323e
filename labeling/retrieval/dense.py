"""The retriever `dense`: finds documents with the embeddings nearest to the query's. Imports no Django.

`labeling.retrieval.embedder` computes the embeddings; the embedding judge (`workers.judges.embedding`) has the same
options.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pydantic

from labeling.plugins import Plugin, Retriever, register
from labeling.records import TextRecord
from labeling.retrieval.embedder import DEFAULT_EMBEDDER, Float32Array, cosines, load_embedder
from labeling.retrieval.model_names import ModelName
from labeling.retrieval.ranking import Ranking, best


class DenseOptions(Plugin.Options):
    model: ModelName = pydantic.Field(
        default=DEFAULT_EMBEDDER, min_length=1, description="Name or folder of a sentence-transformers model."
    )
    max_tokens: int | None = pydantic.Field(
        default=None, ge=8, le=65536, description="Most tokens to read of a text. Empty: the model's limit."
    )
    batch_size: int = pydantic.Field(default=32, ge=1, le=4096, description="Texts to encode at once.")
    threads: int = pydantic.Field(default=1, ge=1, le=256, description="CPU threads while encoding.")


@register
class DenseRetriever(Retriever):
    """Documents whose embedding has the highest cosine with the query's."""

    name = "dense"
    label = "Dense (embeddings)"
    Options = DenseOptions
    options: DenseOptions

    def retrieve(self, queries: Sequence[TextRecord], documents: Sequence[TextRecord], k: int) -> list[Ranking]:
        if not queries or not documents:
            return [[] for _ in queries]
        vectors = self._encode(documents, role="document")
        ids = np.array([document.id for document in documents], dtype=np.int64)
        return [best(cosines(vectors, vector), ids, k) for vector in self._encode(queries, role="query")]

    def _encode(self, records: Sequence[TextRecord], *, role: Literal["query", "document"]) -> Float32Array:
        embedder = load_embedder(self.options.model, max_tokens=self.options.max_tokens)
        return embedder.encode(
            [record.text for record in records],
            role=role,
            batch_size=self.options.batch_size,
            threads=self.options.threads,
        )
