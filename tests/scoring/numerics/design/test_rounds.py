"""Rounds of the sampler `adaptive`: pairs that may change the top, then pairs for the whole order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from labeling.records import FloatArray
from scoring.numerics.design import adaptive, kernels, rounds, static
from scoring.numerics.design.adaptive import Posterior
from tests.factories.votes import rated_state


def outlook(**known: Any) -> tuple[Any, Posterior, FloatArray]:
    state = rated_state(**known)
    posterior = adaptive.working_posterior(state)
    return state, posterior, adaptive.top_importance(posterior, np.random.default_rng(0))


@pytest.mark.parametrize("answers", [1.0, 4.0])
def test_the_rise_of_the_top_is_that_of_simulated_answers(answers: float) -> None:
    """A tall step: the two documents at the end of the top, which an answer may turn round."""
    _, posterior, _ = outlook(size=12, degree=4, noise=1.0)
    theta, covariance, phi = posterior.theta, posterior.covariance, posterior.dispersion
    order = np.argsort(-theta)
    discount = 1.0 / np.log2(np.arange(3) + 2.0)
    expected = kernels.expected_curvature(theta, covariance, phi, posterior.slope)
    pairs = np.sort(np.array([[order[2], order[3]], [order[0], order[1]], [order[10], order[11]]]), axis=1)
    found = kernels.rise_of_top(pairs, order, theta, covariance, phi, expected, discount, np.array([answers]))
    draws = np.random.default_rng(1).standard_normal(200_000)
    for (i, j), rise in zip(pairs, found, strict=True):
        u, h = covariance[:, i] - covariance[:, j], expected[i, j] * answers
        moved = theta[:, None] + np.sqrt(phi * h / (1.0 + h * (u[i] - u[j]))) * np.outer(u, draws)
        after = -np.sort(-moved, axis=0)[:3].T @ discount
        assert rise == pytest.approx((after.mean() - np.sort(theta)[::-1][:3] @ discount) / answers, rel=0.3, abs=2e-4)
    assert found[0] > 20 * found[2], "a pair at the bottom changes no top"


def test_half_of_a_round_is_for_the_top_and_the_rest_is_greedy_given_that() -> None:
    state, posterior, weights = outlook(size=60)
    chosen = rounds.choose_round(posterior, state.pairs, 16, weights, top=5)
    assert len(np.unique(static.pair_keys(60, np.concatenate([state.pairs, chosen.pairs])))) == len(state.pairs) + 16
    first = chosen.pairs[:8]
    assert np.bincount(first.ravel()).max() <= rounds.MOST_PICKS
    assert set(first.ravel().tolist()) <= set(np.argsort(-posterior.theta)[:25].tolist()), "documents that may be best"
    lost = np.trace(weights @ posterior.covariance) - np.trace(weights @ chosen.covariance)
    assert chosen.shrinkage.sum() == pytest.approx(lost / np.trace(weights @ posterior.covariance))
    assert (chosen.shrinkage > 0).all()


@pytest.mark.parametrize("options", [{"top_share": 0.0}, {"top": rounds.LONGEST_TOP + 1}])
def test_without_a_share_for_the_top_a_round_is_greedy(options: dict[str, Any]) -> None:
    state, posterior, weights = outlook()
    chosen = rounds.choose_round(posterior, state.pairs, 9, weights, **options)
    np.testing.assert_array_equal(chosen.pairs, adaptive.choose_pairs(posterior, state.pairs, 9, weights).pairs)


@pytest.mark.parametrize("size", [2, 3, 4, 8, 12])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_round_takes_every_pair_that_is_left_and_no_more(size: int, share: float) -> None:
    state, posterior, weights = outlook(size=size, degree=2)
    chosen = rounds.choose_round(posterior, state.pairs, 1000, weights, top_share=share)
    together = np.concatenate([state.pairs, chosen.pairs])
    assert len(np.unique(static.pair_keys(size, together))) == len(together) == size * (size - 1) // 2
    assert len(rounds.choose_round(posterior, together, 5, weights, top_share=share).pairs) == 0
    assert len(rounds.choose_round(posterior, state.pairs, 0, weights).pairs) == 0


def test_compiled_kernels_serve_real_rounds() -> None:
    rounds.compile_kernels()
    compiled: list[Any] = [
        kernels.empirical_posterior,
        kernels.greedy_pairs,
        kernels.inversion_worth,
        kernels.rise_of_top,
    ]
    before = [len(kernel.signatures) for kernel in compiled]
    state, posterior, weights = outlook()
    rounds.choose_round(posterior, state.pairs, 5, weights)
    assert [len(kernel.signatures) for kernel in compiled] == before
