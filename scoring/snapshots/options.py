"""The options of a snapshot."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import pydantic

from labeling.plugins import Options

Domain = Annotated[str, pydantic.Field(max_length=100)]
_NEARLY = 1.0 - 1e-9


class SnapshotOptions(Options):
    """Options of a snapshot: filters, splits and weights.

    Document filters apply only to the splits train and dev. The evaluation splits keep every scored document of their
    queries, since leaving out uncertain ones would make their lists easier than in practice.
    """

    seed: int = pydantic.Field(default=0, ge=0, lt=2**63, description="Another seed reshuffles the split.")
    dev_share: float = pydantic.Field(
        default=0.1, ge=0, le=0.5, description="Share of queries used to choose the best checkpoint."
    )
    test_share: float = pydantic.Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share of queries reserved for evaluation. 1, with a dev_share of 0, makes a test collection: all queries are "
        "evaluated, none is trained on.",
    )
    split_by: str = pydantic.Field(
        default="",
        max_length=100,
        description="Field of the queries' metadata that names their split: train, dev, test or heldout. Queries without it are "
        "drawn by the shares. Empty: all are drawn.",
    )
    min_comparisons: int = pydantic.Field(
        default=1,
        ge=0,
        lt=2**31,
        description="Training ignores documents with fewer comparisons; evaluation keeps them.",
    )
    max_stderr: float | None = pydantic.Field(
        default=None,
        gt=0,
        description="Training ignores documents with a larger standard error of Elo; evaluation keeps them.",
    )
    domains: list[Domain] = pydantic.Field(
        default=[], max_length=1000, description="Domains to include in every split. Empty: all."
    )
    heldout_domains: list[Domain] = pydantic.Field(
        default=[], max_length=1000, description="Domains excluded from training, to evaluate transfer."
    )
    weights: dict[str, Annotated[float, pydantic.Field(ge=0, le=1e6)]] = pydantic.Field(
        default={},
        max_length=1000,
        description='Weight of a row by project, domain or "project/domain". Default: 1.',
    )
    shared_documents: Literal["remove", "keep"] = pydantic.Field(
        default="remove",
        description="Remove documents of the evaluation from training, or keep them if the collection is fixed "
        "and only queries are new.",
    )

    @pydantic.model_validator(mode="after")
    def _shares_of_all(self) -> Self:
        if self.dev_share + self.test_share > 2.0 - _NEARLY:
            raise ValueError(
                f"dev_share {self.dev_share:g} and test_share {self.test_share:g} are more than all queries together; "
                f"lower dev_share to {max(0.0, 1.0 - self.test_share):g}"
            )
        return self

    @property
    def leaves_training(self) -> bool:
        """Whether the shares leave queries to train on."""
        return self.dev_share + self.test_share < _NEARLY
