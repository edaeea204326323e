"""An embedding student's order: each text is embedded once, and evaluations after the gate read the same vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from labeling.records import FloatArray
from labeling.retrieval.embedder import Float32Array
from tests.factories.weights.tiny_embedders import save_tiny_decoder_embedder
from trainer.bases import load_base
from trainer.evaluation.metrics import EvaluationQuery
from trainer.evaluation.model_orders import StudentCosine, untrained_order
from trainer.evaluation.rankers import Cosine, Scorer
from trainer.serving.embedding import LoadedEmbedder


class CountingModel:
    """Unit vectors by text length; counts the texts that it embeds."""

    checksum, max_length, dtype, sizes, on_cpu = "abc", 32, "float32", (2,), False
    reads_instruction = False

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def vectors(self, texts: Sequence[str], *, role: str) -> Float32Array:
        self.embedded += texts
        angle = np.array([len(text) / 10 for text in texts])
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def query(text: str, documents: Sequence[str]) -> EvaluationQuery:
    fields = dict.fromkeys(EvaluationQuery.__dataclass_fields__)
    return EvaluationQuery(**cast(Any, fields | {"text": text, "documents": list(documents)}))


def scores(model: CountingModel) -> list[FloatArray]:
    queries = [query("aa", ["aa", "aaaaa", "a" * 9]), query("aaaa", ["aaaaa", "b"])]
    return StudentCosine(cast(LoadedEmbedder, model)).scores(queries, lambda done, total: None)


def test_texts_are_embedded_once_and_kept_for_the_next_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZELO_CACHE", str(tmp_path))
    model = CountingModel()
    first = scores(model)
    assert sorted(model.embedded) == sorted(
        ["aa", "aaaa", "aa", "aaaaa", "a" * 9, "b"]
    )  # "aa" as query and as document
    assert first[0] == pytest.approx([1.0, np.cos(0.3), np.cos(0.7)], abs=1e-5)
    again = CountingModel()
    assert [own.tolist() for own in scores(again)] == [own.tolist() for own in first] and again.embedded == []
    other = CountingModel()
    other.checksum = "another student"  # type: ignore[misc]
    scores(other)
    assert len(other.embedded) == 6


def test_an_embedder_that_is_a_decoder_is_compared_by_its_cosine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZELO_MODELS", "*")
    embedder = save_tiny_decoder_embedder(tmp_path)
    assert load_base(str(embedder)).kind == "decoder"
    assert isinstance(untrained_order(load_base(str(embedder))), Cosine)
    assert isinstance(untrained_order(load_base(str(tmp_path / "qwen3"))), Scorer)
