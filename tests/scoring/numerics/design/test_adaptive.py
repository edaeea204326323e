"""Designs that look at the answers: posterior, weights, greedy choice, stopping."""

from __future__ import annotations

import numpy as np
import pytest

from labeling.records import FloatArray, IntArray, QueryState
from scoring.numerics.design import adaptive, static, stopping
from scoring.numerics.design import kernels as design_kernels
from tests.factories.votes import rated_state


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def strengths_of(size: int = 40, seed: int = 0) -> FloatArray:
    return rng(seed).permutation(np.linspace(-2.0, 2.0, size))


def test_posterior_recovers_strengths() -> None:
    posterior = adaptive.working_posterior(rated_state(degree=12, noise=0.1))
    assert np.corrcoef(posterior.theta, strengths_of())[0, 1] > 0.98
    assert posterior.dispersion < 0.1


def test_posterior_covariance_is_that_of_the_penalised_likelihood() -> None:
    state = rated_state()
    posterior = adaptive.working_posterior(state)
    a, b = state.pairs.T
    p = 1.0 / (1.0 + np.exp(-(posterior.theta[a] - posterior.theta[b])))
    incidence = np.zeros((len(a), state.size))
    incidence[np.arange(len(a)), a], incidence[np.arange(len(a)), b] = 1.0, -1.0
    hessian = incidence.T @ ((p * (1 - p))[:, None] * incidence) + posterior.prior_precision * np.eye(state.size)
    np.testing.assert_allclose(posterior.covariance @ hessian, np.eye(state.size), atol=2e-3)


def test_posterior_does_not_depend_on_the_way_pairs_are_written() -> None:
    state = rated_state()
    assert state.preference is not None
    turned = rated_state(pairs_turned := 40)
    flipped = QueryState(
        size=pairs_turned,
        pairs=state.pairs[:, ::-1],
        first_stage_rank=turned.first_stage_rank,
        theta=turned.theta,
        preference=1.0 - state.preference,
        weight=turned.weight,
        prior_precision=0.3,
        logit_scale=1.0,
    )
    left, right = adaptive.working_posterior(state), adaptive.working_posterior(flipped)
    np.testing.assert_allclose(left.theta, right.theta, atol=1e-9)


def test_noisier_votes_raise_the_dispersion() -> None:
    quiet = adaptive.working_posterior(rated_state(degree=8, noise=0.1))
    loud = adaptive.working_posterior(rated_state(degree=8, noise=1.5))
    assert loud.dispersion > 3 * quiet.dispersion


def test_first_stage_counts_as_far_as_it_agrees() -> None:
    order = np.argsort(np.argsort(-strengths_of()))
    agreeing = adaptive.working_posterior(rated_state(first_stage_rank=order + 1))
    opposite = adaptive.working_posterior(rated_state(first_stage_rank=40 - order))
    ignored = adaptive.working_posterior(rated_state(first_stage_rank=order + 1), first_stage=False)
    assert agreeing.first_stage_slope > 0.5
    assert opposite.first_stage_slope == 0.0
    assert ignored.first_stage_slope == 0.0
    assert agreeing.prior_precision > ignored.prior_precision


def test_normal_scores_leave_unknown_ranks_in_the_middle() -> None:
    scores = adaptive.normal_scores(np.array([3, 0, 1, 7, 0]))
    assert scores.tolist() == pytest.approx([0.0, 0.0, 0.967422, -0.967422, 0.0], abs=1e-6)
    assert adaptive.normal_scores(np.array([5, 0])).tolist() == [0.0, 0.0]


def test_unrated_query_is_refused() -> None:
    with pytest.raises(adaptive.UnratedQuery, match="judge and rate"):
        adaptive.working_posterior(rated_state(theta=None))


def test_pairs_without_an_answer_count_as_asked() -> None:
    state = rated_state()
    assert state.preference is not None
    assert state.weight is not None
    waiting = np.arange(len(state.pairs)) < 10
    open_state = rated_state(
        preference=np.where(waiting, np.nan, state.preference), weight=np.where(waiting, 0.0, state.weight)
    )
    answered_only = QueryState(
        size=40,
        pairs=state.pairs[~waiting],
        first_stage_rank=state.first_stage_rank,
        theta=state.theta,
        preference=state.preference[~waiting],
        weight=state.weight[~waiting],
        prior_precision=0.3,
        logit_scale=1.0,
    )
    pending = adaptive.working_posterior(open_state)
    without = adaptive.working_posterior(answered_only)
    np.testing.assert_allclose(pending.theta, without.theta)
    assert np.trace(pending.covariance) < np.trace(without.covariance)


def test_weights_favour_the_top_and_leave_none_out() -> None:
    posterior = adaptive.working_posterior(rated_state(degree=12, noise=0.1))
    weights = np.diag(adaptive.top_importance(posterior, rng(), top=5, floor=0.03))
    order = np.argsort(-strengths_of())
    assert weights[order[:5]].min() > 5 * weights[order[-10:]].max()
    assert weights.min() >= 0.03


PLACES = 1.0 / np.log2(np.arange(10) + 2.0)


@pytest.mark.parametrize("place", [1, 2, 5, 9, 10, 11, 15])
def test_a_swap_costs_the_step_of_the_discount_where_two_documents_meet(place: int) -> None:
    theta = np.linspace(3.0, -3.0, 20)
    theta[place] = theta[place - 1]
    worth = design_kernels.inversion_worth(theta, 1e-4 * np.eye(20), 0.5, PLACES)
    steps = np.append(PLACES - np.append(PLACES[1:], 0.0), np.zeros(10))
    assert worth[place - 1, place] * np.sqrt(1e-4) == pytest.approx(steps[place - 1], abs=0.015)
    assert worth.sum() == pytest.approx(2.0 * worth[place - 1, place]), "the others are in a sure order"


def test_worth_of_a_difference_is_what_draws_lose_by_inversions() -> None:
    """The rate by which the loss grows with a difference's variance: how often the two meet, times the step of the discount there."""
    posterior = adaptive.working_posterior(rated_state(degree=6, noise=0.5))
    covariance = posterior.dispersion * posterior.covariance
    worth = design_kernels.inversion_worth(posterior.theta, posterior.covariance, posterior.dispersion, PLACES)
    draws, order = posterior.draws(40_000, rng()), np.argsort(-posterior.theta)
    steps = np.append(PLACES - np.append(PLACES[1:], 0.0), np.zeros(40))
    expected, found = [], []
    for i, j in [(order[x], order[x + gap]) for x in range(14) for gap in (1, 3, 5)]:
        deviation = np.sqrt(covariance[i, i] + covariance[j, j] - 2.0 * covariance[i, j])
        meet = np.abs(draws[i] - draws[j]) < 0.05 * deviation
        others = np.delete(draws[:, meet], [i, j], axis=0)
        above = (others > 0.5 * (draws[i, meet] + draws[j, meet])).sum(axis=0)
        expected.append(meet.mean() / (0.1 * deviation) * steps[above].mean())
        found.append(worth[i, j] / np.sqrt(2.0 * np.pi))
    assert np.corrcoef(expected, found)[0, 1] > 0.95
    assert np.sum(found) == pytest.approx(np.sum(expected), rel=0.2)


def naive_greedy(posterior: adaptive.Posterior, drawn: IntArray, count: int, weights: FloatArray) -> IntArray:
    """The definition: try every pair, invert anew after each."""
    h = design_kernels.expected_curvature(posterior.theta, posterior.covariance, posterior.dispersion, posterior.slope)
    precision = np.linalg.inv(posterior.covariance)
    taken = {tuple(pair) for pair in drawn.tolist()}
    chosen = []
    for _ in range(count):
        loss = {}
        for a, b in static.all_pairs(posterior.size).tolist():
            if (a, b) not in taken:
                u = np.zeros(posterior.size)
                u[a], u[b] = 1.0, -1.0
                loss[a, b] = np.trace(weights @ np.linalg.inv(precision + h[a, b] * np.outer(u, u)))
        a, b = min(loss, key=lambda pair: loss[pair])
        u = np.zeros(posterior.size)
        u[a], u[b] = 1.0, -1.0
        precision += h[a, b] * np.outer(u, u)
        taken.add((a, b))
        chosen.append((a, b))
    return np.array(chosen)


def test_greedy_choice_equals_the_naive_one() -> None:
    state = rated_state(size=12)
    posterior = adaptive.working_posterior(state)
    weights = adaptive.top_importance(posterior, rng(), top=3)
    chosen = adaptive.choose_pairs(posterior, state.pairs, 8, weights)
    np.testing.assert_array_equal(chosen.pairs, naive_greedy(posterior, state.pairs, 8, weights))
    lost = np.trace(weights @ posterior.covariance) - np.trace(weights @ chosen.covariance)
    assert chosen.shrinkage.sum() == pytest.approx(lost / np.trace(weights @ posterior.covariance))


def test_choice_takes_every_pair_that_is_left_and_no_more() -> None:
    state = rated_state(size=8)
    posterior = adaptive.working_posterior(state)
    chosen = adaptive.choose_pairs(posterior, state.pairs, 1000, np.eye(8))
    together = np.concatenate([state.pairs, chosen.pairs])
    assert len(np.unique(static.pair_keys(8, together))) == len(together) == 28


def test_expected_curvature_is_the_mean_over_draws() -> None:
    posterior = adaptive.working_posterior(rated_state(size=6, noise=1.0))
    expected = design_kernels.expected_curvature(
        posterior.theta, posterior.covariance, posterior.dispersion, posterior.slope
    )
    draws = posterior.draws(200_000, rng())
    p = 1.0 / (1.0 + np.exp(-(draws[0] - draws[3])))
    assert expected[0, 3] == pytest.approx((p * (1 - p)).mean(), rel=0.01)


def test_recall_is_certain_without_variance_and_by_chance_with_too_much() -> None:
    theta = np.linspace(1.0, -1.0, 40)
    none = stopping.expected_top_recall(theta, np.zeros((40, 40)), rng=rng())
    much = stopping.expected_top_recall(theta, 1e6 * np.eye(40), rng=rng(), draws=4000)
    assert none == 1.0
    assert much == pytest.approx(0.25, abs=0.02)
    assert stopping.expected_top_recall(theta[:10], np.eye(10), rng=rng()) == 1.0


def test_looking_ahead_expects_certainty_to_rise_with_what_is_asked() -> None:
    state = rated_state(noise=1.0)
    posterior = adaptive.working_posterior(state)
    recall = []
    for count in (0, 20, 200):
        chosen = adaptive.choose_pairs(posterior, state.pairs, count, np.eye(40))
        recall.append(stopping.expected_recall_after(posterior, chosen, draws=4000, rng=rng()))
    now = stopping.expected_top_recall(
        posterior.theta, posterior.dispersion * posterior.covariance, draws=4000, rng=rng()
    )
    assert recall[0] == pytest.approx(now, abs=0.02)
    assert recall[0] < recall[1] < recall[2]


def test_query_is_finished_by_certainty_gain_or_lack_of_pairs() -> None:
    ahead = stopping.Outlook(recall=0.9, recall_after=0.95, calls=50)
    assert ahead.gain_per_call == pytest.approx(0.001)
    assert not stopping.is_finished(ahead)
    assert stopping.is_finished(ahead, enough_recall=0.9)
    assert not stopping.is_finished(ahead, enough_recall=0.91)
    assert stopping.is_finished(ahead, least_gain=0.002)
    assert stopping.is_finished(stopping.Outlook(recall=0.5, recall_after=0.5, calls=0))
    with pytest.raises(stopping.BadRule, match=r"enough_recall is 1\.5"):
        stopping.is_finished(ahead, enough_recall=1.5)


@pytest.mark.parametrize(
    ("budget", "worth", "capacity", "expected"),
    [
        (100, [1.0, 1.0, 2.0], [100, 100, 100], [25, 25, 50]),
        (100, [1.0, 2.0, 0.0, 0.5], [10, 30, 40, 100], [10, 30, 0, 60]),
        (1000, [1.0, 0.0], [5, 5], [5, 0]),
        (2, [1.0, 3.0, 2.0], [9, 9, 9], [0, 1, 1]),
        (0, [1.0], [5], [0]),
        (10, [], [], []),
    ],
)
def test_budget_goes_where_it_is_worth_most(
    budget: int, worth: list[float], capacity: list[int], expected: list[int]
) -> None:
    assert stopping.split_budget(budget, worth, capacity).tolist() == expected


def test_impossible_budgets_are_refused() -> None:
    with pytest.raises(static.BadBudget, match="budget is -5"):
        stopping.split_budget(-5, [1.0], [1])
    with pytest.raises(stopping.BadRule, match="negative or not finite"):
        stopping.split_budget(5, [float("nan")], [1])
    with pytest.raises(stopping.BadRule, match="one number each"):
        stopping.split_budget(5, [1.0], [1, 2])
