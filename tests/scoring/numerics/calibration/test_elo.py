"""Elo and uncalibrated relevance."""

from __future__ import annotations

import numpy as np
import pytest

from scoring.numerics.calibration.elo import elo_from_strength, elo_stderr, uncalibrated_relevance


def test_four_hundred_points_are_odds_of_ten_to_one() -> None:
    low, high = elo_from_strength([0.0, np.log(10.0)], logit_scale=1.0)
    assert (low, high - low) == (1500.0, pytest.approx(400.0))


def test_bias_is_in_the_units_of_strength() -> None:
    assert elo_from_strength(0.2, 0.3, logit_scale=2.41) == pytest.approx(elo_from_strength(0.5, logit_scale=2.41))
    assert uncalibrated_relevance(0.2, -0.2, logit_scale=2.41) == 0.5


def test_errors_scale_with_the_points() -> None:
    width = elo_from_strength(0.1, logit_scale=2.41) - elo_from_strength(0.0, logit_scale=2.41)
    assert elo_stderr(0.1, logit_scale=2.41) == pytest.approx(width)


def test_relevance_keeps_the_order_and_stays_within_bounds() -> None:
    relevance = uncalibrated_relevance(np.linspace(-300.0, 300.0, 1001), logit_scale=2.41)
    assert (np.diff(relevance) >= 0.0).all()
    assert (relevance[0] >= 0.0, relevance[-1] <= 1.0) == (True, True)
