"""The orders of models: an untrained base, and a published student as the serving process loads it. Imports no Django."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainer.bases import Base, embedder_name
from trainer.evaluation.rankers import Cosine, Order, Scorer
from trainer.serving.loading import load_base_reranker
from trainer.serving.published import LoadedModel, load_published


def untrained_order(base: Base) -> Order:
    """The zero-shot order of a base: a bi-encoder has no ranking head, so it ranks by cosine."""
    if not base.ranks_untrained:
        return Cosine(embedder_name(base.name))
    return _of_model(load_base_reranker(base))


def student_order(folder: Path) -> Order:
    """The order of a published reranker or embedding student. Raises ManifestBroken."""
    return _of_model(load_published(folder))


def _of_model(model: LoadedModel) -> Order:
    return Scorer(
        lambda query, documents: np.asarray(model.scores(query, documents), dtype=np.float64),
        told=model.reads_instruction,
    )
