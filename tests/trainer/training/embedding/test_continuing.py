"""A training that continues from a student has something new only if its adapter or the weights of its signals changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from labeling.records import Trained
from tests.factories.lessons import Report, make_data
from tests.factories.weights.tiny_embedders import save_tiny_embedder
from trainer.training.embedding import training
from trainer.training.embedding.options import EmbeddingOptions
from trainer.training.embedding.plugin import Embedding
from trainer.training.embedding.token_weight import Weights
from trainer.training.options import START, START_SIGNALS

pytestmark = pytest.mark.usefixtures("all_models_allowed")


def learn(base: Path, workspace: Path, **changes: Any) -> Trained:
    small: dict[str, Any] = {"base": str(base), "precision": "fp32", "rank": 4, "threads": 1, "epochs": 1, "folds": 0}
    plugin = Embedding(EmbeddingOptions.model_validate(small | changes))
    return plugin.train(make_data(8, dev=8), workspace, Report())


def test_it_has_something_new_only_if_the_adapter_or_the_weights_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "measured_weights", lambda *args, **rest: Weights(tokens=0.5))
    base = save_tiny_embedder(tmp_path / "base")
    (tmp_path / "first").mkdir()
    first = learn(base, tmp_path / "first", token_similarity=True)
    assert not first.base_won, "the weight of the tokens alone is new"
    for before, compares_tokens, base_won in ((0.5, True, True), (0.0, True, False), (0.5, False, True)):
        workspace = tmp_path / f"{before} {compares_tokens}"
        shutil.copytree(first.adapter, workspace / START)
        (workspace / START / START_SIGNALS).write_text(json.dumps({"token_weight": before, "list_weight": 0.0}))
        changes: dict[str, Any] = {"start": "a" * 64, "learning_rate": 1e-6, "token_similarity": compares_tokens}
        assert learn(base, workspace, **changes).base_won is base_won, workspace.name
