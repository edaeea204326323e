"""Bootstrap intervals and paired tests over values by query.

Queries are the unit of resampling, since documents of one query are not independent. The generator
is passed in, so that a reported interval can be reproduced from its seed. Values are sorted first, so that it does not
depend on the order in which queries were imported.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from labeling.records import FloatArray
from scoring.numerics.measures.metrics import MetricInput

_CHUNK_VALUES = 2_000_000
_LEAST_WIDTH = 1e-9

NoInterval = Literal["one query", "no spread between queries"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its percentile bootstrap interval; `count` values went in.

    Resampling one value or equal values says nothing about others: `unknown` is then the reason, and low and high are the mean.
    """

    estimate: float
    low: float
    high: float
    level: float
    count: int

    @property
    def unknown(self) -> NoInterval | None:
        """The reason why there is no interval, None if there is one."""
        if self.count == 1:
            return "one query"
        return "no spread between queries" if self.high - self.low < _LEAST_WIDTH else None

    def negated(self) -> Interval:
        """The interval of the mean of the negated values."""
        return replace(self, estimate=0.0 - self.estimate, low=0.0 - self.high, high=0.0 - self.low)

    def shown(self) -> dict[str, Any]:
        """The fields for readers: without an interval, low and high are None, and `no_interval` is the reason."""
        found = asdict(self) | {"no_interval": self.unknown}
        return found | ({"low": None, "high": None} if self.unknown else {})


@dataclass(frozen=True, slots=True)
class PairedTest:
    """Mean of x - y over the same queries, its interval, and the two-sided p of a sign-flip test."""

    difference: Interval
    p_value: float


def bootstrap_interval(
    values: npt.ArrayLike, *, rng: np.random.Generator, level: float = 0.95, resamples: int = 10_000
) -> Interval:
    """Percentile interval of the mean; low = high for one value or equal ones, see `Interval.unknown`."""
    data = np.sort(_values(values))
    means = _resampled_means(data, rng, resamples)
    low, high = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(estimate=float(data.mean()), low=float(low), high=float(high), level=level, count=len(data))


def paired_test(
    x: npt.ArrayLike, y: npt.ArrayLike, *, rng: np.random.Generator, level: float = 0.95, resamples: int = 10_000
) -> PairedTest:
    """Compare two systems on the same queries: bootstrap interval and permutation p of the mean of x - y.

    The p-value counts the observed signs among the permutations, so that it is never 0. With the same seed, y against x has
    the same p and the mirrored interval, because the resamples are drawn for the better system less the worse.
    """
    first, second = _values(x), _values(y)
    if len(first) != len(second):
        raise MetricInput(f"{len(first)} values against {len(second)}; expected the same queries on both sides")
    change = np.sort(first - second)
    mirrored = np.sort(second - first)
    is_mirrored = bool((change.mean(), *change) < (mirrored.mean(), *mirrored))
    change = mirrored if is_mirrored else change
    interval = bootstrap_interval(change, rng=rng, level=level, resamples=resamples)
    flipped = _flipped_means(change, rng, resamples)
    extreme = np.count_nonzero(np.abs(flipped) >= abs(change.mean()) - 1e-12)
    return PairedTest(
        difference=interval.negated() if is_mirrored else interval, p_value=(extreme + 1) / (resamples + 1)
    )


def _values(values: npt.ArrayLike) -> FloatArray:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not data.size or not np.isfinite(data).all():
        raise MetricInput(f"expected a non-empty list of finite values, one per query; got shape {data.shape}")
    return data


def _chunks(count: int, resamples: int) -> list[int]:
    """Sizes of batches of resamples that keep memory bounded."""
    step = max(1, _CHUNK_VALUES // count)
    return [min(step, resamples - done) for done in range(0, resamples, step)]


def _resampled_means(data: FloatArray, rng: np.random.Generator, resamples: int) -> FloatArray:
    draws = (data[rng.integers(0, len(data), (rows, len(data)))].mean(axis=1) for rows in _chunks(len(data), resamples))
    return np.concatenate(list(draws))


def _flipped_means(data: FloatArray, rng: np.random.Generator, resamples: int) -> FloatArray:
    signs = (rng.integers(0, 2, (rows, len(data))) * 2.0 - 1.0 for rows in _chunks(len(data), resamples))
    return np.concatenate([(sign @ data) / len(data) for sign in signs])
