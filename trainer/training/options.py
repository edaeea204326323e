"""Options of the trainers, as the form, the API and the stored provenance of a training show them.

Imports no Django and no torch, so that the trainer's plugin class and its training code can both use it.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import pydantic

from labeling.plugins import Trainer
from labeling.retrieval.model_names import BUNDLED, check_model
from trainer.bases import MINILM


def _check_base(name: str) -> str:
    return name if name == MINILM else check_model(name or BUNDLED) and name


# The folder of the adapter from which a training continues, and the weights of its student's signals there.
START, START_SIGNALS = "start", "signals.json"


BaseName = Annotated[str, pydantic.AfterValidator(_check_base), pydantic.Field(min_length=1, max_length=500)]


class LoRAOptions(Trainer.Options):
    """Options that every trainer of an adapter has; field descriptions are the help texts of their forms."""

    base: BaseName = pydantic.Field(
        default=MINILM,
        description="Base model: minilm (comes with zelo, trains on a CPU), a folder, or a model name.",
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
    epochs: int = pydantic.Field(default=3, ge=1, le=1000, description="Passes over the training rows.")
    max_steps: int = pydantic.Field(
        default=0, ge=0, description="Maximum number of optimizer steps; 0: no limit besides epochs."
    )
    precision: Literal["auto", "fp32", "bf16"] = pydantic.Field(
        default="auto",
        description="auto: bf16 where the processor has it, a timing finds it faster, and the order stays the same; fp32 elsewhere.",
    )
    gradient_checkpointing: bool = pydantic.Field(
        default=False, description="Uses less memory and about a third more time; for long texts and large models."
    )
    instructions: Literal["auto", "always", "never"] = pydantic.Field(
        default="auto", description="Reads instructions before the queries. auto: if the rows have more than one."
    )
    without_instruction: float = pydantic.Field(
        default=0.1, ge=0, le=1, description="Share of the rows that are shown without their instruction."
    )
    seed: int = pydantic.Field(
        default=0, ge=0, lt=2**31, description="On one CPU, the same seed gives the same adapter."
    )
    threads: int = pydantic.Field(default=0, ge=0, le=1024, description="CPU threads; 0: all that are available.")


# The worker copies the adapter of that student into the folder START of the workspace.
StartChecksum = Annotated[
    str,
    pydantic.Field(
        pattern=r"^([0-9a-f]{64})?$",
        description="Checksum of a published student of the same base, from whose adapter training continues; empty: from the base.",
    ),
]


class RerankerOptions(LoRAOptions):
    """Options of all trainers of cross-encoders. `loss` names the loss that the trainer applies."""

    loss: ClassVar[str] = "pointwise"

    start: StartChecksum = ""

    dropout: float = pydantic.Field(
        default=0.0, ge=0, lt=1, description="Dropout during training, also in the base's layers; 0 learns fastest."
    )
    learning_rate: float = pydantic.Field(
        default=5e-4, gt=0, le=1, description="5e-4 suits MiniLM (2e-3 learns nothing), 1e-4 models of billions."
    )
    warm_steps: int = pydantic.Field(
        default=0,
        ge=0,
        le=10**6,
        description="Steps that first teach an embedder base its own ranking; helps when there are few queries.",
    )
    max_length: int = pydantic.Field(
        default=256,
        ge=16,
        le=131072,
        description="Maximum tokens of query and document together; longer pairs are truncated.",
    )
    batch_size: int = pydantic.Field(default=16, ge=1, le=65536, description="Rows per batch.")
    accumulation: int = pydantic.Field(default=1, ge=1, le=65536, description="Batches per optimizer step.")
    eval_steps: int = pydantic.Field(
        default=50, ge=1, le=10**6, description="Steps between evaluations on the dev split; each writes a checkpoint."
    )
    dev_rows: int = pydantic.Field(
        default=2000, ge=10, le=10**7, description="Rows of the dev split that each evaluation ranks, in whole queries."
    )
    patience: int = pydantic.Field(
        default=5,
        ge=0,
        le=10**6,
        description="Early stopping: evaluations without a better NDCG@10 before training stops; 0: never.",
    )


class PointwiseOptions(RerankerOptions):
    """Options of the trainer `pointwise`."""


class QueryLossOptions(RerankerOptions):
    """Options of the trainers whose loss compares candidates of one query."""

    batch_size: int = pydantic.Field(
        default=16, ge=2, le=65536, description="Candidates of one query that are compared at once."
    )
    accumulation: int = pydantic.Field(default=1, ge=1, le=65536, description="Lists per optimizer step.")


class RankNetOptions(QueryLossOptions):
    """Options of the trainer `ranknet`."""

    loss: ClassVar[str] = "ranknet"


class MarginMSEOptions(QueryLossOptions):
    """Options of the trainer `margin-mse`."""

    loss: ClassVar[str] = "margin-mse"


class ListwiseOptions(QueryLossOptions):
    """Options of the trainer `listwise`."""

    loss: ClassVar[str] = "listwise"

    elo_scale: float = pydantic.Field(
        default=0.0,
        ge=0,
        le=1e6,
        description="Elo points that make a document e times as likely in the target; 0: from the spread of the Elo.",
    )
