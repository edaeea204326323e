"""The score of an embedding student that also compares tokens: late interaction beside the cosine. Pure.

MaxSim: Khattab & Zaharia, *ColBERT*, arXiv 2004.12832, section 3.3, on the last layer of an embedder, averaged over the query's
tokens. `trainer.training.embedding.token_weight` chooses the weight, `trainer.serving.embedding` serves it. Imports no Django.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labeling.retrieval.embedder import Float32Array


def max_similarity(query: Float32Array, document: Float32Array) -> float:
    """Mean over the query's tokens of the largest cosine with a token of the document; unit vectors float32[n, size]."""
    return float((query @ document.T).max(axis=1).mean(dtype=np.float64))


def similarities(query: Float32Array, documents: Sequence[Float32Array]) -> tuple[list[float], list[float]]:
    """Cosine and `max_similarity` of each document; row 0 of every array is the text's vector, the rest are its tokens."""
    asked = query[0].astype(np.float64)
    cosines = [float(own[0].astype(np.float64) @ asked) for own in documents]
    return cosines, [max_similarity(query[1:], own[1:]) for own in documents]


def with_tokens(vector: Float32Array, tokens: Float32Array) -> Float32Array:
    """float32[1 + n, size]: the text's unit vector, then those of its tokens; the vector again if there are no tokens."""
    rows = tokens if len(tokens) else vector[None]
    return np.concatenate([vector[None], rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)])
