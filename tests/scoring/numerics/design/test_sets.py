"""Sets of documents: packing of pairs, greedy choice, budgets."""

from __future__ import annotations

import numpy as np
import pytest

from labeling.records import QueryState
from scoring.numerics.design.adaptive import choose_pairs, top_importance, working_posterior
from scoring.numerics.design.sets import BadSetSize, choose_sets, pack_sets, pairs_of_sets, within_budget
from scoring.numerics.design.static import pair_keys, random_cycles


def keys(pairs: np.ndarray, size: int = 40) -> set[int]:
    return set(pair_keys(size, pairs).tolist())


@pytest.mark.parametrize("set_size", [3, 4, 8])
def test_a_cycle_becomes_sets_that_follow_each_other(set_size: int) -> None:
    pairs = random_cycles(40, 2, np.random.default_rng(1))
    sets = pack_sets(pairs, set_size)
    assert keys(pairs) <= keys(pairs_of_sets(sets))
    assert len(sets) <= np.ceil(40 / (set_size - 1)) + 1
    leads = np.sort(sets[:, :2], axis=1)
    assert len(keys(leads)) == len(sets) and keys(leads) <= keys(pairs)


def test_pairs_far_apart_stay_pairs() -> None:
    assert pack_sets(np.array([[0, 1], [2, 3]]), 4).tolist() == [[0, 1, -1, -1], [2, 3, -1, -1]]
    with pytest.raises(BadSetSize, match="3 or more"):
        pack_sets(np.array([[0, 1]]), 2)


@pytest.mark.parametrize("budget, sizes", [(0, []), (1, [2]), (3, [4]), (5, [4, 3]), (6, [4, 4]), (99, [4, 4, 2])])
def test_a_budget_pays_for_one_document_less_a_set(budget: int, sizes: list[int]) -> None:
    sets = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, -1, -1]])
    assert (within_budget(sets, budget) >= 0).sum(axis=1).tolist() == sizes


def test_chosen_sets_begin_with_the_best_new_pair() -> None:
    rng = np.random.default_rng(4)
    drawn = random_cycles(20, 2, rng)
    theta = rng.normal(size=20)
    preference = 1 / (1 + np.exp(-2.41 * (theta[drawn[:, 0]] - theta[drawn[:, 1]])))
    state = QueryState(20, drawn, np.zeros(20, dtype=np.int64), theta, preference, np.ones(20))
    posterior = working_posterior(state)
    importance = top_importance(posterior, rng)
    sets, chosen = choose_sets(posterior, drawn, 5, importance, set_size=4)
    best = choose_pairs(posterior, drawn, 1, importance).pairs[0]
    assert sorted(sets[0, :2].tolist()) == best.tolist()
    assert all(len(set(members)) == 4 for members in sets.tolist())
    assert not keys(np.sort(sets[:, :2], axis=1), 20) & keys(drawn, 20)
    assert np.trace(importance @ chosen.covariance) < np.trace(importance @ posterior.covariance)


def test_fewer_documents_than_a_set_make_smaller_sets() -> None:
    state = QueryState(3, np.array([[0, 1]]), np.zeros(3, dtype=np.int64), np.zeros(3), np.array([0.6]), np.ones(1))
    posterior = working_posterior(state)
    sets, _ = choose_sets(posterior, state.pairs, 9, np.eye(3), set_size=5)
    assert [sorted(members) for members in sets.tolist()] == [[-1, -1, 0, 1, 2]]
