"""The two models' probabilities and derivatives, against scipy and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from scipy import special

from labeling.records import FloatArray
from scoring.numerics.fitting.elementary import erfcx_of_positive, exp_of_negative
from scoring.numerics.fitting.likelihood import (
    MODEL_CODES,
    UnknownModel,
    log_likelihood,
    log_probability,
    model_code,
    score_and_curvature,
)

models = pytest.mark.parametrize("model", list(MODEL_CODES))


@njit
def _elementary(x: FloatArray) -> tuple[FloatArray, FloatArray]:
    exponential, erfcx = np.empty(x.size), np.empty(x.size)
    for i in range(x.size):
        exponential[i] = exp_of_negative(-x[i])
        erfcx[i] = erfcx_of_positive(x[i])
    return exponential, erfcx


def test_exponential_and_erfcx_match_the_library_to_the_last_digits() -> None:
    x = np.concatenate([np.linspace(0.0, 690.0, 20_001), np.linspace(0.0, 10.0, 20_001)])
    exponential, erfcx = _elementary(x)
    np.testing.assert_allclose(exponential, np.exp(-x), rtol=1e-15)
    np.testing.assert_allclose(erfcx, special.erfcx(x), rtol=1e-14)


def test_log_probability_matches_scipy_far_into_both_tails() -> None:
    d = np.linspace(-60.0, 60.0, 4_001)
    np.testing.assert_allclose(
        log_probability(d, model="thurstone"), special.log_ndtr(np.sqrt(2.0) * d), rtol=1e-12, atol=1e-300
    )
    np.testing.assert_allclose(log_probability(d, model="bradley-terry"), special.log_expit(d), rtol=1e-13)


@models
@settings(max_examples=60, deadline=None)
@given(d=st.floats(-30.0, 30.0), p=st.floats(0.0, 1.0), m=st.floats(0.1, 50.0))
def test_score_and_curvature_are_the_derivatives(model: str, d: float, p: float, m: float) -> None:
    at, preference, weight = np.array([d]), np.array([p]), np.array([m])
    step = 1e-5 * max(1.0, abs(d))
    score, curvature = score_and_curvature(at, preference, weight, model=model)
    above, below = (log_likelihood(at + s, preference, weight, model=model) for s in (step, -step))
    assert score[0] == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-5 * m * (1 + d * d))
    scores = [score_and_curvature(at + s, preference, weight, model=model)[0][0] for s in (step, -step)]
    assert curvature[0] == pytest.approx((scores[1] - scores[0]) / (2 * step), rel=1e-4, abs=1e-6 * m)
    assert curvature[0] >= 0.0


@models
@pytest.mark.parametrize("d", [-1e6, -1e3, -26.0, 26.0, 1e3, 1e6])
def test_extreme_differences_stay_finite(model: str, d: float) -> None:
    score, curvature = score_and_curvature(np.array([d]), np.array([0.3]), np.ones(1), model=model)
    assert np.isfinite(score).all()
    assert np.isfinite(curvature).all()


def test_curvature_is_continuous_where_the_asymptotic_series_takes_over() -> None:
    at = np.array([np.nextafter(25.0, 0.0), np.nextafter(25.0, 26.0)])
    _, curvature = score_and_curvature(at, np.zeros(2), np.ones(2), model="thurstone")
    assert curvature[0] == pytest.approx(curvature[1], rel=1e-10)


def test_curvature_tends_to_that_of_a_gaussian_tail() -> None:
    _, curvature = score_and_curvature(np.array([1e4]), np.zeros(1), np.ones(1), model="thurstone")
    assert curvature[0] == pytest.approx(2.0, rel=1e-7)


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(UnknownModel, match="'elo'"):
        model_code("elo")
