"""The sampler `conflicts`: re-asks the pairs of triples in which the panel contradicts itself, in the other order.

Such pairs have been drawn before, so `workers.runs.planning` finds them with `scoring.annotators.cycles`; a run asks each once.
"""

from __future__ import annotations

import numpy as np

from labeling import plugins
from labeling.records import IntArray, QueryState


@plugins.register
class Conflicts(plugins.Sampler):
    """Draws no new pair: a run with it asks the judges what they owe on contradictory pairs."""

    name = "conflicts"
    label = "Contradictory triples (asked in the other order)"

    def sample(self, state: QueryState, budget: int, rng: np.random.Generator) -> IntArray:
        return np.empty((0, 2), dtype=np.int64)
