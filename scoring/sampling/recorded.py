"""The sampler `recorded`: asks only pairs for which a judge of the run has a recorded answer.

`workers.judging.recorded_pairs` finds these pairs and puts them into the state of each query.
"""

from __future__ import annotations

import numpy as np

from labeling import plugins
from labeling.records import IntArray, QueryState
from scoring.numerics.design import static


@plugins.register
class Recorded(plugins.Sampler):
    """The recorded pairs that are not drawn yet, in the order of the file; none for a query without recorded answers."""

    name = "recorded"
    label = "Recorded pairs only"

    def sample(self, state: QueryState, budget: int, rng: np.random.Generator) -> IntArray:
        static.check_budget(budget)
        drawn = {tuple(pair) for pair in static.check_pairs(state.size, state.pairs).tolist()}
        found = [] if state.recorded is None else [pair for pair in state.recorded.tolist() if tuple(pair) not in drawn]
        return np.array(found[:budget], dtype=np.int64).reshape(-1, 2)
