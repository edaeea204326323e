"""Whether a faster form of a reranker keeps the order: the comparison that a form must pass before it is served.

Pure: logits of the same lists in, figures out. `trainer.serving.forms.choice` computes the logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labeling.records import FloatArray

LEAST_TAU = 0.999
LEAST_SAME_TOP = 0.99
TOP = 10
# The largest difference of a logit that is accepted: .0125 in the score at most.
MOST_DIFFERENCE = 0.05


@dataclass(frozen=True, slots=True)
class Agreement:
    """The agreement of a form with float32 on `lists` lists.

    `kendall_tau`: mean over lists; `same_top_ten`: share of lists whose first ten are the same documents;
    `largest_difference`: in logits, over all documents.
    """

    lists: int
    kendall_tau: float
    same_top_ten: float
    largest_difference: float

    def problem(self) -> str:
        """Why the form fails, or an empty text."""
        found = []
        if not self.kendall_tau >= LEAST_TAU:
            found.append(f"Kendall's tau is {self.kendall_tau:.5f}, expected at least {LEAST_TAU}")
        if not self.same_top_ten >= LEAST_SAME_TOP:
            found.append(
                f"the first ten are the same on {self.same_top_ten:.1%} of lists, expected {LEAST_SAME_TOP:.0%}"
            )
        if not self.largest_difference <= MOST_DIFFERENCE:
            found.append(f"a logit differs by {self.largest_difference:.3g}, expected at most {MOST_DIFFERENCE}")
        return "; ".join(found)


def agreement(exact: Sequence[FloatArray], found: Sequence[FloatArray]) -> Agreement:
    """Compare the logits of each list, float[documents], with those of float32."""
    if not exact:
        return Agreement(0, 1.0, 1.0, 0.0)
    pairs = list(zip(exact, found, strict=True))
    return Agreement(
        lists=len(pairs),
        kendall_tau=float(np.mean([kendall_tau(a, b) for a, b in pairs])),
        same_top_ten=float(np.mean([set(_first(a)) == set(_first(b)) for a, b in pairs])),
        largest_difference=float(max((np.abs(a - b).max(initial=0.0) for a, b in pairs), default=0.0)),
    )


def kendall_tau(exact: FloatArray, found: FloatArray) -> float:
    """Pairs of documents in the same order minus pairs in the other, as a share of all; equal logits of `exact` do not count."""
    rows, columns = np.triu_indices(len(exact), k=1)
    signs = np.sign(exact[rows] - exact[columns])
    counted = signs != 0
    if not counted.any():
        return 1.0
    return float(np.mean(signs[counted] * np.sign(found[rows] - found[columns])[counted]))


def _first(logits: FloatArray) -> list[int]:
    """The indices of the first ten documents, equal logits by index."""
    found: list[int] = np.argsort(-logits, kind="stable")[:TOP].tolist()
    return found
