"""Measures of orders, of probabilities and of agreement between annotators.

Definitions follow scipy (tau-b) and Krippendorff; the tests hold ours equal to those. `rankings` measures rankings
against grades, `resampling` turns values by query into intervals and paired tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from labeling.records import FloatArray, IntArray

Level = Literal["nominal", "ordinal", "interval"]
# The label of an item that was turned round; its own inverse.
Mirror = Callable[[FloatArray], FloatArray]


class MetricInput(ValueError):
    """Values that a measure is not defined on."""


# --- orders ------------------------------------------------------------------------------


def kendall(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Kendall's tau-b in [-1, 1]; NaN where either side is constant."""
    a, b = _paired(x, y)
    if len(a) < 2 or np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
        return float("nan")
    from scipy import stats  # here, because its import takes a second of every process's start

    return float(stats.kendalltau(a, b).statistic)


# --- probabilities -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReliabilityBins:
    """A reliability diagram, one entry a non-empty bin, float64 (count int64).

    `predicted` mean probability, `observed` mean outcome, `count` answers; `low`, `high` the bin's ends.
    """

    low: FloatArray
    high: FloatArray
    predicted: FloatArray
    observed: FloatArray
    count: IntArray

    @property
    def ece(self) -> float:
        """Expected calibration error: mean |predicted - observed| by count. NaN without answers."""
        if not self.count.sum():
            return float("nan")
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.count))


def reliability_bins(probability: npt.ArrayLike, outcome: npt.ArrayLike, bins: int = 10) -> ReliabilityBins:
    """Equal-width bins of [0, 1]; `outcome` in [0, 1], soft answers included."""
    predicted, observed = _paired(probability, outcome)
    for name, values in (("probability", predicted), ("outcome", observed)):
        if values.size and (values.min() < 0.0 or values.max() > 1.0):
            raise MetricInput(f"{name} spans {values.min():g} .. {values.max():g}; expected [0, 1]")
    edges = np.linspace(0.0, 1.0, bins + 1)
    index = np.clip(np.searchsorted(edges, predicted, side="right") - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    filled = np.flatnonzero(count)
    return ReliabilityBins(
        low=edges[filled],
        high=edges[filled + 1],
        predicted=np.bincount(index, predicted, bins)[filled] / count[filled],
        observed=np.bincount(index, observed, bins)[filled] / count[filled],
        count=count[filled],
    )


# --- agreement ---------------------------------------------------------------------------


def mirrored_labels(values: FloatArray, mirror: Mirror | None) -> tuple[FloatArray, IntArray]:
    """The distinct labels among `values` and their mirrored ones, ascending, and the place of each one's mirrored label."""
    labels = np.unique(values if mirror is None else np.concatenate([values, mirror(values)]))
    return labels, np.arange(len(labels)) if mirror is None else np.searchsorted(labels, mirror(labels))


def cohen_kappa(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    weights: Literal["linear", "quadratic"] | None = None,
    mirror: Mirror | None = None,
) -> float:
    """Cohen's kappa of two annotators' labels on the same items; NaN where chance agreement is total.

    `weights`: how a disagreement between sorted labels counts by their distance in ranks. `mirror`: for pairs, each of which
    counts half in either direction, since nothing but a database decides which document comes first.
    """
    a, b = np.asarray(x), np.asarray(y)
    if a.shape != b.shape or a.ndim != 1 or not a.size:
        raise MetricInput(f"labels of shapes {a.shape} and {b.shape}; expected two equal, non-empty lists")
    labels, turned = mirrored_labels(np.concatenate([a, b]), mirror)
    table = np.zeros((len(labels), len(labels)))
    np.add.at(table, (np.searchsorted(labels, a), np.searchsorted(labels, b)), 1.0 / len(a))
    table = (table + table[turned][:, turned]) / 2.0
    expected = np.outer(table.sum(1), table.sum(0))
    distance = np.abs(np.subtract.outer(np.arange(len(labels)), np.arange(len(labels)))).astype(np.float64)
    cost = {None: (distance > 0).astype(np.float64), "linear": distance, "quadratic": distance**2}[weights]
    chance = float((cost * expected).sum())
    return 1.0 - float((cost * table).sum()) / chance if chance > 0.0 else float("nan")


def krippendorff_alpha(ratings: npt.ArrayLike, *, level: Level = "interval", mirror: Mirror | None = None) -> float:
    """Krippendorff's alpha of ratings float64[annotators, items], NaN where missing; `mirror` as for `cohen_kappa`.

    1 is perfect, 0 chance. NaN where no item has two ratings or all ratings are equal.
    """
    table = np.asarray(ratings, dtype=np.float64)
    if table.ndim != 2:
        raise MetricInput(f"ratings have {table.ndim} dimensions; expected [annotators, items]")
    values, turned = mirrored_labels(table[~np.isnan(table)], mirror)
    counts = np.stack([(table == value).sum(axis=0) for value in values], axis=1) if values.size else np.zeros((1, 0))
    counts = counts[counts.sum(axis=1) >= 2].astype(np.float64)
    if not counts.size:
        return float("nan")
    pairable = counts.sum(axis=1, keepdims=True) - 1.0
    coincidence = (counts / pairable).T @ counts - np.diag((counts / pairable).sum(axis=0))
    coincidence = (coincidence + coincidence[turned][:, turned]) / 2.0
    totals = coincidence.sum(axis=0)
    distance = _alpha_distance(values, totals, level)
    expected = (np.outer(totals, totals) * distance).sum() / (totals.sum() - 1.0)
    return 1.0 - float((coincidence * distance).sum() / expected) if expected > 0.0 else float("nan")


def _alpha_distance(values: FloatArray, totals: FloatArray, level: str) -> FloatArray:
    if level == "nominal":
        return (values[:, None] != values[None, :]).astype(np.float64)
    if level == "interval":
        return np.asarray((values[:, None] - values[None, :]) ** 2)
    if level == "ordinal":
        middle = np.cumsum(totals) - totals / 2.0
        return np.asarray((middle[:, None] - middle[None, :]) ** 2)
    raise MetricInput(f"level is {level!r}; expected 'nominal', 'ordinal' or 'interval'")


def _finite(name: str, values: npt.ArrayLike) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not np.isfinite(array).all():
        raise MetricInput(f"{name} must be a list of finite numbers; got shape {array.shape}; omit missing values")
    return array


def _paired(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    a, b = _finite("first values", x), _finite("second values", y)
    if len(a) != len(b):
        raise MetricInput(f"{len(a)} values against {len(b)}; expected equal lengths")
    return a, b
