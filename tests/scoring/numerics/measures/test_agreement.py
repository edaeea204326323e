"""Intervals of kappa and alpha: around the peers' values, as wide as repeated panels vary, undefined where they are."""

from __future__ import annotations

import krippendorff
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from scoring.numerics.measures.agreement import alpha_interval, kappa_interval
from scoring.numerics.measures.metrics import Level
from scoring.numerics.measures.sides import turned

LEVELS: tuple[Level, ...] = ("nominal", "ordinal", "interval")


def panel(rng: np.random.Generator, items: int, annotators: int = 2) -> np.ndarray:
    """Labels -1, 0, 1 of annotators who see the truth and err on three in ten items."""
    truth = rng.integers(-1, 2, items)
    wrong = rng.random((annotators, items)) < 0.3
    return np.where(wrong, rng.integers(-1, 2, (annotators, items)), truth).astype(np.float64)


def test_the_values_are_those_of_the_peers() -> None:
    x, y = panel(np.random.default_rng(1), 80)
    found = kappa_interval(x, y, rng=np.random.default_rng(0))
    assert found.value == pytest.approx(cohen_kappa_score(x, y))
    assert (found.low < found.value < found.high, found.count) == (True, 80)


@pytest.mark.parametrize("level", LEVELS)
def test_alpha_is_that_of_the_peer_with_gaps(level: Level) -> None:
    rng = np.random.default_rng(2)
    ratings = panel(rng, 60, annotators=4)
    ratings[rng.random(ratings.shape) < 0.4] = np.nan
    found = alpha_interval(ratings, level=level, rng=np.random.default_rng(0))
    peer = krippendorff.alpha(reliability_data=ratings, level_of_measurement=level)
    assert found.value == pytest.approx(peer)
    assert found.low < found.value < found.high
    assert found.count == int(((~np.isnan(ratings)).sum(axis=0) >= 2).sum())


@pytest.mark.parametrize("level", LEVELS)
def test_a_resample_of_every_item_once_gives_the_value_itself(level: Level) -> None:
    class Once:
        """Draws every item exactly once."""

        def multinomial(self, items: int, chances: np.ndarray, size: int) -> np.ndarray:
            return np.ones((size, len(chances)), dtype=np.int64)

    ratings = panel(np.random.default_rng(3), 40, annotators=3)
    found = alpha_interval(ratings, level=level, rng=Once(), resamples=2)  # type: ignore[arg-type]
    assert found.low == pytest.approx(found.value) == pytest.approx(found.high)


def test_intervals_are_as_wide_as_panels_vary() -> None:
    rng = np.random.default_rng(4)
    panels = [panel(rng, 100) for _ in range(200)]
    widths, values = [], []
    for x, y in panels:
        found = kappa_interval(x, y, rng=rng, resamples=200)
        widths.append(found.high - found.low)
        values.append(found.value)
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(values), rel=0.2)


def test_pairs_count_half_in_either_direction() -> None:
    ratings = panel(np.random.default_rng(6), 50, annotators=3)
    around = np.where(np.random.default_rng(7).random(50) < 0.5, ratings, turned(ratings))
    x, y = ratings[:2]
    both = cohen_kappa_score(np.append(x, -x), np.append(y, -y))
    for table in (ratings, around):
        found = kappa_interval(*table[:2], rng=np.random.default_rng(0), mirror=turned)
        assert found.value == pytest.approx(both)
        assert found == kappa_interval(x, y, rng=np.random.default_rng(0), mirror=turned)
    doubled = np.concatenate([ratings, turned(ratings)], axis=1)
    for level in LEVELS:
        one, other = (
            alpha_interval(each, level=level, rng=np.random.default_rng(0), mirror=turned) for each in (ratings, around)
        )
        assert [one.value, one.low, one.high] == pytest.approx([other.value, other.low, other.high])
        peer = krippendorff.alpha(reliability_data=doubled, level_of_measurement=level)
        assert 1.0 - one.value == pytest.approx((1.0 - peer) * 149 / 150 * 300 / 299), "150 labels, not 300"


def test_one_label_alone_leaves_kappa_and_alpha_undefined() -> None:
    same = np.ones((2, 30))
    assert np.isnan(kappa_interval(*same, rng=np.random.default_rng(0)).value)
    assert np.isnan(alpha_interval(same, level="nominal", rng=np.random.default_rng(0)).value)
    apart = np.array([[1.0, np.nan], [np.nan, 1.0]])
    assert alpha_interval(apart, level="interval", rng=np.random.default_rng(0)).count == 0
