"""Labels that lie close together: spread while they are learned, and drawn together again in the head."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.special import expit, logit

from labeling.records import Examples, TrainingData
from tests.factories.lessons import Report, make_data, make_options
from tests.factories.weights.tiny_models import save_tiny_bert
from trainer.training.label_scaling import STEEPNESS, stretch_of
from trainer.training.pointwise import Pointwise

CLOSE_LABELS = np.array([0.05, 0.055, 0.06, 0.052, 0.07, 0.058])


def test_a_head_that_has_learned_spread_labels_gives_the_relevance_itself(tmp_path: Path) -> None:
    stretch = stretch_of(CLOSE_LABELS)
    assert stretch is not None
    spread = stretch.spread(CLOSE_LABELS)
    assert spread.std() > 0.2
    assert np.argsort(spread).tolist() == np.argsort(CLOSE_LABELS).tolist()
    # A head over one-hot features gives row i the logit weight[i] + bias: here exactly what it was to learn.
    learned = torch.tensor(logit(spread), dtype=torch.float32)
    head = {"m.classifier.weight": learned[None] - 0.25, "m.classifier.bias": torch.tensor([0.25])}
    layer = {"m.query.lora_A.weight": torch.ones(1, 3)}
    save_file(head | layer, str(tmp_path / "adapter_model.safetensors"))
    stretch.draw_together(tmp_path)
    found = load_file(str(tmp_path / "adapter_model.safetensors"))
    served = expit((found["m.classifier.weight"][0] + found["m.classifier.bias"]).numpy())
    assert served == pytest.approx(CLOSE_LABELS, abs=1e-6)
    assert torch.equal(found["m.query.lora_A.weight"], layer["m.query.lora_A.weight"])


def test_a_head_of_another_shape_is_refused(tmp_path: Path) -> None:
    stretch = stretch_of(CLOSE_LABELS)
    assert stretch is not None
    save_file({"m.classifier.weight": torch.ones(1, 3)}, str(tmp_path / "adapter_model.safetensors"))
    with pytest.raises(ValueError, match="expected one weight and one bias"):
        stretch.draw_together(tmp_path)


@pytest.mark.parametrize("labels", [[], [0.3, 0.3], [0.0, 0.5, 1.0], [0.1, 0.4, 0.2]])
def test_labels_that_differ_enough_or_not_at_all_are_left_as_they_are(labels: list[float]) -> None:
    assert stretch_of(np.array(labels)) is None


def close_together(rows: Examples) -> Examples:
    return dataclasses.replace(rows, labels=0.05 + 0.02 * rows.labels)


def test_a_training_on_close_labels_publishes_scores_as_close(tmp_path: Path) -> None:
    wide = make_data(8)
    close = TrainingData(close_together(wide.train), close_together(wide.dev))
    trainer = Pointwise(make_options(save_tiny_bert(tmp_path / "base"), epochs=4))
    biases = {}
    for name, data in (("wide", wide), ("close", close)):
        (tmp_path / name).mkdir()
        trained = trainer.train(data, tmp_path / name, Report())
        assert trained.facts["labels_spread"] == (name == "close")
        (bias,) = (
            each
            for key, each in load_file(str(trained.adapter / "adapter_model.safetensors")).items()
            if key.endswith("classifier.bias")
        )
        biases[name] = float(bias)
    stretch = stretch_of(close.train.labels)
    assert stretch is not None
    # The fresh head has a bias near 0 after so few steps: drawn together, it stands at the mean logit.
    assert biases["wide"] == pytest.approx(0.0, abs=0.5)
    assert biases["close"] == pytest.approx(stretch.mean, abs=0.5 * stretch.deviation / STEEPNESS)
