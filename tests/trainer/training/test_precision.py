"""`auto` trains in bfloat16 on a CPU where a timing finds it faster and the order stays, and remembers its choice."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from tests.factories.lessons import Report, make_data, make_options
from tests.factories.weights.tiny_models import save_tiny_bert
from trainer.training import adapters
from trainer.training.adapters import PRECISION_FILE, bfloat16_trains_faster, choose_bf16
from trainer.training.fine_tuning import fine_tune


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("bert"))


class FakeScores:
    """Scores of four rows; a step takes 20 ms in float32 and `speedup` times less in bfloat16."""

    def __init__(self, *, speedup: float, fast: tuple[float, ...] = (4.0, 3.0, 2.0, 1.0)) -> None:
        self.weights = torch.ones(4, requires_grad=True)
        self.speedup, self.fast, self.calls = speedup, fast, 0

    def __call__(self, bf16: bool) -> torch.Tensor:
        self.calls += 1
        end = time.thread_time() + (0.02 / self.speedup if bf16 else 0.02)
        while time.thread_time() < end:
            pass
        return self.weights * torch.tensor(self.fast if bf16 else (4.0, 3.0, 2.0, 1.0))


@pytest.mark.parametrize(
    ("speedup", "fast", "pays"),
    [
        (3.0, (4.0, 3.0, 2.0, 1.0), True),
        (1.05, (4.0, 3.0, 2.0, 1.0), False),
        (3.0, (1.0, 2.0, 3.0, 4.0), False),
        (3.0, (4.0, 2.99, 3.0, 1.0), False),
        (3.0, (float("nan"), 3.0, 2.0, 1.0), False),
    ],
)
def test_it_pays_if_a_step_is_faster_and_orders_alike(speedup: float, fast: tuple[float, ...], pays: bool) -> None:
    scores = FakeScores(speedup=speedup, fast=fast)
    assert bfloat16_trains_faster(scores, [scores.weights]) is pays
    assert scores.weights.grad is None


def test_a_layer_without_bfloat16_stays_as_it_is() -> None:
    scores = FakeScores(speedup=3.0)

    def only_float32(bf16: bool) -> torch.Tensor:
        if bf16:
            raise RuntimeError("could not create a primitive descriptor")
        return scores(bf16)

    assert bfloat16_trains_faster(only_float32, [scores.weights]) is False


@pytest.mark.parametrize("kept", [True, False])
def test_a_resumed_training_keeps_its_precision(
    bert: Path, tmp_path: Path, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "has_bfloat16", lambda: True)
    (tmp_path / PRECISION_FILE).write_text(f'{{"bf16": {str(kept).lower()}}}')
    trained = fine_tune(make_options(bert, precision="auto", max_steps=2), make_data(4), tmp_path, Report())
    assert trained.facts["precision"] == ("bf16" if kept else "fp32")


def test_the_choice_is_stored_and_changes_no_random_number(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "has_bfloat16", lambda: True)
    monkeypatch.setattr(adapters, "WORTH_IT", 1e9)
    automatic = fine_tune(
        make_options(bert, precision="auto", max_steps=2, dropout=0.1), make_data(4), tmp_path, Report()
    )
    assert (tmp_path / PRECISION_FILE).read_text() == '{"bf16": false}'
    (tmp_path / "plain").mkdir()
    plain = fine_tune(make_options(bert, max_steps=2, dropout=0.1), make_data(4), tmp_path / "plain", Report())
    for name in ("adapter_model.safetensors",):
        assert (automatic.adapter / name).read_bytes() == (plain.adapter / name).read_bytes()


def test_processors_without_bfloat16_measure_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "has_bfloat16", lambda: False)
    scores = FakeScores(speedup=3.0)
    assert choose_bf16(make_options("minilm", precision="auto"), torch.nn.Linear(1, 1), scores, tmp_path) is False
    assert scores.calls == 0
