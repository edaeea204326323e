"""What a training makes small. Imports no Django."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers.cross_encoder import CrossEncoder
from sentence_transformers.util import batch_to_device


class SquaredError(torch.nn.Module):
    """Mean over rows of weight x (sigmoid(logit) - relevance)^2; with weights 1, sentence-transformers' MSELoss.

    `rows_a_part` divides the sum where a step is cut into parts of unlike size: how many rows a part of the step has on
    average, so that the mean of the parts' losses is the mean over the step's rows, however they are cut.
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
