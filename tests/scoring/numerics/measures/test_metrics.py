"""Measures equal those of scipy, scikit-learn and krippendorff."""

from __future__ import annotations

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from scoring.numerics.measures import metrics
from scoring.numerics.measures.resampling import bootstrap_interval, paired_test

seeds = st.integers(0, 10_000)
quickly = settings(max_examples=25, deadline=None)


@quickly
@given(seed=seeds)
def test_rank_correlation_equals_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 8, 30).astype(float), rng.normal(size=30)
    assert metrics.kendall(x, y) == pytest.approx(stats.kendalltau(x, y).statistic)


def test_correlation_with_a_constant_is_not_a_number() -> None:
    assert np.isnan(metrics.kendall([1, 1, 1], [1, 2, 3]))
    assert np.isnan(metrics.kendall([1.0], [1.0]))


def test_calibration_error_of_a_hand_made_case() -> None:
    bins = metrics.reliability_bins([0.1, 0.1, 0.9, 0.9, 1.0], [0, 1, 1, 1, 0], bins=10)
    assert bins.count.tolist() == [2, 3]
    assert bins.predicted == pytest.approx([0.1, 2.8 / 3])
    assert bins.ece == pytest.approx((2 * 0.4 + 3 * abs(2.8 / 3 - 2 / 3)) / 5)


def test_perfect_probabilities_have_no_calibration_error() -> None:
    assert metrics.reliability_bins([0.0, 1.0, 0.25], [0.0, 1.0, 0.25]).ece == pytest.approx(0.0)


def test_probabilities_outside_the_unit_interval_are_refused() -> None:
    with pytest.raises(metrics.MetricInput, match="probability"):
        metrics.reliability_bins([1.2], [1])


@quickly
@given(seed=seeds, weights=st.sampled_from([None, "linear", "quadratic"]))
def test_kappa_equals_scikit_learn(seed: int, weights: str | None) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 4, 60)
    y = np.where(rng.random(60) < 0.6, x, rng.integers(0, 4, 60))
    expected = sklearn_metrics.cohen_kappa_score(x, y, weights=weights)
    assert metrics.cohen_kappa(x, y, weights=weights) == pytest.approx(expected)  # type: ignore[arg-type]


@quickly
@given(seed=seeds, level=st.sampled_from(["nominal", "ordinal", "interval"]))
def test_alpha_equals_krippendorff(seed: int, level: str) -> None:
    rng = np.random.default_rng(seed)
    ratings = rng.integers(0, 4, 40) + rng.integers(-1, 2, (3, 40)).astype(float)
    ratings[rng.random((3, 40)) < 0.3] = np.nan
    expected = krippendorff.alpha(reliability_data=ratings, level_of_measurement=level)
    assert metrics.krippendorff_alpha(ratings, level=level) == pytest.approx(expected)  # type: ignore[arg-type]


def test_alpha_without_overlap_is_not_a_number() -> None:
    assert np.isnan(metrics.krippendorff_alpha([[1.0, np.nan], [np.nan, 2.0]]))


def test_bootstrap_interval_agrees_with_normal_theory() -> None:
    values = np.random.default_rng(0).normal(3.0, 1.0, 400)
    interval = bootstrap_interval(values, rng=np.random.default_rng(1))
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)


def test_paired_test_sees_a_small_consistent_difference_and_none_in_noise() -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(0.5, 0.2, 80)
    better = paired_test(base + 0.02 + rng.normal(0, 0.03, 80), base, rng=np.random.default_rng(1))
    noise = paired_test(base + rng.normal(0, 0.03, 80), base, rng=np.random.default_rng(1))
    assert better.p_value < 0.001 < 0.05 < noise.p_value
    assert better.difference.low > 0.0


def test_sign_flip_p_value_is_exact_for_few_queries() -> None:
    # Two queries, both better: of four sign patterns two are as extreme.
    result = paired_test([1.0, 1.0], [0.0, 0.0], rng=np.random.default_rng(0))
    assert result.p_value == pytest.approx(0.5, abs=0.02)


@given(seed=seeds)
def test_the_second_system_against_the_first_has_the_same_p_and_the_mirrored_interval(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.random(12).round(1), rng.random(12).round(1)
    one, other = (paired_test(a, b, rng=np.random.default_rng(0), resamples=500) for a, b in ((x, y), (y, x)))
    assert one.p_value == other.p_value
    assert one.difference == other.difference.negated()


@pytest.mark.parametrize(
    ("values", "reason"),
    [([0.3], "one query"), ([0.7] * 5, "no spread between queries"), ([0.1 + 0.2, 0.3], "no spread between queries"),
     ([0.3, 0.31], None), ([1.0] * 49 + [0.0], None)],
)  # fmt: skip
def test_one_value_or_equal_ones_have_no_interval(values: list[float], reason: str | None) -> None:
    found = bootstrap_interval(values, rng=np.random.default_rng(0))
    shown = found.shown()
    assert (found.unknown, shown["no_interval"]) == (reason, reason)
    assert (shown["low"], shown["high"]) == ((None, None) if reason else (found.low, found.high))
    assert shown["estimate"] == pytest.approx(np.mean(values))


def test_resampling_is_reproducible_from_its_seed() -> None:
    values = np.arange(10.0)
    assert bootstrap_interval(values, rng=np.random.default_rng(7)) == bootstrap_interval(
        values, rng=np.random.default_rng(7)
    )
