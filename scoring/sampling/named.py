"""The sampler `named`: asks exactly the pairs that its options name, for refinements and for people with a list of pairs.

`scoring.sampling.named_pairs` looks the pairs up and puts those of a query into its state.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pydantic

from labeling import plugins
from labeling.records import IntArray, QueryState
from scoring.numerics.design import static
from scoring.sampling.samplers import MOST_PAIRS

CandidateId = Annotated[int, pydantic.Field(ge=1, lt=2**63)]


@plugins.register
class Named(plugins.Sampler):
    """The named pairs in their order, also pairs that other judges have answered; each is asked once in a run."""

    name = "named"
    label = "Named pairs only"

    class Options(plugins.Sampler.Options):
        pairs: list[tuple[CandidateId, CandidateId]] = pydantic.Field(
            default=[],
            max_length=MOST_PAIRS,
            description="Pairs of candidate ids of one query each, the most valuable first.",
        )

    options: Options

    def sample(self, state: QueryState, budget: int, rng: np.random.Generator) -> IntArray:
        static.check_budget(budget)
        found = np.empty((0, 2), dtype=np.int64) if state.recorded is None else state.recorded
        return found[:budget]
