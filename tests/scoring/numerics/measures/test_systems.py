"""Agreement of two references on the order of systems, against scipy and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scoring.numerics.measures.metrics import MetricInput
from scoring.numerics.measures.systems import order_agreement


@given(seed=st.integers(0, 10_000), systems=st.integers(3, 12), queries=st.integers(2, 30), levels=st.integers(2, 30))
def test_the_estimates_equal_those_of_scipy(seed: int, systems: int, queries: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, levels, (2, systems, queries)) / levels
    found = order_agreement(first, second, rng=rng, resamples=20)
    means = np.round(first.mean(axis=1), 12), np.round(second.mean(axis=1), 12)
    if min(len(set(side)) for side in means) > 1:
        assert found.kendall.estimate == pytest.approx(stats.kendalltau(*means).statistic, abs=1e-9)
        assert found.pearson.estimate == pytest.approx(stats.pearsonr(*means).statistic, abs=1e-9)
    assert -1.0 <= found.kendall.low <= found.kendall.high <= 1.0
    assert found.kendall.count == queries


def test_the_interval_is_as_wide_as_repeated_samples_of_queries_scatter() -> None:
    rng = np.random.default_rng(3)
    quality = np.linspace(0.3, 0.6, 8)

    def values(queries: int) -> tuple[np.ndarray, np.ndarray]:
        topic = rng.normal(0.0, 0.2, queries)
        first, second = (quality[:, None] + topic + rng.normal(0.0, spread, (8, queries)) for spread in (0.2, 0.5))
        return first, second

    found = [order_agreement(*values(60), rng=rng, resamples=300).pearson for _ in range(60)]
    scatter = np.subtract(*np.quantile([each.estimate for each in found], [0.975, 0.025]))
    width = np.mean([each.high - each.low for each in found])
    assert 0.7 < width / scatter < 1.8


def test_the_order_of_the_queries_moves_nothing() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.random((2, 5, 20))
    order = rng.permutation(20)
    one, other = (
        order_agreement(first[:, each], second[:, each], rng=np.random.default_rng(0))
        for each in (np.arange(20), order)
    )
    assert one == other


def test_the_order_of_the_systems_moves_nothing() -> None:
    """The database returns them in the order of storing, which another evaluation of the same scores changes."""
    rng = np.random.default_rng(7)
    first, second = np.round(rng.random((2, 6, 11)), 1)
    place = rng.permutation(6)
    found = order_agreement(first, second, rng=np.random.default_rng(0), resamples=200)
    again = order_agreement(first[place], second[place], rng=np.random.default_rng(0), resamples=200)
    for before, after in ((found.kendall, again.kendall), (found.pearson, again.pearson)):
        assert (after.estimate, after.low, after.high) == pytest.approx((before.estimate, before.low, before.high))


def test_equal_and_reversed_orders_are_one_and_minus_one() -> None:
    values = np.tile(np.arange(4.0)[:, None], (1, 6))
    assert order_agreement(values, values, rng=np.random.default_rng(0)).kendall.low == 1.0
    assert order_agreement(values, -values, rng=np.random.default_rng(0)).pearson.high == -1.0
    flat = order_agreement(values, np.zeros_like(values), rng=np.random.default_rng(0))
    assert (flat.kendall.estimate, flat.pearson.estimate) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.zeros((2, 5)), np.zeros((2, 5))),
        (np.zeros((3, 0)), np.zeros((3, 0))),
        (np.zeros((3, 5)), np.zeros((4, 5))),
        (np.full((3, 5), np.nan), np.zeros((3, 5))),
    ],
)
def test_too_few_systems_and_unequal_shapes_are_named(first: np.ndarray, second: np.ndarray) -> None:
    with pytest.raises(MetricInput, match="expected"):
        order_agreement(first, second, rng=np.random.default_rng(0))
