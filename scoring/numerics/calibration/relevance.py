"""Maps strength + bias to relevance in [0, 1], learned from grades or people's answers.

Platt's logistic curve or isotonic regression, evaluated on held-out queries. The reliability diagram,
calibration error and number of answers belong to the held-out predictions. Without answers,
`elo.uncalibrated_relevance` is used and labelled as uncalibrated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from labeling.records import FloatArray, IntArray
from labeling.stored_texts import stored_text
from scoring.numerics.measures.metrics import MetricInput, ReliabilityBins, reliability_bins

Method = Literal["platt", "isotonic"]

FOLDS = 5
MINIMUM_ANSWERS = 20

FEW = stored_text(
    "%(n)s answers are too few; grade more candidates until there are at least %(least)s",
    one="%(n)s answer is too few; grade more candidates until there are at least %(least)s",
)
ALIKE = stored_text("all %(n)s answers are %(value)s; grade both relevant and irrelevant candidates")


class TooFewAnswers(ValueError):
    """There are too few answers, or all are equal, so no map from score to relevance can be learned."""


@dataclass(frozen=True, slots=True)
class RelevanceMap:
    """A rising curve. Platt: expit(slope score + intercept). Isotonic: linear between the knots `x`, `y`."""

    method: Method
    slope: float
    intercept: float
    x: FloatArray
    y: FloatArray

    def __call__(self, scores: npt.ArrayLike) -> FloatArray:
        """Relevance in [0, 1] of each score, float64 of the same shape."""
        values = np.asarray(scores, dtype=np.float64)
        if self.method == "platt":
            return np.asarray(special.expit(self.slope * values + self.intercept), dtype=np.float64)
        return np.asarray(np.interp(values, self.x, self.y), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class RelevanceFit:
    """The map, fitted on all answers, and how well its kind predicted held-out queries.

    `reliability`, its `.ece`, and `brier` rest on `answers` answers of `queries` queries; `briers` gives
    each method's held-out Brier score.
    """

    map: RelevanceMap
    reliability: ReliabilityBins
    brier: float
    briers: dict[Method, float]
    answers: int
    queries: int

    @property
    def ece(self) -> float:
        """Expected calibration error on held-out queries."""
        return self.reliability.ece


def fit_relevance(
    scores: npt.ArrayLike,
    outcome: npt.ArrayLike,
    query: npt.ArrayLike,
    *,
    method: Method | None = None,
    folds: int = FOLDS,
    rng: np.random.Generator | None = None,
) -> RelevanceFit:
    """Learn relevance from `outcome` in [0, 1] (grade / highest grade, or 0 and 1) of candidates with `scores`.

    Folds hold whole queries out (`query` int64[m]); with a single query they hold out answers.
    `method` None takes the one with the lower held-out Brier score. Raises TooFewAnswers.
    """
    s, y, groups = _checked(scores, outcome, query)
    fold = _folds(groups, folds, rng if rng is not None else np.random.default_rng(0))
    methods: tuple[Method, ...] = ("platt", "isotonic") if method is None else (method,)
    held_out = {name: _predict_held_out(name, s, y, fold) for name in methods}
    briers = {name: float(np.mean((predicted - y) ** 2)) for name, predicted in held_out.items()}
    best: Method = min(methods, key=lambda name: briers[name])
    return RelevanceFit(
        map=_fit(best, s, y),
        reliability=reliability_bins(held_out[best], y),
        brier=briers[best],
        briers=briers,
        answers=len(s),
        queries=len(np.unique(groups)),
    )


def _checked(
    scores: npt.ArrayLike, outcome: npt.ArrayLike, query: npt.ArrayLike
) -> tuple[FloatArray, FloatArray, IntArray]:
    s, y, groups = np.asarray(scores, np.float64), np.asarray(outcome, np.float64), np.asarray(query)
    if not (s.ndim == 1 and s.shape == y.shape == groups.shape):
        raise MetricInput(
            f"shapes {s.shape}, {y.shape}, {groups.shape}; expected one score, outcome and query per answer"
        )
    if not np.isfinite(s).all() or not ((y >= 0.0) & (y <= 1.0)).all():
        raise MetricInput("scores must be finite and outcomes in [0, 1]; divide grades by the highest grade")
    if len(y) < MINIMUM_ANSWERS:
        raise TooFewAnswers(FEW % {"n": len(y), "least": MINIMUM_ANSWERS})
    if np.ptp(y) == 0.0:
        raise TooFewAnswers(ALIKE % {"n": len(y), "value": f"{y[0]:g}"})
    return s, y, groups


def _folds(groups: npt.NDArray[np.generic], folds: int, rng: np.random.Generator) -> IntArray:
    _, index = np.unique(groups, return_inverse=True)
    if index.max() == 0:
        return np.asarray(rng.permutation(len(groups)) % folds)
    return np.asarray((rng.permutation(index.max() + 1) % folds)[index])


def _predict_held_out(method: Method, s: FloatArray, y: FloatArray, fold: IntArray) -> FloatArray:
    predicted = np.empty(len(y))
    for k in np.unique(fold):
        hidden = fold == k
        predicted[hidden] = _fit(method, s[~hidden], y[~hidden])(s[hidden])
    return predicted


def _fit(method: Method, s: FloatArray, y: FloatArray) -> RelevanceMap:
    if method == "isotonic":
        return _isotonic(s, y)
    return _platt(s, y)


def _platt(s: FloatArray, y: FloatArray) -> RelevanceMap:
    """Logistic regression with slope >= 0; two pseudo-answers of 1/2 keep separable answers finite."""
    centre, spread = float(s.mean()), float(s.std()) or 1.0
    x = (s - centre) / spread

    def loss(beta: FloatArray) -> tuple[float, FloatArray]:
        z = beta[0] * x + beta[1]
        value = np.logaddexp(0.0, z).sum() - y @ z + 0.5 * float(beta @ beta)
        residual = special.expit(z) - y
        return float(value), np.array([residual @ x, residual.sum()]) + beta

    found = optimize.minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)])
    slope, intercept = found.x
    empty = np.empty(0)
    return RelevanceMap("platt", float(slope / spread), float(intercept - slope * centre / spread), empty, empty)


def _isotonic(s: FloatArray, y: FloatArray) -> RelevanceMap:
    """Least-squares rising steps, joined by lines between the steps' mean scores."""
    x, inverse, counts = np.unique(s, return_inverse=True, return_counts=True)
    means = np.bincount(inverse, y) / counts
    steps = optimize.isotonic_regression(means, weights=counts)
    block = np.repeat(np.arange(len(steps.blocks) - 1), np.diff(steps.blocks))
    weight = np.bincount(block, counts)
    knots = np.bincount(block, x * counts) / weight
    values = np.clip(np.bincount(block, steps.x * counts) / weight, 0.0, 1.0)
    return RelevanceMap("isotonic", 0.0, 0.0, knots, values)
