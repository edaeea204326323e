"""Options of the trainer `pairwise`, as the form, the API and the provenance of a training show them.

Imports no Django and no torch.
"""

from __future__ import annotations

from typing import Literal

import pydantic

from labeling.plugins import Trainer
from trainer.bases import MINILM
from trainer.training.options import BaseName


class PairwiseOptions(Trainer.Options):
    """Options of the pairwise trainer; field descriptions are the help texts of its form."""

    base: BaseName = pydantic.Field(
        default=MINILM,
        description="Base model, an encoder or a decoder: minilm (comes with zelo), a folder, or a model name.",
    )
    reads: Literal["auto", "jointly", "apart"] = pydantic.Field(
        default="auto",
        description="jointly: both documents in one sequence. apart: embeds each text and compares cosines, for embedders. auto: "
        "apart if the base is an embedder.",
    )
    rank: int = pydantic.Field(default=16, ge=1, le=512, description="Rank of the adapter's matrices.")
    alpha: int = pydantic.Field(default=32, ge=1, le=4096, description="Scale of the adapter: alpha / rank.")
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1, description="Dropout during training.")
    targets: str = pydantic.Field(
        default="", max_length=500, description="Layers to adapt, comma-separated; empty: the base's default."
    )
    learning_rate: float = pydantic.Field(
        default=5e-4, gt=0, le=1, description="5e-4 suits MiniLM, 1e-4 models of billions."
    )
    warmup: float = pydantic.Field(
        default=0.1, ge=0, le=0.9, description="Share of the steps in which the learning rate rises."
    )
    weight_decay: float = pydantic.Field(default=0.0, ge=0, le=1)
    epochs: int = pydantic.Field(default=3, ge=1, le=1000, description="Passes over the training pairs.")
    max_steps: int = pydantic.Field(
        default=0, ge=0, description="Maximum number of optimizer steps; 0: no limit besides epochs."
    )
    max_length: int = pydantic.Field(
        default=384,
        ge=32,
        le=131072,
        description="Maximum tokens of instruction, query and both documents together; longer documents are truncated.",
    )
    batch_size: int = pydantic.Field(
        default=16, ge=1, le=65536, description="Pairs per optimizer step, each in both orders."
    )
    precision: Literal["auto", "fp32", "bf16"] = pydantic.Field(
        default="auto", description="auto: bf16 on a GPU that supports it, fp32 elsewhere."
    )
    gradient_checkpointing: bool = pydantic.Field(
        default=False, description="Uses less memory and about a third more time; for long texts and large models."
    )
    without_instruction: float = pydantic.Field(
        default=0.1, ge=0, le=1, description="Share of the pairs that are shown without the project's instruction."
    )
    eval_steps: int = pydantic.Field(
        default=50, ge=1, le=10**6, description="Steps between evaluations on the dev split; each writes a checkpoint."
    )
    dev_pairs: int = pydantic.Field(
        default=2000, ge=10, le=10**7, description="Pairs of the dev split that each evaluation judges."
    )
    patience: int = pydantic.Field(
        default=5,
        ge=0,
        le=10**6,
        description="Early stopping: evaluations without a lower log-loss before training stops; 0: never.",
    )
    seed: int = pydantic.Field(
        default=0, ge=0, lt=2**31, description="On one CPU, the same seed gives the same adapter."
    )
    threads: int = pydantic.Field(default=0, ge=0, le=1024, description="CPU threads; 0: all that are available.")
