"""Computes the relevance of a score from a stored calibration.

`scoring.rating` applies it when it writes scores, `scoring.calibration.calibrate` when a new calibration
replaces the last one. A refit therefore keeps the calibration of a score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from labeling.records import BoolArray, FloatArray
from scoring.models import Calibration
from scoring.numerics.calibration.relevance import RelevanceMap


@dataclass(frozen=True, slots=True)
class ShownRelevance:
    """A project's calibration for computing scores. `map` takes logits, so it applies to either model.

    `across`: there are biases, and only queries on their largest island are on the map's scale. `mean_threshold` in
    logits: the map takes logits above a query's threshold, and above this mean where a query has none; None: it does not.
    """

    calibration_id: int | None
    map: RelevanceMap | None
    across: bool
    mean_threshold: float | None = None

    def of(self, logits: FloatArray, on_main_island: BoolArray, threshold: FloatArray) -> tuple[FloatArray, BoolArray]:
        """Return relevance in [0, 1] of each candidate, and whether it is calibrated; expit(logits) otherwise.

        `threshold` float64[n] in logits: that of the candidate's query, NaN for none.
        """
        relevance = np.asarray(expit(logits), dtype=np.float64)
        if self.map is None:
            return relevance, np.zeros(len(relevance), dtype=np.bool_)
        calibrated = on_main_island.copy() if self.across else np.ones(len(relevance), dtype=np.bool_)
        if self.mean_threshold is not None:
            logits = above_threshold(logits, threshold, self.mean_threshold)
        relevance[calibrated] = np.clip(self.map(logits[calibrated]), 0.0, 1.0)
        return relevance, calibrated


def shown_relevance(project_id: int) -> ShownRelevance:
    """Return the latest calibration's map; an empty one if the project was never calibrated."""
    row = Calibration.objects.filter(project_id=project_id).order_by("-version").values("id", "parameters").first()
    if row is None:
        return ShownRelevance(None, None, False)
    parameters = row["parameters"]
    return ShownRelevance(
        row["id"], map_from(parameters.get("map")), bool(parameters.get("pairs")), parameters.get("mean_threshold")
    )


def above_threshold(logits: FloatArray, threshold: FloatArray, mean: float) -> FloatArray:
    """Logits above the thresholds, above their mean where there is none (NaN)."""
    return logits - np.where(np.isnan(threshold), mean, threshold)


def map_from(stored: Mapping[str, Any] | None) -> RelevanceMap | None:
    """Return the map from its plain values."""
    if not stored:
        return None
    return RelevanceMap(
        method=stored["method"],
        slope=float(stored["slope"]),
        intercept=float(stored["intercept"]),
        x=np.array(stored["x"], dtype=np.float64),
        y=np.array(stored["y"], dtype=np.float64),
    )


def map_to(found: RelevanceMap) -> dict[str, Any]:
    """Return the plain values of a map."""
    return {
        "method": found.method,
        "slope": found.slope,
        "intercept": found.intercept,
        "x": found.x.tolist(),
        "y": found.y.tolist(),
    }
