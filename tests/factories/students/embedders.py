"""An adapter of an embedder with random weights, as a training of the embedding student would leave one."""

from __future__ import annotations

from pathlib import Path

import torch

from trainer.bases import load_base
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
