"""The correlation within calls: recovered where it is known, and the weights that follow from it."""

from __future__ import annotations

import numpy as np
import pytest

from scoring.numerics.fitting.comparisons import votes_of_query
from scoring.numerics.fitting.fit import fit_queries
from scoring.numerics.judges.calls import CallVotes, call_correlation, call_weight, shared_signs

SIZE, PER_CALL, CALLS = 40, 4, 50


def simulated(correlation: float, rng: np.random.Generator) -> CallVotes:
    """One query whose preferences err by 0.5 logits; `correlation` of that variance is each document's own, on both sides."""
    strength = rng.normal(size=SIZE)
    rows = []
    for call in range(CALLS):
        members = np.sort(rng.choice(SIZE, PER_CALL, replace=False))
        own = rng.normal(0.0, 0.5 * np.sqrt(correlation), PER_CALL)
        for i in range(PER_CALL):
            for j in range(i + 1, PER_CALL):
                d = strength[members[i]] - strength[members[j]] + own[i] - own[j]
                d += rng.normal(0.0, 0.5 * np.sqrt(1.0 - 2.0 * correlation))
                rows.append((members[i], members[j], 1.0 / (1.0 + np.exp(-d)), call))
    a, b, preference, call_of = (np.array(column) for column in zip(*rows, strict=True))
    weight = np.full(len(a), float(call_weight(PER_CALL, 1.0)))
    votes = votes_of_query(a, b, preference, size=SIZE, weight=weight)
    theta = fit_queries(votes, prior_precision=0.1, standard_errors=False).theta
    return CallVotes(a, b, preference, weight, call_of, theta)


@pytest.mark.parametrize("correlation", [0.0, 0.25, 0.5])
def test_the_correlation_is_found_although_the_fit_absorbs_errors(correlation: float) -> None:
    rng = np.random.default_rng(7)
    found = call_correlation([simulated(correlation, rng) for _ in range(8)], prior_precision=0.1)
    assert found is not None and found.calls == 8 * CALLS
    assert found.correlation == pytest.approx(correlation, abs=max(0.06, 3 * found.stderr))
    assert found.stderr < 0.05


def test_few_calls_say_nothing() -> None:
    votes = simulated(0.25, np.random.default_rng(1))
    few = np.where(votes.call < 29, votes.call, -1)
    cut = CallVotes(votes.a, votes.b, votes.preference, votes.weight, few, votes.theta)
    assert call_correlation([cut]) is None
    assert call_correlation([]) is None


def test_signs_follow_the_side_of_the_shared_document() -> None:
    a, b = np.array([0, 0, 1, 0]), np.array([1, 2, 2, 1])
    signs = shared_signs(a, b, np.array([5, 5, 5, 6]))
    assert signs.tolist() == [[0, 1, -1, 0], [1, 0, 1, 0], [-1, 1, 0, 0], [0, 0, 0, 0]]
    assert not shared_signs(a, b, np.full(4, -1)).any()


@pytest.mark.parametrize("size, correlation, weight", [(2, 1.0, 1.0), (4, 0.0, 1.0), (4, 0.5, 0.5), (4, 1.0, 1 / 3)])
def test_weight_shrinks_with_size_and_correlation(size: int, correlation: float, weight: float) -> None:
    assert float(call_weight(size, correlation)) == pytest.approx(weight)


def test_weighted_pairs_of_a_set_are_worth_one_less_than_its_documents_when_documents_err() -> None:
    for size in (3, 5, 9):
        assert size * (size - 1) / 2 * float(call_weight(size, 0.5)) == pytest.approx(size - 1)
