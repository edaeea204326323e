"""The prior's precision is chosen by what it predicts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from labeling.records import ComparisonColumns
from scoring.numerics.fitting.comparisons import votes_of_query
from scoring.numerics.fitting.fit import fit_queries
from scoring.numerics.fitting.likelihood import probability
from scoring.numerics.fitting.prior import MAXIMUM_PAIRS, choose_prior
from tests.factories.votes import join, random_pairs, soft_query


def sign_queries(spread: float, *, queries: int = 12, size: int = 40, votes: int = 1) -> ComparisonColumns:
    """Bernoulli votes on a sparse graph; strengths deviate by `spread` Thurstone units."""
    rng = np.random.default_rng(4)
    parts = []
    for _ in range(queries):
        a, b = random_pairs(size, 8, rng)
        truth = rng.normal(0.0, spread, size)
        wins = rng.binomial(votes, probability(truth[a] - truth[b], model="thurstone")) / votes
        parts.append(votes_of_query(a, b, wins, size=size, weight=np.full(len(a), float(votes))))
    return join(parts)


@pytest.mark.parametrize("spread", [0.4, 1.0])
def test_the_choice_is_near_the_precision_that_generated_the_strengths(spread: float) -> None:
    choice = choose_prior(sign_queries(spread))
    assert choice.cross_validated
    assert 0.4 < choice.prior_precision * spread**2 < 2.0


def test_the_chosen_precision_has_the_lowest_loss_of_its_grid() -> None:
    choice = choose_prior(sign_queries(0.5))
    best = choice.grid[np.argmin(choice.losses)]
    assert (np.diff(choice.grid) > 0).all()
    assert 0 < np.argmin(choice.losses) < len(choice.grid) - 1
    assert best / 2 <= choice.prior_precision <= best * 2


def test_soft_answers_want_a_weaker_prior_than_votes() -> None:
    soft = choose_prior(join([soft_query(40, degree=8, seed=seed)[0] for seed in range(8)]))
    votes = choose_prior(sign_queries(1.5 / 2.41))
    assert soft.prior_precision < 0.5 * votes.prior_precision
    assert soft.dispersion < 0.5 * votes.dispersion


def test_answers_without_information_get_the_strongest_prior_allowed() -> None:
    ties = soft_query(40)[0]
    choice = choose_prior(dataclasses.replace(ties, preference=np.full(len(ties.a), 0.5)))
    assert np.isfinite(choice.losses).all()
    assert np.abs(fit_queries(ties, prior_precision=choice.prior_precision).stderr).max() < 10.0


def test_the_choice_is_reproducible() -> None:
    votes = sign_queries(0.5, queries=3)
    assert choose_prior(votes).prior_precision == choose_prior(votes).prior_precision


def test_too_few_pairs_leave_the_starting_value_and_say_so() -> None:
    choice = choose_prior(votes_of_query([0, 1], [1, 2], [0.8, 0.7], size=3))
    assert not choice.cross_validated
    assert choice.prior_precision == pytest.approx(0.2 * choice.dispersion)
    assert choose_prior(votes_of_query([], [], [], size=3)).prior_precision == pytest.approx(0.2)


def test_a_large_project_is_sampled_by_query(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scoring.numerics.fitting.prior.MAXIMUM_PAIRS", 500)
    choice = choose_prior(sign_queries(0.5))
    assert 300 < choice.pairs <= 500 < MAXIMUM_PAIRS
