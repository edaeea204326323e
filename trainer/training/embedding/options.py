"""Options of the trainer `embedding`, as the form, the API and the provenance of a training show them.

Imports no Django and no torch.
"""

from __future__ import annotations

import pydantic

from trainer.bases import MINILM
from trainer.training.options import BaseName, LoRAOptions, StartChecksum


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


class EmbeddingOptions(LoRAOptions):
    """Options of the embedding trainer; field descriptions are the help texts of its form."""

    base: BaseName = pydantic.Field(
        default=MINILM, description="Base model, an embedder: minilm (comes with zelo), a folder, or a model name."
    )
    start: StartChecksum = ""
    learning_rate: float = pydantic.Field(
        default=1e-3,
        gt=0,
        le=1,
        description="1e-3 suits MiniLM, 1e-4 models of billions; held-out queries choose how much of the adapter is kept.",
    )
    epochs: int = pydantic.Field(default=3, ge=1, le=1000, description="Passes over the training queries.")
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
    list_similarity: bool = pydantic.Field(
        default=False,
        description="Also compares each document with the mean of its list in rankings, with a weight that training chooses.",
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

    dev_length: int = pydantic.Field(
        default=0,
        ge=0,
        le=131072,
        description="Tokens of each text when held-out queries are ranked; 0: as many as are served.",
    )

    @pydantic.field_validator("embedding_sizes")
    @classmethod
    def _sizes_are_numbers(cls, text: str) -> str:
        sizes_of(text)
        return text
