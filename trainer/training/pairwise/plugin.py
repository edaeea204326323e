"""The trainer `pairwise` (plugin): a student that reads both documents and answers as the panel does on average.

Imports no Django, and torch only when a training starts.
"""

from __future__ import annotations

from pathlib import Path

from labeling.plugins import Report, Trainer, register
from labeling.records import Trained, TrainingData
from trainer.training.pairwise.options import PairwiseOptions


@register
class Pairwise(Trainer):
    """Trains a low-rank adapter of a model that reads a query and two documents; the result is a judge."""

    name = "pairwise"
    label = "Pairwise LoRA, cross-entropy on the panel's preference"
    learns_from = "pairs"
    Options = PairwiseOptions
    options: PairwiseOptions

    def train(self, data: TrainingData, workspace: Path, report: Report) -> Trained:
        from trainer.training.pairwise.training import train_pairwise

        return train_pairwise(self.options, data, workspace, report)
