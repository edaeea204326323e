"""The loss of the trainer `pointwise`: mean squared error against relevance. Imports no Django."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers.cross_encoder import CrossEncoder
from sentence_transformers.util import batch_to_device


class SquaredError(torch.nn.Module):
    """Mean over rows of weight x (sigmoid(logit) - relevance)^2; with weights 1, sentence-transformers' MSELoss.

    `rows_a_part` is the average number of rows per part of the step; the loss divides by it, so that the mean of the
    losses of the parts equals the mean over the rows of the step even if the parts differ in size.
    """

    def __init__(self, model: CrossEncoder) -> None:
        super().__init__()
        self.model = model
        self.rows_a_part: float | None = None

    def forward(
        self, inputs: list[list[str]], labels: Sequence[torch.Tensor], prompt: Any = None, task: Any = None
    ) -> torch.Tensor:
        """`labels`: (relevance, weight) of each row."""
        features = self.model.preprocess(list(zip(*inputs, strict=True)))
        scores = self.model(batch_to_device(features, self.model.device))["scores"].view(-1).float()
        wanted = torch.stack(list(labels)).to(scores.device, torch.float32)
        squares = wanted[:, 1] * (torch.sigmoid(scores) - wanted[:, 0]).square()
        return squares.sum() / (self.rows_a_part or len(squares))
