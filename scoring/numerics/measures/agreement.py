"""Kappa and alpha with bootstrap intervals over pairs, vectorised over resamples.

The measures themselves are `scoring.numerics.measures.metrics`; here their intervals. Pairs are the unit of resampling, so that
an interval says what other pairs, judged by the same annotators, would have given.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from labeling.records import FloatArray
from scoring.numerics.measures.metrics import Level, Mirror, cohen_kappa, krippendorff_alpha, mirrored_labels

RESAMPLES = 1000
LEVEL = 0.95
_CHUNK_VALUES = 2_000_000


@dataclass(frozen=True, slots=True)
class Measured:
    """A coefficient with its 95 % interval over `count` items; NaN where it is undefined."""

    value: float
    low: float
    high: float
    count: int


def kappa_interval(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    mirror: Mirror | None = None,
) -> Measured:
    """Cohen's kappa of two annotators' labels on the same items.

    Resampling items is drawing the cells of their table of labels; draws on which kappa is undefined are left out.
    """
    a, b = np.asarray(x), np.asarray(y)
    value = cohen_kappa(a, b, mirror=mirror)
    labels, turned = mirrored_labels(np.concatenate([a, b]), mirror)
    size = len(labels)
    own, other = np.searchsorted(labels, a), np.searchsorted(labels, b)
    # A pair and the same pair turned round are one cell, so that the draws are the same too.
    cells = np.bincount(np.minimum(own * size + other, turned[own] * size + turned[other]), minlength=size * size)
    tables = rng.multinomial(len(a), cells / len(a), size=resamples).reshape(-1, size, size) / len(a)
    tables = (tables + tables[:, turned][:, :, turned]) / 2.0
    observed = np.trace(tables, axis1=1, axis2=2)
    chance = (tables.sum(axis=2) * tables.sum(axis=1)).sum(axis=1)
    defined = chance < 1.0 - 1e-12
    return _measured(value, 1.0 - (1.0 - observed[defined]) / (1.0 - chance[defined]), len(a))


def alpha_interval(
    ratings: npt.ArrayLike,
    *,
    level: Level,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
    mirror: Mirror | None = None,
) -> Measured:
    """Krippendorff's alpha of ratings float64[annotators, items], NaN where missing; items are resampled."""
    table = np.asarray(ratings, dtype=np.float64)
    shared = table[:, (~np.isnan(table)).sum(axis=0) >= 2] if table.size else table.reshape(0, 0)
    if not shared.size:
        return Measured(np.nan, np.nan, np.nan, 0)
    values, turned = mirrored_labels(shared[~np.isnan(shared)], mirror)
    counts = (shared[:, :, None] == values).sum(axis=0).astype(np.float64)
    of_item = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(len(values))
    of_item = of_item / (counts.sum(axis=1) - 1.0)[:, None, None]
    of_item = ((of_item + of_item[:, turned][:, :, turned]) / 2.0).reshape(len(counts), -1)
    of_item = of_item[np.lexsort(of_item.T)]  # so that the order of import has no say in the interval
    drawn = [_alphas(draws @ of_item, values, level) for draws in _draws(len(counts), rng, resamples)]
    return _measured(krippendorff_alpha(shared, level=level, mirror=mirror), np.concatenate(drawn), len(counts))


def _draws(items: int, rng: np.random.Generator, resamples: int) -> list[FloatArray]:
    """The count of each item in each resample, in batches that bound memory."""
    step = max(1, _CHUNK_VALUES // items)
    sizes = [min(step, resamples - done) for done in range(0, resamples, step)]
    return [rng.multinomial(items, np.full(items, 1.0 / items), size=size).astype(np.float64) for size in sizes]


def _alphas(coincidence: FloatArray, values: FloatArray, level: Level) -> FloatArray:
    """Alpha of each table of coincidences float64[resamples, V * V]; those that are undefined are left out."""
    tables = coincidence.reshape(-1, len(values), len(values))
    totals = tables.sum(axis=2)
    distance = _distances(values, totals, level)
    observed = (tables * distance).sum(axis=(1, 2))
    expected = (totals[:, :, None] * totals[:, None, :] * distance).sum(axis=(1, 2)) / (totals.sum(axis=1) - 1.0)
    defined = expected > 0.0
    return np.asarray(1.0 - observed[defined] / expected[defined])


def _distances(values: FloatArray, totals: FloatArray, level: Level) -> FloatArray:
    if level == "ordinal":  # the distance of two values is how many ratings lie between them
        place = np.cumsum(totals, axis=1) - totals / 2.0
        return np.asarray((place[:, :, None] - place[:, None, :]) ** 2)
    apart = values[:, None] - values[None, :]
    return np.asarray((apart != 0.0).astype(np.float64) if level == "nominal" else apart**2)[None, :, :]


def _measured(value: float, drawn: FloatArray, count: int) -> Measured:
    if np.isnan(value) or not len(drawn):
        return Measured(np.nan, np.nan, np.nan, count)
    low, high = np.quantile(drawn, [(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0])
    return Measured(float(value), float(low), float(high), count)
