"""Adjusted p-values of a family of tests: Holm for the error of the family, Benjamini-Hochberg and -Yekutieli for the FDR.

Pure. An adjusted p at or below the level rejects its hypothesis in the family.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from labeling.records import FloatArray
from scoring.numerics.measures.metrics import MetricInput


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Holm's step-down p-values, float64[m] in the given order; they control the family-wise error under any dependence."""
    p, order = _sorted(p_values)
    steps = (len(p) - np.arange(len(p))) * p[order]
    return _unsorted(np.minimum(np.maximum.accumulate(steps), 1.0), order)


def benjamini_hochberg(p_values: npt.ArrayLike) -> FloatArray:
    """Step-up p-values, float64[m]; they control the false discovery rate of independent or positively dependent tests."""
    p, order = _sorted(p_values)
    steps = p[order] * len(p) / np.arange(1, len(p) + 1)
    return _unsorted(np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0), order)


def benjamini_yekutieli(p_values: npt.ArrayLike) -> FloatArray:
    """As `benjamini_hochberg`, under any dependence: larger by the harmonic number of m."""
    p, order = _sorted(p_values)
    numbers = np.arange(1, len(p) + 1)
    steps = p[order] * len(p) * (1.0 / numbers).sum() / numbers
    return _unsorted(np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0), order)


def _sorted(p_values: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not ((p >= 0.0) & (p <= 1.0)).all():
        raise MetricInput(f"expected a list of p-values in [0, 1]; got {p_values!r}")
    return p, np.argsort(p, kind="stable")


def _unsorted(adjusted: FloatArray, order: npt.NDArray[np.intp]) -> FloatArray:
    found = np.empty_like(adjusted)
    found[order] = adjusted
    return found
