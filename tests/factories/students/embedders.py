"""Embedding students with random weights: the adapter that a training would leave, and the published folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.factories.weights.tiny_embedders import save_tiny_embedder
from trainer.bases import load_base
from trainer.publishing.embedding_export import publish_embedder
from trainer.publishing.export import ModelCard
from trainer.training.embedding.bi_encoder import BiEncoder
from trainer.training.embedding.options import EmbeddingOptions


def save_embedding_adapter(folder: Path, options: EmbeddingOptions) -> Path:
    """An adapter of the options' base that changes every vector a little."""
    model = BiEncoder(load_base(options.base), options)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weights in model.adapted.named_parameters():
            if "lora_" in name:
                weights.copy_(torch.randn_like(weights) * 0.05)
    model.adapted.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)
    return folder


def publish_tiny_student(folder: Path) -> Path:
    """A published embedding student of a tiny base, both made in the folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZELO_MODELS", "*")
        base = str(save_tiny_embedder(folder))
        adapter = save_embedding_adapter(folder / "adapter", EmbeddingOptions(base=base))
        return publish_embedder(adapter, base=base, out=folder / "student", card=ModelCard(name="tiny")).folder
