"""Detects whether a judge has become worse on pairs with known answers: a CUSUM over its errors.

Pure. `workers.judging.drift` feeds it a judge's gold answers in the order in which they came, and pauses the judge
on an alarm. Page (1954): `watch` in the likelihood-ratio form for a Bernoulli error rate, `watch_queries` for the
mean errors of whole queries. A run asks query after query, and some queries are hard: answers of one query are
no independent draws, so that over several queries only the query is a unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labeling.records import FloatArray, IntArray

BASELINE = 50
RISE = 0.2
# By simulation: below 1 % false alarms in 1,000 answers of a judge that stays as good as it was.
THRESHOLD = 9.0

BASELINE_QUERIES = 20
ALLOWANCE = 0.25
# Chosen by simulation (mean errors of queries from a beta distribution of concentration 4, 500 queries): no false alarm
# in 3 x 400 runs; a fall from 80 % to 45 % is found in 96 %, after 20 queries in the median. How much real queries differ
# was not measured.
QUERY_THRESHOLD = 15.0
LEAST_DEVIATION = 0.5


@dataclass(frozen=True, slots=True)
class Drift:
    """`baseline` is the error rate of the first answers (or queries), `recent` that since the statistic last left
    zero, over `since` of them; `statistic` float64[n] runs over all; `alarm` is the index that raised it above
    `threshold`, `unit` what is counted.
    """

    baseline: float
    recent: float
    since: int
    statistic: FloatArray
    alarm: int | None
    threshold: float
    unit: str


def watch_errors(errors: FloatArray, query: IntArray) -> Drift | None:
    """Watch answers of a single query one by one, and those of several queries query by query.

    `errors` float64[n]: 0 right, 1 wrong, 0.5 a tie, oldest first; `query` int64[n] whose answer it is.
    """
    _, first, owner = np.unique(query, return_index=True, return_inverse=True)
    if len(first) <= 1:
        return watch(errors)
    means = np.bincount(owner, weights=errors) / np.bincount(owner)
    return watch_queries(means[np.argsort(first)])


def watch_queries(
    means: FloatArray, *, baseline: int = BASELINE_QUERIES, threshold: float = QUERY_THRESHOLD
) -> Drift | None:
    """Look for a lasting rise of the mean error of queries, float64[n] in [0, 1], oldest first.

    Each is measured in standard deviations of the first `baseline` ones. None while there are no more than these.
    """
    if len(means) <= baseline:
        return None
    start = means[:baseline]
    rate = float((start.sum() + 1.0) / (baseline + 2.0))
    # A lucky start underestimates the deviation, so it is at least a share of the largest possible one.
    deviation = max(float(start.std(ddof=1)), LEAST_DEVIATION * float(np.sqrt(rate * (1.0 - rate))))
    # Both mean and deviation are estimates: two and a half standard errors above is still usual.
    usual = rate + 2.5 * deviation / float(np.sqrt(baseline))
    return _accumulate(means, (means - usual) / deviation - ALLOWANCE, baseline, threshold, unit="queries")


def watch(
    errors: FloatArray, *, baseline: int = BASELINE, rise: float = RISE, threshold: float = THRESHOLD
) -> Drift | None:
    """Look for a lasting rise of the error rate by about `rise` over that of the first `baseline` answers.

    `errors` float64[n]: 0 right, 1 wrong, 0.5 a tie, oldest first. None while there is no baseline yet.
    """
    if len(errors) <= baseline:
        return None
    start = errors[:baseline]
    rate = float((start.sum() + 1.0) / (baseline + 2.0))
    # The start may have been lucky: one and a half standard errors above it are still no rise.
    usual = min(rate + 1.5 * float(np.sqrt(rate * (1.0 - rate) / baseline)), 0.75)
    worse = min(usual + rise, 0.98)
    gain, loss = np.log(worse / usual), np.log((1.0 - worse) / (1.0 - usual))
    steps = errors * gain + (1.0 - errors) * loss
    return _accumulate(errors, steps, baseline, threshold, unit="answers")


def _accumulate(values: FloatArray, steps: FloatArray, baseline: int, threshold: float, *, unit: str) -> Drift:
    """Sum the steps behind the baseline, never below zero, until they pass the threshold."""
    statistic = np.zeros(len(values))
    since, alarm = baseline, None
    for place in range(baseline, len(values)):
        statistic[place] = max(0.0, statistic[place - 1] + steps[place])
        if statistic[place] == 0.0:
            since = place + 1
        elif statistic[place] >= threshold:
            alarm = place
            break
    recent = values[since : len(values) if alarm is None else alarm + 1]
    start = float(values[:baseline].mean())
    return Drift(
        baseline=start,
        recent=float(recent.mean()) if len(recent) else start,
        since=len(recent),
        statistic=statistic,
        alarm=alarm,
        threshold=threshold,
        unit=unit,
    )
