"""A tiny random embedder, saved as sentence-transformers saves one."""

from __future__ import annotations

from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from tests.factories.weights.tiny_models import save_tiny_bert


def save_tiny_embedder(folder: Path, *, max_tokens: int = 64) -> Path:
    """A random BERT of 32 dimensions with mean pooling."""
    transformer = Transformer(str(save_tiny_bert(folder / "bert")), processor_kwargs={"model_max_length": max_tokens})
    modules = [transformer, Pooling(32, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(
        str(folder / "embedder"), create_model_card=False
    )
    return folder / "embedder"
