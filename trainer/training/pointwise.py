"""Trainers of rerankers (plugins). `pointwise`: LoRA, mean squared error against calibrated scores.

The class declares the options; `trainer.training.fine_tuning`, which loads torch, is imported when training starts.
Imports no Django: `trainer.training.process` runs without it.
"""

from __future__ import annotations

from pathlib import Path

from labeling.plugins import Report, Trainer, register
from labeling.records import Trained, TrainingData
from trainer.training.options import PointwiseOptions


@register
class Pointwise(Trainer):
    """Trains a low-rank adapter whose sigmoid approximates the calibrated relevance of each document."""

    name = "pointwise"
    label = "Pointwise LoRA, mean squared error"

    Options = PointwiseOptions

    options: PointwiseOptions

    def train(self, data: TrainingData, workspace: Path, report: Report) -> Trained:
        from trainer.training.fine_tuning import fine_tune

        return fine_tune(self.options, data, workspace, report)
