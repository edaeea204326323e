"""The retriever `hybrid`: BM25 and dense rankings, fused by rank. Imports no Django.

It is the entry point `retrieval`: importing it registers all three retrievers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pydantic

from labeling.plugins import Retriever, register
from labeling.records import TextRecord
from labeling.retrieval.bm25 import BM25Options, BM25Retriever
from labeling.retrieval.dense import DenseOptions, DenseRetriever
from labeling.retrieval.ranking import Ranking, fuse


class HybridOptions(BM25Options, DenseOptions):
    rrf_k: float = pydantic.Field(default=60.0, ge=0, description="Reciprocal rank fusion: 1 / (k + rank).")
    depth: int = pydantic.Field(
        default=100, ge=1, le=10000, description="Ranks to fuse from each retriever, at least k."
    )


@register
class HybridRetriever(Retriever):
    """BM25 and dense rankings joined by reciprocal rank fusion; the score is the sum of 1 / (rrf_k + rank)."""

    name = "hybrid"
    label = "Hybrid (BM25 and embeddings, fused by rank)"
    Options = HybridOptions
    options: HybridOptions

    def retrieve(self, queries: Sequence[TextRecord], documents: Sequence[TextRecord], k: int) -> list[Ranking]:
        depth = max(k, self.options.depth)
        sides: list[Retriever] = [
            BM25Retriever(_part(self.options, BM25Options)),
            DenseRetriever(_part(self.options, DenseOptions)),
        ]
        rankings = [side.retrieve(queries, documents, depth) for side in sides]
        return [fuse(lists, k, rrf_k=self.options.rrf_k) for lists in zip(*rankings, strict=True)]


def _part(options: HybridOptions, of: type[Any]) -> Any:
    return of(**{name: getattr(options, name) for name in of.model_fields})
