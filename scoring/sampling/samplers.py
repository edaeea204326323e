"""The built-in samplers (stage 3), which choose the next pairs of a query.

The server calls a sampler after every round of judging and rating, until it returns no pairs.
The mathematics is in `scoring.numerics.design.static` and its siblings.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pydantic

from labeling import plugins
from labeling.records import FloatArray, IntArray, QueryState
from labeling.stored_texts import stored_text
from scoring.numerics.design import adaptive, rounds, sets, static, stopping
from scoring.numerics.design.adaptive import ChosenPairs, Posterior

# Far above any useful design, and small enough that no count overflows.
MOST_DEGREE = 10_000
MOST_PAIRS = 1_000_000
# Rounds of sets have no part for the top alone, so that their weights look more at it.
FLOOR_OF_SETS = 0.2
ODD_DEGREE = stored_text("degree is %(degree)s; expected an even number because each cycle adds two")


@plugins.register
class Cycles(plugins.Sampler):
    """The paper's design: one round with a union of random Hamiltonian cycles.

    If there are pairs already (after a budget limit or for candidates added later), it draws only the pairs
    missing to reach the degree and to connect the graph. A budget below one cycle gives a path, or with `spread` pairs that
    share no candidate.
    """

    name = "cycles"
    label = "Random cycles (even coverage)"

    class Options(plugins.Sampler.Options):
        degree: int = pydantic.Field(
            default=8, ge=2, le=MOST_DEGREE, description="Pairs per candidate (an even number)."
        )
        spread: bool = pydantic.Field(
            default=False,
            description="A budget below one cycle compares as many documents as possible once, instead of joining some.",
        )

        @pydantic.field_validator("degree")
        @classmethod
        def _even(cls, degree: int) -> int:
            if degree % 2:
                raise ValueError(ODD_DEGREE % {"degree": degree})
            return degree

    options: Options

    def sample(self, state: QueryState, budget: int, rng: np.random.Generator) -> IntArray:
        static.check_budget(budget)
        if len(state.pairs):
            return static.complete_degrees(state.size, self.options.degree, state.pairs, rng)[:budget]
        pairs = static.random_cycles(state.size, self.options.degree, rng)
        if self.options.spread and self.options.degree < state.size - 1:
            pairs = static.matchings_first(state.size, pairs)
        return pairs[:budget]


@plugins.register
class AllPairs(plugins.Sampler):
    """All pairs not drawn yet, in random order."""

    name = "all"
    label = "All pairs"

    def sample(self, state: QueryState, budget: int, rng: np.random.Generator) -> IntArray:
        static.check_budget(budget)
        drawn = static.check_pairs(state.size, state.pairs)
        return rng.permutation(static.without(state.size, static.all_pairs(state.size), drawn))[:budget]


@plugins.register
class Adaptive(plugins.Sampler):
    """One pair for each candidate, then rounds of pairs that make the top ranks certain with the fewest calls.

    It only completes its start until the query is rated, so that later rounds use the answers. It ends at
    `pairs_per_candidate`, or earlier by a stopping rule. It first completes what a budget limited, and
    candidates added later get as many pairs. Rounds join the islands that a start of single pairs leaves, at the latest
    when there are as many pairs as candidates. A budget below that gives a path.
    """

    name = "adaptive"
    label = "Adaptive (focus on the top)"

    class Options(plugins.Sampler.Options):
        start_cycles: int = pydantic.Field(
            default=0,
            ge=0,
            le=2,
            description="Random cycles before the first adaptive round. 0: one pair per candidate.",
        )
        round_pairs: int = pydantic.Field(
            default=15,
            ge=1,
            le=MOST_PAIRS,
            description="Pairs per query and round, at least an eighth of its candidates.",
        )
        pairs_per_candidate: float = pydantic.Field(
            default=4.0, gt=0, le=MOST_DEGREE, description="Maximum pairs per candidate (4 in the paper)."
        )
        top: int = pydantic.Field(default=10, ge=1, le=MOST_DEGREE, description="Number of top documents to focus on.")
        top_share: float = pydantic.Field(
            default=0.5, ge=0, le=1, description="Share of each round for pairs that may change the top."
        )
        floor: float = pydantic.Field(
            default=0.15,
            gt=0,
            le=1e6,
            description="Minimum weight of a document in the other pairs. Higher: improves the whole ranking.",
        )
        draws: int = pydantic.Field(default=64, ge=8, le=4096, description="Posterior draws to compute the weights.")
        first_stage: bool = pydantic.Field(
            default=True, description="Use the first-stage rank as a prior mean, weighted by its agreement."
        )
        enough_recall: float = pydantic.Field(
            default=1.0, gt=0, le=1, description="Stop at this expected recall of the top. 1: never."
        )
        least_gain: float = pydantic.Field(
            default=0.0, ge=0, le=1e6, description="Stop if another pair raises the recall by less. 0: never."
        )

    options: Options

    def sample(self, state: QueryState, budget: int, rng: np.random.Generator) -> IntArray:
        drawn = static.check_pairs(state.size, state.pairs)
        budget = self._budget(state, budget)
        start = self._start(state, drawn, budget, rng, cycles=self.options.start_cycles)
        if start is not None:
            return start
        posterior, weights = self._outlook(state, rng, floor=self.options.floor)
        count, options = self._round(state, budget), self.options
        chosen = rounds.choose_round(posterior, drawn, count, weights, top=options.top, top_share=options.top_share)
        return chosen.pairs[:0] if self._is_finished(posterior, chosen, rng) else chosen.pairs

    def sample_sets(self, state: QueryState, budget: int, rng: np.random.Generator, *, set_size: int) -> IntArray:
        """The first cycles cut into sets, then sets of documents whose pairs make the top certain together."""
        drawn = static.check_pairs(state.size, state.pairs)
        budget = self._budget(state, budget)
        start = self._start(state, drawn, budget, rng, cycles=max(self.options.start_cycles, 1))
        if start is not None:
            return sets.within_budget(sets.pack_sets(start, set_size), budget)
        posterior, weights = self._outlook(state, rng, floor=FLOOR_OF_SETS * self.options.floor)
        count = -(-self._round(state, budget) // (set_size - 1))
        found, chosen = sets.choose_sets(posterior, drawn, count, weights, set_size=set_size)
        return found[:0] if self._is_finished(posterior, chosen, rng) else sets.within_budget(found, budget)

    def _budget(self, state: QueryState, budget: int) -> int:
        """The budget that `pairs_per_candidate` leaves; preferences of one call count by their weight, as they are correlated."""
        used = len(state.pairs)
        if state.weight is not None:
            used = int(np.ceil(np.where(state.weight > 0.0, np.minimum(state.weight, 1.0), 1.0).sum() - 1e-9))
        left = int(self.options.pairs_per_candidate * state.size) - used
        return min(static.check_budget(budget), max(left, 0))

    def _start(
        self, state: QueryState, drawn: IntArray, budget: int, rng: np.random.Generator, *, cycles: int
    ) -> IntArray | None:
        """The pairs of the start that are missing, none while the query is unrated; None: a round comes next."""
        if state.size <= 3:
            cycles = max(cycles, 1)  # all pairs
        if not len(drawn) and (cycles or budget < state.size):
            return static.random_cycles(state.size, 2 * max(cycles, 1), rng)[:budget]
        if cycles == 0 and len(drawn) < state.size:
            missing = static.random_matching(state.size, drawn, rng)[:budget]
        else:
            missing = static.complete_degrees(state.size, max(2 * cycles, 1), drawn, rng)[:budget]
        return missing if state.theta is None or budget == 0 or len(missing) else None

    def _round(self, state: QueryState, budget: int) -> int:
        return min(budget, max(self.options.round_pairs, state.size // 8))

    def _outlook(self, state: QueryState, rng: np.random.Generator, *, floor: float) -> tuple[Posterior, FloatArray]:
        options = self.options
        posterior = adaptive.working_posterior(state, first_stage=options.first_stage)
        weights = adaptive.top_importance(posterior, rng, top=options.top, floor=floor, draws=options.draws)
        return posterior, weights

    def _is_finished(self, posterior: Posterior, chosen: ChosenPairs, rng: np.random.Generator) -> bool:
        options = self.options
        if options.enough_recall >= 1.0 and options.least_gain <= 0.0:
            return False
        ahead = stopping.outlook(posterior, chosen, k=options.top, rng=rng)
        return stopping.is_finished(ahead, enough_recall=options.enough_recall, least_gain=options.least_gain)


@plugins.register
class Uncertain(plugins.Sampler):
    """The pairs with the largest expected reduction of the strengths' total variance, for people.

    At most `pairs` per round. It ends at the budget or when every pair is drawn; an unrated query gets one
    cycle.
    """

    name = "uncertain"
    label = "Most uncertain pairs (for people)"

    class Options(plugins.Sampler.Options):
        pairs: int = pydantic.Field(default=20, ge=1, le=MOST_PAIRS, description="Pairs per round.")

    options: Options

    def sample(self, state: QueryState, budget: int, rng: np.random.Generator) -> IntArray:
        drawn = static.check_pairs(state.size, state.pairs)
        count = min(static.check_budget(budget), self.options.pairs)
        if state.theta is None:
            return static.complete_degrees(state.size, 2, drawn, rng)[:count]
        if count == 0 or state.size < 2:
            return drawn[:0]
        posterior = adaptive.working_posterior(state)
        return adaptive.choose_pairs(posterior, drawn, count, np.eye(state.size)).pairs


@plugins.register
class CrossQuery(plugins.Sampler):
    """Pairs of queries for calibration: a random connected graph with the same degree for all queries.

    It works on a project instead of a query: the state's candidates are the project's queries, and each
    returned pair joins two queries. `numerics.calibration.draw_cross_pairs` draws such a graph and its candidates.
    """

    name = "cross-query"
    label = "Cross-query pairs (calibration)"
    across_queries: ClassVar[bool] = True

    class Options(plugins.Sampler.Options):
        pairs_per_query: int = pydantic.Field(
            default=3, ge=1, le=1000, description="Pairs per query: 3 for soft preferences, 12 for yes/no votes."
        )

    options: Options

    def sample(self, state: QueryState, budget: int, rng: np.random.Generator) -> IntArray:
        static.check_budget(budget)
        degree = 2 * self.options.pairs_per_query
        if len(state.pairs):
            return static.complete_degrees(state.size, degree, state.pairs, rng)[:budget]
        return static.random_regular_pairs(state.size, degree, rng)[:budget]
