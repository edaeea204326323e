"""Recommends a trainer for a base and a number of training queries, with the reason. Imports no Django, and no torch.

REST, command and demo train with the recommended trainer if the request names none; the form marks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from labeling.retrieval.model_folders import modules_of
from labeling.stored_texts import stored_text
from trainer.bases import Base

Reason = Literal["few_queries", "embedder", "decoder_few", "decoder_many", "reranker", "many_queries"]
# Below this number, a fresh head of a cross-encoder learned less than the embedder's own cosine provides.
FEW_QUERIES = 1000
REASONS: dict[Reason, str] = {
    "few_queries": stored_text(
        "Few queries and an embedder as base: an embedding student keeps the quality of its base."
    ),
    "embedder": stored_text("The base is an embedder: an embedding student keeps the quality of its base."),
    "decoder_few": stored_text("Few queries and a decoder: differences within a query need no calibration."),
    "decoder_many": stored_text("Many queries and a decoder: its scores can also be calibrated."),
    "reranker": stored_text("Few queries and a reranker as base: differences within a query need no calibration."),
    "many_queries": stored_text("Many queries: scores can also be calibrated."),
}


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The name of a trainer plugin and the reason for it."""

    trainer: str
    reason: Reason

    @property
    def sentence(self) -> str:
        """The reason as a sentence."""
        return REASONS[self.reason]


def recommended_trainer(base: Base, queries: int) -> Recommendation:
    """The trainer for a base and `queries` training queries.

    An embedder starts with a useful order that an embedding student keeps; a cross-encoder made of it starts from a random
    head. Decoders and rerankers have a trained head: few queries teach differences within a query best, many also teach
    calibrated relevance.
    """
    few = queries < FEW_QUERIES
    if is_bi_encoder(base):
        return Recommendation("embedding", "few_queries" if few else "embedder")
    if base.kind == "decoder":
        return Recommendation("listwise" if few else "pointwise", "decoder_few" if few else "decoder_many")
    return Recommendation("listwise" if few else "pointwise", "reranker" if few else "many_queries")


def is_bi_encoder(base: Base) -> bool:
    """Whether sentence-transformers saved the base as an embedder."""
    return any(str(each.get("type", "")).endswith("Pooling") for each in modules_of(base.folder))
