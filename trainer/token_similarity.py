"""The scores of an embedding student that also compares tokens, or the candidates with one another. Pure.

MaxSim: Khattab & Zaharia, *ColBERT*, arXiv 2004.12832, section 3.3, on the last layer of an embedder, averaged over the query's
tokens. List similarity: the cosine with the mean of the request's documents, Rocchio's feedback (1971) from all of them; documents
about the query lie close together where many of the list are relevant. `trainer.training.embedding.token_weight` chooses the
weights, `trainer.serving.embedding` serves them. Imports no Django.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from labeling.records import FloatArray
from labeling.retrieval.embedder import Float32Array


def max_similarity(query: Float32Array, document: Float32Array) -> float:
    """Mean over the query's tokens of the largest cosine with a token of the document; unit vectors float32[n, size]."""
    return float((query @ document.T).max(axis=1).mean(dtype=np.float64))


def similarities(query: Float32Array, documents: Sequence[Float32Array]) -> tuple[list[float], list[float]]:
    """Cosine and `max_similarity` of each document; row 0 of every array is the text's vector, the rest are its tokens."""
    asked = query[0].astype(np.float64)
    cosines = [float(own[0].astype(np.float64) @ asked) for own in documents]
    return cosines, [max_similarity(query[1:], own[1:]) for own in documents]


def list_similarities(documents: Sequence[Float32Array]) -> FloatArray:
    """The cosine of each document with the mean of all, float64[n]; unit vectors float32[size] each. Equal for two documents."""
    vectors = np.array(documents, dtype=np.float64)
    mean = vectors.mean(axis=0)
    return np.asarray(vectors @ (mean / max(float(np.linalg.norm(mean)), 1e-12)))


def mixed(
    cosines: FloatArray,
    tokens: FloatArray | None,
    context: FloatArray | None,
    *,
    token_weight: float,
    list_weight: float,
) -> FloatArray:
    """(1 - l) ((1 - w) cosine + w tokens) + l context, float64[n]; a signal of weight 0 may be None."""
    own = cosines if tokens is None else (1.0 - token_weight) * cosines + token_weight * tokens
    return own if context is None else (1.0 - list_weight) * own + list_weight * context


def with_tokens(vector: Float32Array, tokens: Float32Array) -> Float32Array:
    """float32[1 + n, size]: the text's unit vector, then those of its tokens; the vector again if there are no tokens."""
    rows = tokens if len(tokens) else vector[None]
    return np.concatenate([vector[None], rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)])
