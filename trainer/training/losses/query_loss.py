"""Applies a loss of one query's candidates (RankNet, margin MSE, listwise) to the batches of a cross-encoder.

`trainer.training.fine_tuning` calls it as it calls `SquaredError`. Imports no Django.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from sentence_transformers.cross_encoder import CrossEncoder
from sentence_transformers.util import batch_to_device

from trainer.training.losses.listwise import listwise
from trainer.training.losses.margin_mse import margin_mse
from trainer.training.losses.ranknet import ranknet

ListLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def list_loss(name: str, *, elo_scale: float) -> ListLoss:
    """The loss of one query's candidates by the name of its trainer."""
    losses: dict[str, ListLoss] = {
        "ranknet": ranknet,
        "margin-mse": margin_mse,
        "listwise": lambda scores, elo: listwise(scores, elo, elo_scale=elo_scale),
    }
    return losses[name]


class QueryLoss(torch.nn.Module):
    """Weighted mean over the queries of a batch of a loss over the candidates of each."""

    def __init__(self, model: CrossEncoder, loss: ListLoss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss
        self.rows_a_part: float | None = None  # as `SquaredError`; here a part is a list and counts as one

    def forward(
        self, inputs: list[list[str]], labels: Sequence[torch.Tensor], prompt: Any = None, task: Any = None
    ) -> torch.Tensor:
        """`labels`: (Elo, weight, number of the query) of each row; rows of one query stand together."""
        features = self.model.preprocess(list(zip(*inputs, strict=True)))
        scores = self.model(batch_to_device(features, self.model.device))["scores"].view(-1).float()
        told = torch.stack(list(labels)).to(scores.device, torch.float32)
        _, sizes = torch.unique_consecutive(told[:, 2], return_counts=True)
        parts = zip(scores.split(sizes.tolist()), told.split(sizes.tolist()), strict=True)
        return torch.stack([own[:, 1].mean() * self._loss(part, own[:, 0]) for part, own in parts]).mean()
