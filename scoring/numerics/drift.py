"""Whether a judge has become worse on pairs whose answer is known: a CUSUM over its errors.

Pure. `workers.judge_watch` feeds it a judge's gold answers in the order in which they came, and pauses the judge
on an alarm. Page (1954), in the likelihood-ratio form for a Bernoulli error rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labeling.records import FloatArray

BASELINE = 50
RISE = 0.2
# By simulation: below 1 % false alarms in 1,000 answers of a judge that stays as good as it was.
THRESHOLD = 9.0


@dataclass(frozen=True, slots=True)
class Drift:
    """`baseline` is the error rate of the first answers, `recent` that since the statistic last left zero, over
    `since` answers; `statistic` float64[n] runs over all answers; `alarm` is the index of the answer that raised it.
    """

    baseline: float
    recent: float
    since: int
    statistic: FloatArray
    alarm: int | None


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
    statistic = np.zeros(len(errors))
    since, alarm = baseline, None
    for place in range(baseline, len(errors)):
        step = errors[place] * gain + (1.0 - errors[place]) * loss
        statistic[place] = max(0.0, statistic[place - 1] + step)
        if statistic[place] == 0.0:
            since = place + 1
        elif statistic[place] >= threshold:
            alarm = place
            break
    recent = errors[since : len(errors) if alarm is None else alarm + 1]
    return Drift(
        baseline=float(start.mean()),
        recent=float(recent.mean()) if len(recent) else float(start.mean()),
        since=len(recent),
        statistic=statistic,
        alarm=alarm,
    )
