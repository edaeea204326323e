"""Biases of queries from cross-query pairs, and relevance learned from grades."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from labeling.records import ComparisonColumns, FloatArray, IntArray
from scoring.numerics.calibration.calibration import SameQueryPair, UnlinkedQueries, draw_cross_pairs, fit_biases
from scoring.numerics.calibration.relevance import TooFewAnswers, fit_relevance
from scoring.numerics.fitting.comparisons import votes_of_query
from scoring.numerics.fitting.likelihood import probability
from scoring.numerics.measures.metrics import MetricInput

QUERIES, SIZE = 60, 20


def problem(*, sharpness: float = 1.0, sign: bool = False, per_query: int = 4) -> tuple[ComparisonColumns, dict]:
    """Cross-query answers, and theta, starts and the true bias of each query (in Thurstone units)."""
    rng = np.random.default_rng(0)
    theta = rng.normal(0.0, 0.6, QUERIES * SIZE)
    bias = rng.normal(0.0, 0.4, QUERIES)
    bias -= bias.mean()
    starts = np.arange(QUERIES + 1) * SIZE
    pairs = draw_cross_pairs(theta, starts, per_query, rng)
    level = theta + np.repeat(bias, SIZE)
    p = probability(sharpness * (level[pairs[:, 0]] - level[pairs[:, 1]]), model="thurstone")
    p = (rng.random(len(p)) < p).astype(float) if sign else p
    votes = votes_of_query(pairs[:, 0], pairs[:, 1], p, size=len(theta))
    return votes, {"theta": theta, "starts": starts, "bias": bias}


def fitted(votes: ComparisonColumns, given: dict, **options: float):  # type: ignore[no-untyped-def]
    return fit_biases(votes, theta=given["theta"], starts=given["starts"], **options)  # type: ignore[arg-type]


def test_exact_answers_give_the_biases_back() -> None:
    votes, given = problem()
    found = fitted(votes, given, sharpness=1.0, prior_precision=1e-6)
    np.testing.assert_allclose(found.bias, given["bias"], atol=1e-4)
    assert found.gradient_norm <= 1e-8


def test_sharpness_of_hard_votes_is_chosen_so_that_biases_keep_their_scale() -> None:
    votes, given = problem(sharpness=4.0, sign=True, per_query=15)
    found = fitted(votes, given)
    assert 2.0 <= found.sharpness <= 8.0
    assert np.polyfit(given["bias"], found.bias, 1)[0] == pytest.approx(1.0, abs=0.15)
    plain = fitted(votes, given, sharpness=1.0, prior_precision=0.05)
    assert np.abs(found.bias - given["bias"]).mean() < 0.5 * np.abs(plain.bias - given["bias"]).mean()


@pytest.mark.parametrize("per_query", [1, 2, 3])
def test_the_numbers_of_queries_move_nothing(per_query: int) -> None:
    """Folds are drawn by what the answers say, not by the order of import."""
    votes, given = problem(sharpness=4.0, sign=True, per_query=per_query)
    rng = np.random.default_rng(3)
    before = fitted(votes, given)
    for _ in range(4):
        place = rng.permutation(QUERIES)  # of each query
        a, b = (place[each // SIZE] * SIZE + each % SIZE for each in (votes.a, votes.b))
        theta = np.empty_like(given["theta"]).reshape(QUERIES, SIZE)
        theta[place] = given["theta"].reshape(QUERIES, SIZE)
        turned = votes_of_query(a, b, votes.preference, size=theta.size)
        after = fitted(turned, {"theta": theta.ravel(), "starts": given["starts"]})
        assert (after.sharpness, after.prior_precision) == (before.sharpness, before.prior_precision)
        np.testing.assert_allclose(after.bias[place], before.bias, atol=1e-6)


def test_intervals_contain_the_true_bias_about_as_often_as_they_say() -> None:
    votes, given = problem(sign=True, per_query=15)
    found = fitted(votes, given, sharpness=1.0, prior_precision=4.0)
    assert np.mean(np.abs(found.bias - given["bias"]) < 1.96 * found.stderr) > 0.85


def test_cross_pairs_join_all_queries_evenly_through_their_middle() -> None:
    rng = np.random.default_rng(1)
    theta, starts = rng.normal(size=QUERIES * SIZE), np.arange(QUERIES + 1) * SIZE
    pairs = draw_cross_pairs(theta, starts, 3, rng)
    owner = pairs // SIZE
    assert (np.bincount(owner.ravel(), minlength=QUERIES) == 6).all()
    assert (owner[:, 0] != owner[:, 1]).all()
    assert (pairs[:, 0] < pairs[:, 1]).all()
    ranks = np.argsort(np.argsort(theta.reshape(QUERIES, SIZE), axis=1), axis=1).ravel()[pairs]
    assert ranks.min() == 4
    assert ranks.max() == 15


def test_a_project_of_one_query_has_no_cross_pairs() -> None:
    assert draw_cross_pairs(np.zeros(5), np.array([0, 5]), 3, np.random.default_rng(0)).shape == (0, 2)


def test_queries_that_nothing_connects_are_named() -> None:
    votes = votes_of_query([0, 4], [2, 6], [0.7, 0.6], size=8)
    given: dict[str, FloatArray | IntArray] = {"theta": np.zeros(8), "starts": np.array([0, 2, 4, 6, 8])}
    with pytest.raises(UnlinkedQueries) as caught:
        fit_biases(votes, **given)  # type: ignore[arg-type]
    assert caught.value.islands == [[0, 1], [2, 3]]
    within = fit_biases(votes, **given, require_connected=False)  # type: ignore[arg-type]
    assert within.islands == [[0, 1], [2, 3]]
    assert within.bias[:2].sum() == pytest.approx(0.0)
    assert within.bias[0] > 0.0 > within.bias[1]


def test_a_pair_within_one_query_is_refused() -> None:
    with pytest.raises(SameQueryPair, match="within query 0"):
        fit_biases(votes_of_query([0], [1], [0.5], size=4), theta=np.zeros(4), starts=np.array([0, 2, 4]))


# --- relevance ---------------------------------------------------------------------------


def graded(count: int = 600, *, curve: str = "logistic") -> tuple[FloatArray, FloatArray, IntArray]:
    rng = np.random.default_rng(2)
    scores = rng.normal(0.0, 1.5, count)
    chance = expit(2.0 * scores - 1.0) if curve == "logistic" else np.where(scores > 0.5, 0.9, 0.05)
    return scores, (rng.random(count) < chance).astype(float), np.arange(count) % 30


def test_platt_finds_the_logistic_curve() -> None:
    fit = fit_relevance(*graded(4_000), method="platt")
    assert fit.map.slope == pytest.approx(2.0, rel=0.12)
    assert fit.map.intercept == pytest.approx(-1.0, abs=0.15)
    assert fit.ece < 0.04
    assert (fit.answers, fit.queries) == (4_000, 30)


def test_a_step_is_better_served_by_isotonic_regression_and_chosen() -> None:
    fit = fit_relevance(*graded(2_000, curve="step"))
    assert fit.map.method == "isotonic"
    assert fit.briers["isotonic"] < fit.briers["platt"]


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_relevance_rises_with_the_score_and_stays_within_bounds(method: str) -> None:
    fit = fit_relevance(*graded(), method=method)  # type: ignore[arg-type]
    relevance = fit.map(np.linspace(-50.0, 50.0, 501))
    assert (np.diff(relevance) >= 0.0).all()
    assert 0.0 <= relevance.min() < 0.3 < 0.7 < relevance.max() <= 1.0


def test_scores_that_contradict_the_grades_give_a_flat_curve() -> None:
    scores, outcome, query = graded()
    for method in ("platt", "isotonic"):
        fit = fit_relevance(-scores, outcome, query, method=method)  # type: ignore[arg-type]
        relevance = fit.map(np.linspace(-2.0, 2.0, 9))
        assert np.ptp(relevance) < 0.06
        assert relevance.mean() == pytest.approx(outcome.mean(), abs=0.03)


def test_calibration_error_is_measured_on_held_out_queries() -> None:
    """Ten answers a query all alike: a map that saw the query would look better calibrated than it is."""
    rng = np.random.default_rng(3)
    query = np.repeat(np.arange(12), 10)
    outcome = np.repeat((rng.random(12) < 0.5).astype(float), 10)
    scores = rng.normal(size=120) + np.repeat(rng.normal(0, 5, 12), 10)
    fit = fit_relevance(scores, outcome, query, method="isotonic")
    seen = float(np.mean((fit.map(scores) - outcome) ** 2))
    assert fit.brier > seen + 0.05


def test_soft_outcomes_are_allowed() -> None:
    scores = np.linspace(-2.0, 2.0, 200)
    fit = fit_relevance(scores, expit(scores), np.arange(200) % 10, method="platt")
    assert logit(fit.map([1.0]))[0] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("outcome", "error"), [([1.0] * 40, TooFewAnswers), ([0.0, 1.0], TooFewAnswers), ([2.0] * 40, MetricInput)]
)
def test_answers_that_cannot_calibrate_are_refused(outcome: list[float], error: type[ValueError]) -> None:
    with pytest.raises(error):
        fit_relevance(np.arange(len(outcome)), outcome, np.arange(len(outcome)))
