"""A tiny random embedder, saved as sentence-transformers saves one."""

from __future__ import annotations

import json
from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from tests.factories.weights.tiny_models import save_tiny_bert, save_tiny_qwen3


def save_tiny_embedder(folder: Path, *, max_tokens: int = 64) -> Path:
    """A random BERT of 32 dimensions with mean pooling, of a seed with which a few steps of training help."""
    transformer = Transformer(
        str(save_tiny_bert(folder / "bert", seed=5)), processor_kwargs={"model_max_length": max_tokens}
    )
    modules = [transformer, Pooling(32, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(
        str(folder / "embedder"), create_model_card=False
    )
    return folder / "embedder"


def save_tiny_decoder_embedder(folder: Path) -> Path:
    """A random Qwen3 that pools its last token, with the architecture that Qwen3's embedders name in their config.json."""
    transformer = Transformer(str(save_tiny_qwen3(folder / "qwen3")), processor_kwargs={"model_max_length": 64})
    modules = [transformer, Pooling(32, pooling_mode="lasttoken"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(
        str(folder / "embedder"), create_model_card=False
    )
    config = folder / "embedder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": ["Qwen3ForCausalLM"]}))
    return folder / "embedder"
