"""Trainers of rerankers (plugins) whose loss compares candidates of one query: `ranknet`, `margin-mse`, `listwise`.

They learn differences of Elo, which need no calibration across queries; the scores that they publish order the documents of
one query. Imports no Django, and torch only when a training starts.
"""

from __future__ import annotations

from pathlib import Path

from labeling.plugins import Report, Trainer, register
from labeling.records import Trained, TrainingData
from trainer.training.options import ListwiseOptions, MarginMSEOptions, QueryLossOptions, RankNetOptions


class _QueryLossTrainer(Trainer):
    options: QueryLossOptions

    def train(self, data: TrainingData, workspace: Path, report: Report) -> Trained:
        from trainer.training.fine_tuning import fine_tune

        return fine_tune(self.options, data, workspace, report)


@register
class RankNet(_QueryLossTrainer):
    """Trains a low-rank adapter whose differences of scores approximate the preferences that Elo implies."""

    name = "ranknet"
    label = "RankNet LoRA, cross-entropy of pairs"
    Options = RankNetOptions


@register
class MarginMSE(_QueryLossTrainer):
    """Trains a low-rank adapter whose differences of scores approximate differences of Elo."""

    name = "margin-mse"
    label = "Margin LoRA, squared error of differences"
    Options = MarginMSEOptions


@register
class Listwise(_QueryLossTrainer):
    """Trains a low-rank adapter whose softmax over a query's candidates approximates that of Elo."""

    name = "listwise"
    label = "Listwise LoRA, softmax over a query's candidates"
    Options = ListwiseOptions
