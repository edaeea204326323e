"""Options of the trainer `pairwise`, as the form, the API and the provenance of a training show them.

Imports no Django and no torch.
"""

from __future__ import annotations

from typing import Literal

import pydantic

from trainer.bases import MINILM
from trainer.training.options import BaseName, LoRAOptions


class PairwiseOptions(LoRAOptions):
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
    instructions: Literal["auto", "always", "never"] = pydantic.Field(
        default="auto",
        description="Reads the project's and the queries' instructions, in training and as a judge; never: neither.",
    )
    epochs: int = pydantic.Field(default=3, ge=1, le=1000, description="Passes over the training pairs.")
    max_length: int = pydantic.Field(
        default=384,
        ge=32,
        le=131072,
        description="Maximum tokens of instruction, query and both documents together; longer documents are truncated.",
    )
    batch_size: int = pydantic.Field(
        default=16, ge=1, le=65536, description="Pairs per optimizer step, each in both orders."
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
