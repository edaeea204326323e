"""The two models of a comparison: probability, log-likelihood, score and curvature of one pair.

With d = theta_a - theta_b, P(a beats b) = F(d): Thurstone's F(d) = (1 + erf d) / 2 (case V with
the scale of arXiv 2509.12541), Bradley-Terry's F(d) = 1 / (1 + exp(-d)). A pair of weight m and
mean preference p contributes m [p log F(d) + (1 - p) log F(-d)]. `newton` inlines `pair_terms`.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
from numba import njit

from labeling.records import FloatArray
from scoring.numerics.fitting.elementary import FAST, erfcx_of_positive, exp_of_negative

Model = Literal["thurstone", "bradley-terry"]

THURSTONE = 0
BRADLEY_TERRY = 1
MODEL_CODES: dict[str, int] = {"thurstone": THURSTONE, "bradley-terry": BRADLEY_TERRY}

# One Thurstone unit in logits: the factor at which erf and the logistic curve lie closest.
LOGIT_SCALES: dict[str, float] = {"thurstone": 2.41, "bradley-terry": 1.0}

# E F(d) over a normal d of variance v is F(E d / sqrt(1 + k v)): k = 2 for Thurstone, exactly, and
# pi / 8 for Bradley-Terry, nearly (MacKay 1992).
AVERAGING: dict[str, float] = {"thurstone": 2.0, "bradley-terry": math.pi / 8.0}

_ROOT_PI = math.sqrt(math.pi)


class UnknownModel(ValueError):
    """A model's name is neither `thurstone` nor `bradley-terry`."""

    def __init__(self, model: str) -> None:
        super().__init__(f"model is {model!r}; expected one of {', '.join(map(repr, MODEL_CODES))}")


def model_code(model: str) -> int:
    """The number that compiled code knows a model by; raises UnknownModel."""
    try:
        return MODEL_CODES[model]
    except KeyError:
        raise UnknownModel(model) from None


@njit(cache=True, nogil=True, fastmath=FAST, inline="always", error_model="numpy")
def thurstone_terms(d: float, p: float) -> tuple[float, float]:
    """(score, curvature) of p log F(d) + (1 - p) log F(-d): d/dd and -d2/dd2. One erfc, one exp.

    With u = |d| both Mills ratios come from erfcx(u), so that nothing over- or underflows. Beyond
    u = 25 `ratio - 2u` would lose digits to cancellation, and its asymptotic series is used.
    """
    u = abs(d)
    ratio = 2.0 / (_ROOT_PI * erfcx_of_positive(u))  # f(u) / F(-u)
    density = exp_of_negative(-u * u) / _ROOT_PI  # f(u)
    rest = density / (1.0 - density / ratio)  # f(u) / F(u)
    s = 1.0 / max(u * u, 1.0)
    y = s * (0.5 - s * (0.75 - s * (1.875 - s * (6.5625 - s * 29.53125))))
    excess = 2.0 * u * y / (1.0 - y) if u > 25.0 else ratio - 2.0 * u
    forward = d >= 0.0
    win = p if forward else 1.0 - p
    lose = 1.0 - p if forward else p
    score = win * rest - lose * ratio
    curvature = win * rest * (2.0 * u + rest) + lose * ratio * excess
    return (score if forward else -score), curvature


@njit(cache=True, nogil=True, fastmath=FAST, inline="always", error_model="numpy")
def bradley_terry_terms(d: float, p: float) -> tuple[float, float]:
    """(score, curvature) of p log F(d) + (1 - p) log F(-d): d/dd and -d2/dd2. One exp."""
    e = exp_of_negative(-abs(d))
    body = 1.0 / (1.0 + e)
    tail = e * body
    forward = d >= 0.0
    win = p if forward else 1.0 - p
    lose = 1.0 - p if forward else p
    score = win * tail - lose * body
    return (score if forward else -score), body * tail


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def pair_terms(
    model: int, d: FloatArray, p: FloatArray, m: FloatArray, score: FloatArray, curvature: FloatArray, count: int
) -> None:
    """Fill `score` and `curvature` float64[>= count] with m times the terms of each pair."""
    if model == THURSTONE:
        for e in range(count):
            first, second = thurstone_terms(d[e], p[e])
            score[e] = m[e] * first
            curvature[e] = m[e] * second
    else:
        for e in range(count):
            first, second = bradley_terry_terms(d[e], p[e])
            score[e] = m[e] * first
            curvature[e] = m[e] * second


@njit(cache=True, nogil=True, error_model="numpy")
def log_probability_of(model: int, d: float) -> float:
    """log F(d), finite for every finite d."""
    if model == BRADLEY_TERRY:
        return -math.log1p(math.exp(-d)) if d > 0.0 else d - math.log1p(math.exp(d))
    if d > 0.0:
        return math.log1p(-0.5 * math.erfc(d))
    return math.log(0.5 * erfcx_of_positive(-d)) - d * d


@njit(cache=True, nogil=True, error_model="numpy")
def _log_probabilities(model: int, d: FloatArray) -> FloatArray:
    out = np.empty(d.size)
    for e in range(d.size):
        out[e] = log_probability_of(model, d[e])
    return out


def log_probability(d: npt.ArrayLike, *, model: str) -> FloatArray:
    """log F(d) elementwise, float64 of d's shape; natural units of the model."""
    values = np.atleast_1d(np.asarray(d, dtype=np.float64))
    return _log_probabilities(model_code(model), values.ravel()).reshape(np.shape(d))


def probability(d: npt.ArrayLike, *, model: str) -> FloatArray:
    """F(d) = P(a is the more relevant), elementwise; natural units of the model."""
    return np.exp(log_probability(d, model=model))


def log_likelihood(d: FloatArray, preference: FloatArray, weight: FloatArray, *, model: str) -> float:
    """Sum over pairs of m [p log F(d) + (1 - p) log F(-d)], all float64[m]."""
    wins = preference * log_probability(d, model=model)
    return float(np.dot(weight, wins + (1.0 - preference) * log_probability(-d, model=model)))


def score_and_curvature(
    d: FloatArray, preference: FloatArray, weight: FloatArray, *, model: str
) -> tuple[FloatArray, FloatArray]:
    """First and negated second derivative of each pair's log-likelihood by d, float64[m] each."""
    score, curvature = np.empty(len(d)), np.empty(len(d))
    pair_terms(model_code(model), d, preference, weight, score, curvature, len(d))
    return score, curvature
