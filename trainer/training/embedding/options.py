"""Options of the trainer `embedding`, as the form, the API and the provenance of a training show them.

Imports no Django and no torch.
"""

from __future__ import annotations

from typing import Literal

import pydantic

from labeling.plugins import Trainer
from trainer.bases import MINILM
from trainer.training.options import BaseName


def sizes_of(text: str) -> tuple[int, ...]:
    """The sizes of a comma-separated list, largest first. Raises ValueError."""
    try:
        sizes = {int(part) for part in text.split(",") if part.strip()}
    except ValueError:
        raise ValueError(
            f"embedding sizes are {text!r}; expected whole numbers with commas, such as 256, 128, 64"
        ) from None
    if any(size < 1 for size in sizes):
        raise ValueError(f"embedding sizes are {text!r}; expected numbers of at least 1")
    return tuple(sorted(sizes, reverse=True))


class EmbeddingOptions(Trainer.Options):
    """Options of the embedding trainer; field descriptions are the help texts of its form."""

    base: BaseName = pydantic.Field(
        default=MINILM, description="Base model, an embedder: minilm (comes with zelo), a folder, or a model name."
    )
    rank: int = pydantic.Field(default=16, ge=1, le=512, description="Rank of the adapter's matrices.")
    alpha: int = pydantic.Field(default=32, ge=1, le=4096, description="Scale of the adapter: alpha / rank.")
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1, description="Dropout during training.")
    targets: str = pydantic.Field(
        default="", max_length=500, description="Layers to adapt, comma-separated; empty: the base's default."
    )
    learning_rate: float = pydantic.Field(
        default=5e-4, gt=0, le=1, description="Small rates leave the base's knowledge in place; 5e-4 suits MiniLM."
    )
    warmup: float = pydantic.Field(
        default=0.1, ge=0, le=0.9, description="Share of the steps in which the learning rate rises."
    )
    weight_decay: float = pydantic.Field(default=0.0, ge=0, le=1)
    epochs: int = pydantic.Field(default=3, ge=1, le=1000, description="Passes over the training queries.")
    max_steps: int = pydantic.Field(
        default=0, ge=0, description="Maximum number of optimizer steps; 0: no limit besides epochs."
    )
    queries_a_step: int = pydantic.Field(
        default=4, ge=1, le=4096, description="Queries per optimizer step, each with all of its candidates."
    )
    elo_scale: float = pydantic.Field(
        default=0.0,
        ge=0,
        le=1e6,
        description="Elo points that make a document e times as likely in the target; 0: from the spread of the Elo.",
    )
    temperature: float = pydantic.Field(
        default=0.05, gt=0, le=10, description="Divides the cosine in the softmax over a query's candidates."
    )
    learn_temperature: bool = pydantic.Field(default=False, description="Learns the temperature from the given start.")
    pull: float = pydantic.Field(
        default=0.1, ge=0, le=1e3, description="Weight of the pull towards the base's own order; 0: none."
    )
    in_batch_negatives: bool = pydantic.Field(
        default=True, description="Counts the candidates of a step's other queries as not relevant."
    )
    embedding_sizes: str = pydantic.Field(
        default="",
        max_length=200,
        description="Smaller sizes to train as well (Matryoshka), such as 256, 128; empty: the base's size only.",
    )
    token_similarity: bool = pydantic.Field(
        default=False,
        description="Also compares the tokens of query and document in rankings, with a weight that training chooses.",
    )
    max_length: int = pydantic.Field(
        default=128, ge=8, le=131072, description="Tokens of each text in training; longer texts are truncated."
    )
    batch_size: int = pydantic.Field(
        default=64,
        ge=1,
        le=65536,
        description="Texts computed at once; a step with more texts caches its gradients, which needs less memory.",
    )
    precision: Literal["auto", "fp32", "bf16"] = pydantic.Field(
        default="auto", description="auto: bf16 on a GPU that supports it, fp32 elsewhere."
    )
    gradient_checkpointing: bool = pydantic.Field(
        default=False, description="Uses less memory and about a third more time; for long texts and large models."
    )
    eval_steps: int = pydantic.Field(
        default=0,
        ge=0,
        le=10**6,
        description="Steps between checkpoints that are compared; 0: at the end of the training only.",
    )
    folds: int = pydantic.Field(
        default=3,
        ge=0,
        le=20,
        description="Cross-validation of checkpoint and scale where the dev split is small; 0: the dev split alone.",
    )
    enough_dev_queries: int = pydantic.Field(
        default=40, ge=1, le=10**6, description="With this many dev queries there is no cross-validation."
    )
    dev_rows: int = pydantic.Field(
        default=4000, ge=10, le=10**7, description="Rows of the dev split that are ranked, in whole queries."
    )
    seed: int = pydantic.Field(
        default=0, ge=0, lt=2**31, description="On one CPU, the same seed gives the same adapter."
    )
    threads: int = pydantic.Field(default=0, ge=0, le=1024, description="CPU threads; 0: all that are available.")

    @pydantic.field_validator("embedding_sizes")
    @classmethod
    def _sizes_are_numbers(cls, text: str) -> str:
        sizes_of(text)
        return text
