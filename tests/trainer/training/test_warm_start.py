"""The warm start: an embedder's own order, learned before the scores. MiniLM and tiny models."""

from __future__ import annotations

import dataclasses
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from labeling.records import Examples, Trained, TrainingData
from labeling.retrieval import embedder
from labeling.retrieval.embedder import load_embedder
from labeling.retrieval.model_names import ModelNotAllowed
from labeling.stored_texts import read_stored
from tests.factories.lessons import Report, make_data, make_options
from tests.factories.weights.tiny_models import save_tiny_bert
from trainer.bases import MINILM, load_base
from trainer.training import warm_start
from trainer.training.pointwise import Pointwise
from trainer.training.warm_start import DOCUMENT_CHARACTERS, is_embedder, own_order
from workers.jobs.training_progress import Progress

DATA = make_data(8)
SHORT = {"warm_steps": 4, "max_steps": 2, "batch_size": 4, "max_length": 32, "eval_steps": 2, "patience": 0}


def learn(base: Path | str, workspace: Path, told: Any = None, **options: Any) -> Trained:
    workspace.mkdir(exist_ok=True)
    return Pointwise(make_options(base, **(SHORT | options))).train(DATA, workspace, Report() if told is None else told)


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


def test_a_base_that_the_operator_lists_by_name_is_loaded_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    base = load_base(MINILM)
    monkeypatch.setattr(embedder, "embedder_location", lambda name: str(base.folder))
    monkeypatch.setenv("ZELO_MODELS", "tests/embedder")
    with pytest.raises(ModelNotAllowed):
        own_order(dataclasses.replace(base, name="tests/unlisted"), DATA.train, count=8, seed=0, threads=1)
    listed = dataclasses.replace(base, name="tests/embedder")
    assert len(own_order(listed, DATA.train, count=8, seed=0, threads=1)) == 8


class AnyVectors:
    """An embedder to which all texts are alike."""

    def encode(self, texts: list[str], **options: Any) -> Any:
        return np.ones((len(texts), 1), dtype=np.float32)


def test_memory_grows_with_pairs_and_with_documents_not_with_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_start, "load_embedder", lambda name: AnyVectors())
    documents, count = [f"text {n}" for n in range(1000)], 50_000
    ones = np.ones(len(documents))
    train = Examples(["the query"] * len(documents), documents, ones, ones, np.zeros(len(documents), dtype=np.int64))
    base = load_base(MINILM)
    tracemalloc.start()
    try:
        rows = own_order(base, train, count=count, seed=0, threads=1)
        __, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(rows) == count
    assert most < 1000 * count  # a byte for each pair and document would be as much


def test_the_warm_start_is_told_as_a_phase_of_its_own(tmp_path: Path) -> None:
    told, progress = Report(), Progress()
    learn(MINILM, tmp_path / "w", told)
    kinds = [kind for kind, _ in told]
    warm = told[: kinds.index("prepared")]
    assert {kind for kind, _ in warm} == {"warm_start", "checkpoint"}
    steps = [(values["step"], values["steps"]) for kind, values in warm if kind == "warm_start"]
    assert (steps[0], steps[-1]) == ((0, 4), (4, 4))
    assert "eta_s" in told.of("warm_start")[-1]
    for kind, values in warm:
        progress.take({"kind": kind, **values})
    assert (progress.step, progress.steps) == (0, 0)
    assert progress.shown()["warm_start"] == {"step": 4, "steps": 4, "kept": True}
    assert "checkpoint" not in progress.shown()
    assert [read_stored(note) for note in progress.shown()["notes"]] == ["first 4 steps on the base's own order"]
    for kind, values in told[len(warm) :]:
        progress.take({"kind": kind, **values})
    assert (progress.step, progress.steps, progress.shown()["checkpoint"]) == (2, 2, 2)


def test_a_base_that_is_no_embedder_begins_with_the_scores(tmp_path: Path) -> None:
    base = save_tiny_bert(tmp_path / "bert")
    assert is_embedder(load_base(MINILM))
    assert not is_embedder(load_base(str(base)))
    warm, cold = learn(base, tmp_path / "warm"), learn(base, tmp_path / "cold", warm_steps=0)
    assert same(weights(warm.adapter), weights(cold.adapter))
    assert "warm_start" not in warm.facts


class Killed(BaseException):
    """The process is gone."""


class KilledAt(Report):
    """Dies at the checkpoint of this number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.left = number

    def __call__(self, kind: str, **values: Any) -> None:
        super().__call__(kind, **values)
        self.left -= kind == "checkpoint"
        if self.left == 0:
            raise Killed


@pytest.mark.long  # two trainings; test_process kills one as well
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
