"""Which pairs of a query to judge next: the built-in samplers (stage 3).

Each sampler is asked again after every round of judging and rating, until it returns nothing
more. The mathematics is in `scoring.numerics.design` and its siblings.
"""

from __future__ import annotations

import numpy as np
import pydantic

from labeling import plugins
from labeling.records import IntArray, QueryState
from scoring.numerics import design


@plugins.register
class Cycles(plugins.Sampler):
    """The paper's design: a union of random Hamiltonian cycles, then nothing.

    Where pairs are there already (a design cut short by its budget, or candidates that came later), only
    what is missing to reach the degree and to connect the graph. A budget below one cycle gives a path.
    """

    name = "cycles"
    label = "Random cycles (even coverage)"

    class Options(plugins.Sampler.Options):
        degree: int = pydantic.Field(8, ge=2, description="Pairs per candidate; an even number")

        @pydantic.field_validator("degree")
        @classmethod
        def _even(cls, degree: int) -> int:
            if degree % 2:
                raise ValueError(f"degree is {degree}; expected an even number, as each cycle adds two")
            return degree

    options: Options

    def sample(self, state: QueryState, budget: int, rng: np.random.Generator) -> IntArray:
        design.check_budget(budget)
        if len(state.pairs):
            return design.complete_degrees(state.size, self.options.degree, state.pairs, rng)[:budget]
        return design.random_cycles(state.size, self.options.degree, rng)[:budget]


@plugins.register
class AllPairs(plugins.Sampler):
    """Every pair that has not been drawn, in random order."""

    name = "all"
    label = "All pairs"

    def sample(self, state: QueryState, budget: int, rng: np.random.Generator) -> IntArray:
        design.check_budget(budget)
        drawn = design.check_pairs(state.size, state.pairs)
        return rng.permutation(design.without(state.size, design.all_pairs(state.size), drawn))[:budget]
