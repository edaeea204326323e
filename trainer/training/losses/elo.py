"""The Elo that a loss learns from, and the queries that say nothing. Imports no Django and no torch.

Only differences within a query count, so no calibration across queries is needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from scipy.special import logit

from labeling.records import Examples, FloatArray

ELO_A_LOGIT = 400.0 / np.log(10.0)
SMALLEST = 1e-6


class NoPreferences(ValueError):
    """No query has two candidates, so there is no pair with a preference."""


class OneElo(ValueError):
    """The candidates of every query have one and the same Elo."""


def elo_of(examples: Examples) -> FloatArray:
    """Elo of every row, float64[n]; from the logit of relevance where the rows hold none."""
    from_relevance = np.asarray(1500.0 + ELO_A_LOGIT * logit(np.clip(examples.labels, SMALLEST, 1.0 - SMALLEST)))
    if examples.elo is None:
        return from_relevance
    return np.where(np.isfinite(examples.elo), examples.elo, from_relevance)


def queries_of(examples: Examples) -> Iterator[slice]:
    """The rows of each query, in order."""
    if not len(examples):
        return
    starts = np.flatnonzero(np.diff(examples.query_ids, prepend=examples.query_ids[0] - 1))
    for start, end in itertools.pairwise([*starts.tolist(), len(examples)]):
        yield slice(start, end)


def with_preferences(examples: Examples) -> list[slice]:
    """The rows of the queries with at least two different Elo values. Raises NoPreferences, OneElo."""
    elo = elo_of(examples)
    several = [rows for rows in queries_of(examples) if np.isfinite(elo[rows]).sum() > 1]
    if not several:
        raise NoPreferences(
            "no training query has two scored candidates, so there is no pair with a preference; judge more pairs, or "
            "freeze a snapshot with looser filters"
        )
    found = [rows for rows in several if np.nanmax(elo[rows]) > np.nanmin(elo[rows])]
    if not found:
        raise OneElo(
            f"the candidates of every training query have one Elo, for example those of {examples.queries[several[0].start][:80]!r}; "
            "an order is needed to learn from: judge more pairs, or check that the judges do not only answer with ties"
        )
    return found


def elo_scale_of(examples: Examples, chosen: float = 0.0) -> float:
    """Elo points per unit of the target softmax; 0 chooses half of the mean standard deviation within a query."""
    if chosen > 0.0:
        return chosen
    elo = elo_of(examples)
    return max(float(np.mean([np.nanstd(elo[rows]) for rows in with_preferences(examples)])) / 2.0, 1e-3)
