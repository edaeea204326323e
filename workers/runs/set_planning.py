"""Plans questions about sets, for judges that read more than two documents in a call.

`workers.runs.planning` calls this where every judge of the round reads sets. A set becomes one task for each judge that is
asked: its pair is the first two documents, and each judge sees the set in a random order of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from labeling.pairs import store_pairs
from labeling.plugins import Sampler
from labeling.records import BoolArray, IntArray
from scoring.numerics.design.sets import pack_sets, within_budget
from scoring.sampling.draw import sample_sets

SetsOfQueries = dict[int, IntArray]


@dataclass(frozen=True, slots=True)
class PlannedSets:
    """Sets of several queries: `leads` int64[m] the stored pair of each, `worth` int64[m] the pairs that it uses of a
    budget, `ends` int64[m, 2] the candidates of the pair, `members` the candidates of each set, none for two.
    """

    leads: IntArray
    worth: IntArray
    ends: IntArray
    members: list[IntArray]

    def shown(self, which: IntArray, judge: IntArray, swapped: BoolArray, rng: np.random.Generator) -> list[list[int]]:
        """The order of the documents of each question, int64[question]; both sides of a set share one order."""
        orders: dict[tuple[int, int], list[int]] = {}
        for row, who in zip(which.tolist(), judge.tolist(), strict=True):
            if (row, who) not in orders:
                orders[row, who] = rng.permutation(self.members[row]).tolist() if len(self.members[row]) > 2 else []
        return [orders[row, who] for row, who in zip(which.tolist(), judge.tolist(), strict=True)]


def draw_sets(
    known: Mapping[int, IntArray],
    sampler: Sampler,
    *,
    set_size: int,
    budgets: Mapping[int, int],
    seed: int,
    round_number: int,
    pending: list[int],
) -> SetsOfQueries:
    """The next sets of each query, at most its budget of pairs; pairs in `known` come first."""
    first = {query: within_budget(pack_sets(pairs, set_size), budgets[query]) for query, pairs in known.items()}
    spent = {query: int((sets >= 0).sum() - len(sets)) for query, sets in first.items()}
    drawn = sample_sets(
        list(budgets),
        sampler,
        set_size=set_size,
        budgets={query: budget - spent.get(query, 0) for query, budget in budgets.items()},
        seed=seed,
        round_number=round_number,
        pending=pending,
    )
    queries = sorted(first.keys() | drawn.keys())
    return {query: np.concatenate([each[query] for each in (first, drawn) if query in each]) for query in queries}


def store_sets(chosen: SetsOfQueries) -> PlannedSets:
    """Store the leading pair of each set."""
    sets = np.concatenate(list(chosen.values()))
    owners = np.repeat(np.array(list(chosen)), [len(each) for each in chosen.values()])
    ends = np.sort(sets[:, :2], axis=1)
    leads = store_pairs(ends[:, 0].tolist(), ends[:, 1].tolist(), owners.tolist())
    members = [each[each >= 0] for each in sets]
    return PlannedSets(np.array(leads), np.array([len(each) - 1 for each in members]), ends, members)
