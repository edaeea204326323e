"""The sampler `guided`: a panel's questions where a student has answered the design, the most worthwhile first.

The mathematics is that of the sampler `adaptive`; a student's answers inform it by their measured weight and leave their pairs
free to be drawn again.
"""

from __future__ import annotations

import numpy as np
import pydantic

from labeling import plugins
from labeling.records import IntArray, QueryState
from scoring.numerics.design import adaptive, static
from scoring.sampling.samplers import MOST_DEGREE, MOST_PAIRS


@plugins.register
class Guided(plugins.Sampler):
    """Pairs with the largest expected gain for the top ranks, given what a student of the panel has answered.

    Also pairs that only the student has answered are drawn. A query without strengths gets one cycle. It ends at
    `pairs_per_candidate` of the panel's pairs. A run with a budget of pairs gives more of each round to the queries that gain
    more, at most twice `round_pairs`.
    """

    name = "guided"
    label = "Guided by a student (focus on the top)"
    shares_rounds = True

    class Options(plugins.Sampler.Options):
        round_pairs: int = pydantic.Field(
            default=10,
            ge=1,
            le=MOST_PAIRS,
            description="Average pairs per query and round; the fit is repeated after each. Small rounds need fewer pairs.",
        )
        pairs_per_candidate: float = pydantic.Field(
            default=2.0, gt=0, le=MOST_DEGREE, description="Maximum pairs per candidate that the panel is asked."
        )
        top: int = pydantic.Field(default=10, ge=1, le=MOST_DEGREE, description="Number of top documents to focus on.")
        floor: float = pydantic.Field(
            default=0.03, gt=0, le=1e6, description="Minimum weight of a document. Higher: improves the whole ranking."
        )
        draws: int = pydantic.Field(default=64, ge=8, le=4096, description="Posterior draws to compute the weights.")

    options: Options

    def sample(self, state: QueryState, budget: int, rng: np.random.Generator) -> IntArray:
        asked = state.pairs if state.free is None else state.pairs[~state.free]
        drawn = static.check_pairs(state.size, asked)
        left = int(self.options.pairs_per_candidate * state.size) - len(drawn)
        count = min(static.check_budget(budget), max(left, 0), 2 * self.options.round_pairs)
        if state.theta is None:
            return static.complete_degrees(state.size, 2, drawn, rng)[: min(budget, max(left, 0))]
        if count == 0 or state.size < 2:
            return drawn[:0]
        posterior = adaptive.working_posterior(state, first_stage=state.free is None)
        options = self.options
        weights = adaptive.top_importance(posterior, rng, top=options.top, floor=options.floor, draws=options.draws)
        return adaptive.choose_pairs(posterior, drawn, count, weights).pairs
