"""The position bias of each judge that fits may take out of its answers.

P(a is preferred) = F(theta_a - theta_b + c), c of the sign of the side on which a was shown. With sides drawn at random, c cannot be
mistaken for a difference of documents, so no reference is needed. Imported answers may have been asked with the better document
first; their sides then correlate with the strengths, and nothing is taken out. Imports no Django.
"""

from __future__ import annotations

import numpy as np

from labeling.records import BoolArray, ComparisonColumns, FloatArray
from scoring.numerics.judges.judges import JudgeAwareFit

LEAST_VOTES = 100
LEAST_SHARE = 0.2  # of a judge's answers, with either side first
SURE = 2.0  # standard errors of a bias that counts
# The correlation of side and difference of strengths up to which sides count as random, and its standard errors by chance.
MOST_CORRELATION, BY_CHANCE = 0.1, 3.0


def removable_biases(columns: ComparisonColumns, found: JudgeAwareFit) -> dict[int, float]:
    """Position bias in units of theta by judge number, of judges whose bias is sure and whose sides were random.

    `found` is the fit of these columns without anchors.
    """
    judges = found.judges
    biases = zip(judges.judge.tolist(), judges.position_bias, judges.position_bias_stderr, strict=True)
    return {
        judge: float(bias)
        for judge, bias, stderr in biases
        if abs(bias) > SURE * stderr and _sides_are_random(columns, found.apart, columns.judge == judge)
    }


def _sides_are_random(columns: ComparisonColumns, apart: FloatArray, mine: BoolArray) -> bool:
    """`apart` is without the vote at hand, which a bias pulls towards its side."""
    count = int(mine.sum())
    if count < LEAST_VOTES:
        return False
    side = np.where(columns.swapped[mine], -1.0, 1.0)
    if abs(side.mean()) > 1.0 - 2.0 * LEAST_SHARE:
        return False
    width = float(np.sqrt(np.mean(apart[mine] ** 2)))
    correlation = float(np.mean((side - side.mean()) * apart[mine])) / max(width, 1e-12)
    return abs(correlation) <= max(MOST_CORRELATION, BY_CHANCE / np.sqrt(count))
