"""Loads what a training published, whichever form it has. Imports no Django."""

from __future__ import annotations

from pathlib import Path

from trainer.publishing.manifests import is_embedding, read_manifest
from trainer.serving.embedding import LoadedEmbedder, load_embedding_student
from trainer.serving.loading import LoadedReranker, load_reranker

LoadedModel = LoadedReranker | LoadedEmbedder


def load_published(path: Path | str, *, device: str | None = None, dtype: str = "float32") -> LoadedModel:
    """The reranker or embedding student in a published folder. Raises ManifestBroken."""
    load = load_embedding_student if is_embedding(read_manifest(Path(path))) else load_reranker
    return load(path, device=device, dtype=dtype)
