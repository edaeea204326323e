"""Options of a recipe, as its form, REST and the command show them."""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from labeling.plugins import Options
from trainer.bases import MINILM
from trainer.training.options import BaseName
from workers.jobs.distillation import DistillationOptions


class RecipeOptions(Options):
    """Options of a recipe; field descriptions are the help texts of its form."""

    distill: Literal["auto", "always", "never"] = pydantic.Field(
        default="auto",
        description="Distils a student from the panel that judges most pairs. auto: if there are enough queries for it and it "
        "saves calls.",
    )
    panel_pairs: int = pydantic.Field(
        default=30,
        ge=1,
        le=10_000,
        description="Distillation: pairs per query of the panel's first part, one judge each.",
    )
    review_pairs: int = pydantic.Field(
        default=60, ge=0, le=10_000, description="Distillation: pairs per query that the panel gets at the end."
    )
    pairwise_base: BaseName = pydantic.Field(
        default=MINILM, description="Distillation: base model of the student that judges pairs."
    )
    pairs_per_candidate: float = pydantic.Field(
        default=4.0,
        gt=0,
        le=10_000,
        description="Pairs per candidate that the panel judges where nothing is distilled.",
    )
    calibration_pairs: int = pydantic.Field(
        default=3, ge=0, le=1000, description="Pairs per query across queries; 0: scores are not calibrated."
    )
    base: BaseName = pydantic.Field(default=MINILM, description="Base model of the reranker.")
    trainer: str = pydantic.Field(
        default="", max_length=80, description="Trainer of the reranker; empty: the recommended one."
    )
    refinement_pairs: int = pydantic.Field(
        default=10, ge=0, le=10_000, description="Refinement: named pairs per training query, one judge each; 0: none."
    )
    split_by: str = pydantic.Field(
        default="",
        max_length=100,
        description="Field of the queries' metadata that names their split: train, dev or test. Empty: splits are drawn.",
    )
    shared_documents: Literal["auto", "remove", "keep"] = pydantic.Field(
        default="auto",
        description="Documents of the evaluation in training. auto: kept if most candidates are documents of several queries, "
        "removed otherwise.",
    )
    seed: int = pydantic.Field(default=0, ge=0, lt=2**31, description="Seed of designs, splits and trainings.")

    @property
    def training(self) -> dict[str, Any]:
        """The options of the reranker's training."""
        return {"base": self.base, "seed": self.seed}

    @property
    def distillation(self) -> DistillationOptions:
        """The options of the distilled run."""
        return DistillationOptions(
            panel_pairs=self.panel_pairs, review_pairs=self.review_pairs, base=self.pairwise_base, seed=self.seed
        )
