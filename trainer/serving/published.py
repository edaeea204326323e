"""Loads what a training published, whichever form it has. Imports no Django."""

from __future__ import annotations

from pathlib import Path

from trainer.publishing.manifests import ManifestBroken, is_embedding, is_pairwise, read_manifest
from trainer.serving.embedding import LoadedEmbedder, load_embedding_student
from trainer.serving.loading import LoadedReranker, load_reranker

LoadedModel = LoadedReranker | LoadedEmbedder


def load_published(
    path: Path | str, *, device: str | None = None, dtype: str = "float32", form: str = "", cache: Path | None = None
) -> LoadedModel:
    """The reranker or embedding student in a published folder. Raises ManifestBroken, FormMissing.

    `form` and `cache`: see `trainer.serving.loading.load_reranker`; an embedding student has one form.
    """
    manifest = read_manifest(Path(path))
    if is_pairwise(manifest):
        raise ManifestBroken(f"{path} holds a pairwise student, which cannot rank; choose it as a judge of a run")
    if is_embedding(manifest):
        return load_embedding_student(path, device=device, dtype=dtype)
    return load_reranker(path, device=device, dtype=dtype, form=form, cache=cache)
