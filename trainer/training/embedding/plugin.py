"""The trainer `embedding` (plugin): LoRA on a bi-encoder, listwise softmax over a query's candidates.

Imports no Django, and torch only when a training starts.
"""

from __future__ import annotations

from pathlib import Path

from labeling.plugins import Report, Trainer, register
from labeling.records import Trained, TrainingData
from trainer.training.embedding.options import EmbeddingOptions


@register
class Embedding(Trainer):
    """Trains a low-rank adapter of an embedder, so that cosines order the documents of a query as their Elo does."""

    name = "embedding"
    label = "Embedding LoRA, softmax over a query's candidates"
    Options = EmbeddingOptions
    options: EmbeddingOptions

    def train(self, data: TrainingData, workspace: Path, report: Report) -> Trained:
        from trainer.training.embedding.training import train_embedder

        return train_embedder(self.options, data, workspace, report)
