"""The warm start: an embedder's own order, learned before the scores. MiniLM and tiny models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from labeling.records import Trained, TrainingData
from labeling.retrieval import load_embedder
from tests.trainer.lessons import Told, make_data, make_options
from tests.trainer.tiny_models import save_tiny_bert
from trainer.bases import MINILM, load_base
from trainer.trainers import Pointwise
from trainer.warm_start import DOCUMENT_CHARACTERS, is_embedder, own_order

DATA = make_data(8)
SHORT = {"warm_steps": 4, "max_steps": 2, "batch_size": 4, "max_length": 32, "eval_steps": 2, "patience": 0}


def learn(base: Path | str, workspace: Path, told: Any = None, **options: Any) -> Trained:
    workspace.mkdir(exist_ok=True)
    return Pointwise(make_options(base, **(SHORT | options))).train(DATA, workspace, Told() if told is None else told)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(str(folder / "adapter_model.safetensors"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_labels_follow_the_cosine_and_texts_are_those_of_the_training() -> None:
    data: TrainingData = DATA
    rows = own_order(load_base(MINILM), data.train, count=200, seed=3, threads=1)
    embedder = load_embedder()
    asked = embedder.encode(rows.queries, role="query")
    cosine = np.sum(asked * embedder.encode(rows.documents, role="document"), axis=1)
    assert np.corrcoef(np.argsort(np.argsort(cosine)), np.argsort(np.argsort(rows.labels)))[0, 1] > 0.99
    assert 0.0 < rows.labels.min() < 0.2
    assert 0.8 < rows.labels.max() < 1.0
    assert set(rows.documents) <= {text[:DOCUMENT_CHARACTERS] for text in data.train.documents}
    texts = {*data.train.queries, *data.train.documents}
    assert all(any(query in text for text in texts) for query in set(rows.queries))
    again = own_order(load_base(MINILM), data.train, count=200, seed=3, threads=1)
    assert (again.queries, again.documents, again.labels.tolist()) == (
        rows.queries,
        rows.documents,
        rows.labels.tolist(),
    )


def test_a_base_that_is_no_embedder_begins_with_the_scores(tmp_path: Path) -> None:
    base = save_tiny_bert(tmp_path / "bert")
    assert is_embedder(load_base(MINILM))
    assert not is_embedder(load_base(str(base)))
    warm, cold = learn(base, tmp_path / "warm"), learn(base, tmp_path / "cold", warm_steps=0)
    assert same(weights(warm.adapter), weights(cold.adapter))
    assert "warm_start" not in warm.facts


class Killed(BaseException):
    """The process is gone."""


class KilledAt(Told):
    """Dies at the checkpoint of this number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.left = number

    def __call__(self, kind: str, **values: Any) -> None:
        super().__call__(kind, **values)
        self.left -= kind == "checkpoint"
        if self.left == 0:
            raise Killed


def test_it_starts_from_its_own_order_and_a_killed_one_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = learn(MINILM, tmp_path / "whole")
    assert whole.facts["warm_start"].startswith("4 steps on 32 pairs")
    assert not same(weights(whole.adapter), weights(learn(MINILM, tmp_path / "cold", warm_steps=0).adapter))
    for number in (1, 2, 3):  # in the warm start, at its end, and after it
        with pytest.raises(Killed):
            learn(MINILM, tmp_path / f"killed-{number}", KilledAt(number))
        resumed = learn(MINILM, tmp_path / f"killed-{number}")
        assert same(weights(resumed.adapter), weights(whole.adapter))
        assert resumed.facts["warm_start"] == whole.facts["warm_start"]
