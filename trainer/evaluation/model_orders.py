"""The orders of models: an untrained base, and a published student as the serving process loads it. Imports no Django."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from labeling.records import FloatArray
from labeling.retrieval.embedder import Float32Array, cosines
from labeling.retrieval.embedding_cache import shared_cache, vector_key
from labeling.retrieval.precision import bfloat16_pays, computing
from labeling.retrieval.query_instruction import with_instruction
from trainer.bases import Base, embedder_name
from trainer.evaluation.metrics import EvaluationQuery
from trainer.evaluation.rankers import Cosine, Order, Progress, Scorer
from trainer.recommendation import is_bi_encoder
from trainer.serving.embedding import LoadedEmbedder, Role
from trainer.serving.loading import load_base_reranker
from trainer.serving.published import LoadedModel, load_published

TEXTS_AT_ONCE = 64


def untrained_order(base: Base) -> Order:
    """The zero-shot order of a base: a bi-encoder has no ranking head, so it ranks by cosine; one that is a decoder as well."""
    if not base.ranks_untrained or is_bi_encoder(base):
        return Cosine(embedder_name(base.name))
    return _of_model(load_base_reranker(base))


def student_order(folder: Path) -> Order:
    """The order of a published reranker or embedding student. Raises ManifestBroken."""
    return _of_model(load_published(folder))


def _of_model(model: LoadedModel) -> Order:
    if isinstance(model, LoadedEmbedder) and model.is_cosine and model.checksum:
        return StudentCosine(model)
    return Scorer(
        lambda query, documents: np.asarray(model.scores(query, documents), dtype=np.float64),
        told=model.reads_instruction,
    )


class StudentCosine:
    """The cosine of an embedding student; each text is embedded once, and kept in the shared cache under the checksum.

    So the gate and the evaluations after it share their vectors. Computes in bfloat16 where `labeling.retrieval.precision` finds
    that it is faster and ranks the same, as the untrained base does.
    """

    def __init__(self, model: LoadedEmbedder) -> None:
        self._model = model
        self._bfloat16 = model.on_cpu and bfloat16_pays(lambda texts, role: model.vectors(texts, role=cast(Role, role)))
        form = "bfloat16" if self._bfloat16 else model.dtype
        self._identity = f"student {model.checksum} {model.max_length} {form}"

    def scores(self, queries: Sequence[EvaluationQuery], progress: Progress) -> list[FloatArray]:
        texts = list(dict.fromkeys(text for query in queries for text in query.documents))
        documents = self._vectors(
            texts, "document", lambda done: progress(done * len(queries) // len(texts), len(queries))
        )
        told = [self._text(query) for query in queries]
        asked = self._vectors(list(dict.fromkeys(told)), "query", lambda done: None)
        return [
            cosines(np.stack([documents[text] for text in query.documents]), asked[text])
            for query, text in zip(queries, told, strict=True)
        ]

    def _text(self, query: EvaluationQuery) -> str:
        return with_instruction(query.text, query.instruction) if self._model.reads_instruction else query.text

    def _vectors(self, texts: Sequence[str], role: Role, done: Callable[[int], None]) -> dict[str, Float32Array]:
        cache = shared_cache()
        keys = {text: vector_key(f"{self._identity} {role}", text) for text in texts}
        kept = cache.get(list(keys.values()), self._model.sizes[0]) if cache else {}
        found = {text: kept[key] for text, key in keys.items() if key in kept}
        missing = sorted((text for text in keys if text not in found), key=len)
        for start in range(0, len(missing), TEXTS_AT_ONCE):
            part = missing[start : start + TEXTS_AT_ONCE]
            done(len(found))
            with computing(bfloat16=self._bfloat16):
                new = dict(zip(part, self._model.vectors(part, role=role), strict=True))
            found |= new
            if cache:
                cache.put({keys[text]: vector for text, vector in new.items()})
        return found
