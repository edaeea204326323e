"""A round of the sampler `adaptive`: pairs whose answers may change the top, then pairs for the whole order.

The first part asks what one answer, or a few, on a pair are expected to add to the strengths of the best documents (a knowledge
gradient). Alone it leaves the rest of the order to chance. The second part shrinks the posterior variance that weighs
documents by what they matter for the top (`adaptive.choose_pairs`), given that the first part is answered.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from labeling.records import FloatArray, IntArray, QueryState
from scoring.numerics.design import kernels, static
from scoring.numerics.design.adaptive import ChosenPairs, Posterior, choose_pairs, top_importance, working_posterior

CONTENDERS = 50  # the documents that may be among the best
LONGEST_TOP = 30
AHEAD = np.array([1.0, 4.0])  # answers on one pair
PICKS_AT_ONCE, LOOKS = 5, 4  # between two looks; looks of a large round
MOST_PICKS = 3  # of one document in a round


def choose_round(
    posterior: Posterior, drawn: IntArray, count: int, importance: FloatArray, *, top: int = 10, top_share: float = 0.5
) -> ChosenPairs:
    """Up to `count` pairs not in `drawn`: `top_share` of them for the best `top`, the others as `choose_pairs` does.

    A top longer than LONGEST_TOP has no pairs of its own. One answer of weight 1 is expected for each pair.
    """
    own = round(top_share * static.check_budget(count)) if top <= LONGEST_TOP else 0
    first = _for_top(posterior, drawn, own, importance, top=top)
    drawn = np.concatenate([static.check_pairs(posterior.size, drawn), first.pairs])
    rest = choose_pairs(replace(posterior, covariance=first.covariance), drawn, count - len(first.pairs), importance)
    left = 1.0 - float(first.shrinkage.sum())
    return ChosenPairs(
        np.concatenate([first.pairs, rest.pairs]),
        np.concatenate([first.shrinkage, left * rest.shrinkage]),
        rest.covariance,
    )


def _for_top(posterior: Posterior, drawn: IntArray, count: int, importance: FloatArray, *, top: int) -> ChosenPairs:
    """Up to `count` pairs that are expected to raise the best `top` most, as long as one does."""
    theta, covariance, phi = posterior.theta, posterior.covariance.copy(), posterior.dispersion
    expected = kernels.expected_curvature(theta, covariance, phi, posterior.slope)
    contenders = _contenders(posterior, top)
    discount = 1.0 / np.log2(np.arange(min(top, len(contenders))) + 2.0)
    among = np.sort(contenders[static.all_pairs(len(contenders))], axis=1)
    free = static.without(posterior.size, among, static.check_pairs(posterior.size, drawn))
    before = float(np.sum(importance * covariance))
    picks = np.zeros(posterior.size, dtype=np.int64)
    chosen: list[tuple[int, int]] = []
    shrinkage: list[float] = []
    at_once = max(PICKS_AT_ONCE, -(-count // LOOKS))
    is_rising = True
    while is_rising and len(chosen) < count:
        rise = kernels.rise_of_top(free, contenders, theta, covariance, phi, expected, discount, AHEAD)
        found = _best(free, rise, picks, min(at_once, count - len(chosen)))
        for i, j in found:
            u = covariance[:, i] - covariance[:, j]
            part = expected[i, j] / (1.0 + expected[i, j] * (u[i] - u[j]))
            shrinkage.append(part * float(u @ importance @ u) / before)
            covariance -= part * np.outer(u, u)
        chosen += found
        free = static.without(posterior.size, free, static.check_pairs(posterior.size, np.array(found)))
        is_rising = bool(found)
    return ChosenPairs(np.array(chosen, dtype=np.int64).reshape(-1, 2), np.array(shrinkage), covariance)


def _contenders(posterior: Posterior, top: int) -> IntArray:
    """The documents that may be among the best `top`, best first, int64[c]."""
    hopes = posterior.theta + np.sqrt(posterior.dispersion * np.diag(posterior.covariance))
    found = np.argsort(-hopes, kind="stable")[: max(CONTENDERS, 2 * top)]
    return found[np.argsort(-posterior.theta[found], kind="stable")]


def _best(free: IntArray, rise: FloatArray, picks: IntArray, count: int) -> list[tuple[int, int]]:
    """Up to `count` free pairs in order of their rise, MOST_PICKS of a document; `picks` counts on."""
    found: list[tuple[int, int]] = []
    for row in np.argsort(-rise, kind="stable").tolist():
        if rise[row] <= 0.0 or len(found) == count:
            break
        i, j = free[row].tolist()
        if picks[i] < MOST_PICKS and picks[j] < MOST_PICKS:
            found.append((i, j))
            picks[[i, j]] += 1
    return found


def compile_kernels() -> None:
    """Compile (or load from numba's cache) all that a round needs, so that no first round waits."""
    pairs = np.array([[0, 1], [1, 2], [0, 3]], dtype=np.int64)
    state = QueryState(
        size=4,
        pairs=pairs,
        first_stage_rank=np.zeros(4, dtype=np.int64),
        theta=np.zeros(4),
        preference=np.array([0.5, 0.5, np.nan]),
        weight=np.array([1.0, 1.0, 0.0]),
    )
    posterior = working_posterior(state)
    choose_round(posterior, pairs, 2, top_importance(posterior, np.random.default_rng(0)))
