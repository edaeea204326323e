"""The losses of a query's candidates: zero gradient at the target, shift and order do not matter, gradients are right."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from labeling.records import Examples, TrainingData
from tests.factories.lessons import Report, make_data, make_options
from tests.factories.weights.tiny_models import save_tiny_bert
from trainer.training.batching import QueryLists
from trainer.training.losses.elo import ELO_A_LOGIT, NoPreferences, OneElo, elo_of, elo_scale_of, with_preferences
from trainer.training.losses.listwise import listwise
from trainer.training.losses.margin_mse import margin_mse
from trainer.training.losses.ranknet import ranknet
from trainer.training.query_losses import Listwise, MarginMSE, RankNet

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
LOSSES: dict[str, Loss] = {
    "ranknet": ranknet,
    "margin-mse": margin_mse,
    "listwise": lambda scores, elo: listwise(scores, elo, elo_scale=float(ELO_A_LOGIT)),
}
ELO = torch.tensor([1380.0, 1500.0, 1520.0, 1710.0], dtype=torch.float64)


@pytest.mark.parametrize("name", LOSSES)
def test_scores_that_are_the_elo_in_logits_have_no_gradient_and_other_scores_the_right_one(name: str) -> None:
    loss = LOSSES[name]
    at_target = (ELO / ELO_A_LOGIT + 3.0).requires_grad_()  # a shift of all scores changes nothing
    loss(at_target, ELO).backward()
    assert at_target.grad is not None
    assert at_target.grad.abs().max() < 1e-9
    scores = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda each: loss(each, ELO), (scores,))
    order = torch.tensor([2, 0, 3, 1])
    assert loss(scores[order], ELO[order]).item() == pytest.approx(loss(scores, ELO).item())
    assert loss(scores, ELO) > loss(at_target, ELO)


def rows(elo: list[list[float]]) -> Examples:
    ids = np.repeat(np.arange(len(elo)), [len(own) for own in elo])
    values = np.array([each for own in elo for each in own])
    texts = [f"text {at}" for at in range(len(values))]
    return Examples([f"query {at}" for at in ids], texts, np.full(len(values), 0.5), np.ones(len(values)), ids, values)


def test_queries_without_a_preference_are_left_out_and_none_left_is_an_error() -> None:
    assert with_preferences(rows([[1, 2], [5, 5, 5], [7], [3, 4, 3]])) == [slice(0, 2), slice(6, 9)]
    with pytest.raises(NoPreferences, match="judge more pairs"):
        with_preferences(rows([[1], [2]]))
    with pytest.raises(OneElo, match=r"'query 0'.*judge more pairs"):
        with_preferences(rows([[5, 5], [4, 4]]))
    assert elo_scale_of(rows([[1400, 1600]])) == 50.0
    assert elo_scale_of(rows([[1400, 1600]]), 80.0) == 80.0
    spread = dataclasses.replace(rows([[1, 2]]), elo=None, labels=np.array([0.5, 10 / 11]))
    assert elo_of(spread) == pytest.approx([1500, 1900])


def test_lists_hold_candidates_of_one_query_and_every_row_once() -> None:
    queries = [slice(0, 3), slice(3, 24), slice(26, 28)]
    lists = QueryLists(np.ones(28, dtype=np.int64), queries, list_rows=5, step_lists=2, seed=1)
    plan = lists.plan(0)
    assert sorted(row for part in plan.parts for row in part) == [*range(24), 26, 27]
    for part in plan.parts:
        assert len({number for number, own in enumerate(queries) for row in part if own.start <= row < own.stop}) == 1
        assert 2 <= len(part) <= 5
    assert len(plan.parts) == len(lists) and len(plan.step_tokens) == lists.steps_an_epoch
    assert plan.parts != lists.plan(1).parts


@pytest.mark.parametrize("trainer", [RankNet, MarginMSE, Listwise])
def test_a_cross_encoder_learns_with_each_loss_and_repeats_itself(trainer: type, tmp_path: Path) -> None:
    base = save_tiny_bert(tmp_path / "bert")
    plain = make_options(base, epochs=3, learning_rate=2e-3, patience=0, eval_steps=30).model_dump()
    data = make_data(12)
    weights = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        told = Report()
        trained = trainer(trainer.Options.model_validate(plain)).train(data, tmp_path / name, told)  # type: ignore[attr-defined]
        losses = [each["loss"] for each in told.of("step")]
        assert losses[-1] < losses[0]
        weights.append((trained.adapter / "adapter_model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_no_preferences_end_a_training_with_the_remedy(tmp_path: Path) -> None:
    base = save_tiny_bert(tmp_path / "bert")
    data = make_data(4)
    flat = dataclasses.replace(data.train, elo=np.full(len(data.train), 1500.0))
    (tmp_path / "w").mkdir()
    options = Listwise.Options.model_validate(make_options(base).model_dump())
    with pytest.raises(OneElo, match="judge more pairs"):
        Listwise(options).train(TrainingData(flat, data.dev), tmp_path / "w", Report())
