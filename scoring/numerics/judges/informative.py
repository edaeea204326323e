"""Allocation `informative`: each pair goes to the judge, in the order, with the largest expected gain per dollar.

A candidate's strength is seen through each judge j as theta + u_j: the errors u that judge j makes on the
candidate, whomever it meets, have covariance `shared` over judges. An answer of judge j on a pair tells of the difference
with precision s_j^2 h(s_j d) / phi_j. Its position bias adds an error where one side was shown first more often. The gain
of a question is what it adds to the precision of the two strengths: as much for the first dollar as for the last one where
judges err independently, and less for a judge the more often it, or one that errs like it, has seen a candidate.
`shared_errors` measures the covariance from votes; `judges` measures the rest. Pure: arrays in, arrays out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from labeling.records import BoolArray, ComparisonColumns, FloatArray, IntArray

LEAST_VOTES = 30
"""A judge with fewer votes is not measured: it is asked in turn, the less often the more it costs."""

WORST_STDERR = 0.9
"""The same for a judge whose sharpness is known no better than this: its votes have taught nothing beyond the prior."""

PILOT_VOTES = 400
"""Before the other queries begin, some are asked until each judge has about so many votes: by then it can be measured."""

PILOT_STDERR = 0.25
"""The sharpness of each judge is known so well, or better, when the other queries begin."""

PILOT_ROUNDS = 4
"""So many rounds are kept to those queries at most: a judge that never answers must not hold up the rest."""

STANDARD_ERRORS = 2.0
"""By so many standard errors an estimate of shared errors is moved towards 0."""

CHEAPEST = 0.01
"""The least price of a judge, as a share of the dearest one's: a question takes time even where it costs nothing."""


@dataclass(frozen=True, slots=True)
class PanelTerms:
    """Measured terms of the J judges of a run.

    `sharpness`, `sharpness_stderr`, `position_bias`, `dispersion` float64[J] as measured by `judges.fit_with_judges`;
    `votes` int64[J] that they rest on; `price` float64[J] of one answer in any currency; `shared` float64[J, J] the
    covariance of their errors on a candidate, in units of strength; `slope` the logits of such a unit;
    `spread` the variance of strengths within a query; `without_bias`: the fits leave the position biases out of the answers.
    """

    sharpness: FloatArray
    sharpness_stderr: FloatArray
    position_bias: FloatArray
    dispersion: FloatArray
    votes: IntArray
    price: FloatArray
    shared: FloatArray
    slope: float = 1.0
    spread: float = 1.0
    without_bias: bool = False

    @property
    def judges(self) -> int:
        return len(self.price)

    @property
    def is_measured(self) -> bool:
        """Whether every judge is known well enough to be chosen by what is known of it."""
        return bool((self.votes >= LEAST_VOTES).all() and (self.sharpness_stderr <= WORST_STDERR).all())

    @property
    def likely_sharpness(self) -> FloatArray:
        """One standard error above the estimate: what is little known is worth a look. Never below 0."""
        return np.maximum(self.sharpness + self.sharpness_stderr, 0.0)

    @property
    def effective_price(self) -> FloatArray:
        """Prices with a floor, scaled to a maximum of 1; all 1 where all are free."""
        dearest = float(self.price.max(initial=0.0))
        if dearest <= 0.0:
            return np.ones(self.judges)
        return np.maximum(self.price / dearest, CHEAPEST)


@dataclass(frozen=True, slots=True)
class SeenCandidates:
    """Earlier questions to judges about n candidates, answered or not.

    `theta` float64[n], NaN without a score; `votes` int64[n, J]; `first` int64[n, J]: how much more often the candidate was
    shown first than second.
    """

    theta: FloatArray
    votes: IntArray
    first: IntArray

    @classmethod
    def none(cls, size: int, judges: int) -> SeenCandidates:
        """Nobody was asked anything."""
        return cls(np.full(size, np.nan), *(np.zeros((size, judges), dtype=np.int64) for _ in range(2)))


def choose_judges(
    pairs: IntArray,
    seen: SeenCandidates,
    panel: PanelTerms,
    rng: np.random.Generator,
    *,
    able: BoolArray | None = None,
) -> tuple[IntArray, IntArray, BoolArray]:
    """(pair int64[t], judge int64[t], swapped bool[t]): which judge is asked about which row of `pairs`, in which order.

    `pairs` int64[m, 2]: rows of `seen`. `able` bool[m, J], None for all: who can answer what; a pair that nobody can answer
    gets no question. While a judge is not measured, the pairs go round: each judge in proportion to one over the root of its
    price, which measures all of them best for the money, and often enough to be measured. Ties are broken at random.
    """
    can = np.ones((len(pairs), panel.judges), dtype=np.bool_) if able is None else np.asarray(able, dtype=np.bool_)
    rows = np.flatnonzero(can.any(axis=1))
    ends = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)[rows]
    d = np.nan_to_num(seen.theta[ends[:, 0]] - seen.theta[ends[:, 1]])
    judge, swapped = _choose(
        np.ascontiguousarray(ends[:, 0]),
        np.ascontiguousarray(ends[:, 1]),
        can[rows],
        _information(panel, d),
        _remaining_bias(panel),
        panel.effective_price,
        panel.spread + np.asarray(panel.shared, dtype=np.float64),
        float(panel.spread),
        seen.votes.astype(np.float64),
        seen.first.astype(np.float64),
        np.zeros(0) if panel.is_measured else _turns(panel, len(rows)),
        rng.random((len(rows), panel.judges, 2)),
    )
    return rows.astype(np.int64), judge, swapped


def pilot_queries(panel: PanelTerms, sizes: IntArray) -> int:
    """The number of queries, of `sizes` int64[Q] candidates, on which the judges are measured before the others begin.

    Until judges are measured, all of them are asked, whatever they cost, so this part should be no larger than the measurement
    needs. A round of one pair for each candidate is reckoned with. All, where the judges are measured.
    """
    known = panel.is_measured and bool((panel.sharpness_stderr <= PILOT_STDERR).all())
    if known or panel.judges < 2:
        return len(sizes)
    share = panel.effective_price**-0.5
    needed = PILOT_VOTES * share.sum() / share.min()
    return min(int(np.searchsorted(np.cumsum(sizes), needed)) + 1, len(sizes))


def _information(panel: PanelTerms, d: FloatArray) -> FloatArray:
    """The precision with which an answer of each judge on each pair tells of the difference, float64[m, J].

    In fits that do not know the position bias it flattens the curve of the mean over both orders.
    """
    reach = panel.slope * panel.likely_sharpness
    middle = reach[None, :] * d[:, None]
    first, second = (_expit(middle + sign * panel.slope * panel.position_bias) for sign in (1.0, -1.0))
    if panel.without_bias:
        known = 0.5 * (first * (1.0 - first) + second * (1.0 - second))
        return np.asarray(reach**2 * known / np.maximum(panel.dispersion, 1e-3))
    mean = 0.5 * (first + second)
    rise = 0.5 * (first * (1.0 - first) + second * (1.0 - second))
    return np.asarray(reach**2 * rise**2 / np.maximum(mean * (1.0 - mean), 1e-12) / np.maximum(panel.dispersion, 1e-3))


def _remaining_bias(panel: PanelTerms) -> FloatArray:
    """The position biases in units of strength that stay in the answers, float64[J]."""
    if panel.without_bias:
        return np.zeros(panel.judges)
    return np.asarray(panel.position_bias / np.maximum(panel.likely_sharpness, 0.25))


def _expit(x: FloatArray) -> FloatArray:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -30.0, 30.0))))


def _turns(panel: PanelTerms, count: int) -> FloatArray:
    """The share of `count` questions for each judge while judges are being measured, float64[J]."""
    missing = np.maximum(LEAST_VOTES - panel.votes, 0).astype(np.float64)
    share = panel.effective_price**-0.5
    quota = np.maximum(share / share.sum() * count, missing) + 1e-9
    return np.asarray(quota / quota.sum())


@numba.njit(cache=True)
def _choose(
    a: IntArray,
    b: IntArray,
    can: BoolArray,
    information: FloatArray,
    bias: FloatArray,
    price: FloatArray,
    prior: FloatArray,
    spread: float,
    votes: FloatArray,
    first: FloatArray,
    turns: FloatArray,
    ties: FloatArray,
) -> tuple[IntArray, BoolArray]:
    """The greedy choice, pair after pair; `votes` and `first` grow with it. `turns`: shares of the judges, or empty."""
    judges = len(price)
    typical = np.zeros(judges)
    for j in range(judges):
        typical[j] = information[:, j].mean() if len(a) else 0.0
    given = np.zeros(judges)
    chosen = np.empty(len(a), dtype=np.int64)
    swapped = np.empty(len(a), dtype=np.bool_)
    for row in range(len(a)):
        i, k = a[row], b[row]
        left_i, mean_i, own_i = _posterior(votes[i], first[i], typical, bias, prior, spread)
        left_k, mean_k, own_k = _posterior(votes[k], first[k], typical, bias, prior, spread)
        best, least, who, side = -1e300, 1e300, -1, False
        for j in range(judges):
            if not can[row, j]:
                continue
            for turn in range(2):
                x = 1.0 if turn == 0 else -1.0
                gain = _gain(left_i, mean_i[j], own_i[j], votes[i, j], first[i, j], x, information[row, j], bias[j])
                gain += _gain(left_k, mean_k[j], own_k[j], votes[k, j], first[k, j], -x, information[row, j], bias[j])
                worth = gain / price[j] if gain > 0.0 else gain
                worth += 1e-9 * ties[row, j, turn] * (abs(worth) + 1e-12)
                place = 0.0
                if len(turns):
                    place = (given[j] + 1.0) / turns[j]
                    worth = -((first[i, j] + x) ** 2) - (first[k, j] - x) ** 2 + 1e-6 * ties[row, j, turn]
                if place < least - 1e-12 or (place <= least + 1e-12 and worth > best):
                    best, least, who, side = worth, min(place, least), j, turn == 1
        chosen[row], swapped[row] = who, side
        x = -1.0 if side else 1.0
        given[who] += 1.0
        votes[i, who] += 1.0
        votes[k, who] += 1.0
        first[i, who] += x
        first[k, who] -= x
    return chosen, swapped


@numba.njit(cache=True)
def _precision(votes: float, first: float, information: float, bias: float) -> float:
    """The precision that this many answers of one judge give to theta + u; the bias counts where the sides are out of balance."""
    if votes <= 0.0 or information <= 0.0:
        return 0.0
    return 1.0 / (1.0 / (votes * information) + (bias * first / votes) ** 2)


@numba.njit(cache=True)
def _posterior(
    votes: FloatArray, first: FloatArray, information: FloatArray, bias: FloatArray, prior: FloatArray, spread: float
) -> tuple[float, FloatArray, FloatArray]:
    """Posterior variance of theta, its covariance with each theta + u_j, and the variances of the latter."""
    judges = len(votes)
    known = np.zeros(judges)
    seen = False
    for j in range(judges):
        known[j] = _precision(votes[j], first[j], information[j], bias[j])
        seen = seen or known[j] > 0.0
    left, mean, own = spread, np.full(judges, spread), np.empty(judges)
    for j in range(judges):
        own[j] = prior[j, j]
    if seen:
        system = np.eye(judges)
        for j in range(judges):
            system[j] += known[j] * prior[j]
        inverse = np.linalg.inv(system)
        both = prior @ inverse
        for j in range(judges):
            mean[j] = spread * inverse[:, j].sum()
            own[j] = both[j, j]
        for j in range(judges):
            left -= spread * mean[j] * known[j]
    return max(left, 1e-9), mean, own


@numba.njit(cache=True)
def _gain(
    left: float, mean: float, own: float, votes: float, first: float, x: float, information: float, bias: float
) -> float:
    """The precision that one more answer adds to a strength with variance `left`, times `left` squared."""
    more = _precision(votes + 1.0, first + x, information, bias) - _precision(votes, first, information, bias)
    fall = mean * mean * more / max(1.0 + more * own, 1e-6)
    return left * fall / max(left - fall, 1e-9)


def shared_errors(
    columns: ComparisonColumns,
    theta: FloatArray,
    *,
    judges: int,
    sharpness: FloatArray,
    position_bias: FloatArray,
    dispersion: FloatArray,
    slope: float,
) -> FloatArray:
    """Covariance over judges of the errors that they make on a candidate in all of its pairs, float64[judges, judges].

    `theta` float64: the strengths of all candidates, query after query, fitted on these votes with the judges' sharpness and
    bias: a plain fit would make a sharp judge's errors seem to grow with the strengths. By the method of moments:
    two votes on one candidate with different opponents have only the candidate's error in common. An estimate within two
    standard errors of 0 is 0. Fitting takes the mean over judges out of the errors, which changes no choice between judges.
    """
    shift = np.repeat(np.cumsum(columns.sizes) - columns.sizes, np.diff(columns.offsets))
    a, b, j = columns.a + shift, columns.b + shift, columns.judge
    reach = slope * np.where(np.abs(sharpness) < 0.1, 0.1, sharpness)[j]
    side = np.where(columns.swapped, -1.0, 1.0)
    p = _expit(reach * (theta[a] - theta[b]) + slope * position_bias[j] * side)
    weight = columns.weight * reach**2 * p * (1.0 - p) / np.maximum(dispersion, 1e-3)[j]
    pull = columns.weight * reach * (columns.preference - p) / np.maximum(dispersion, 1e-3)[j]
    size = int(columns.sizes.sum())
    total, count, squares, own = (np.zeros((size, judges)) for _ in range(4))
    for end, sign in ((a, 1.0), (b, -1.0)):
        for table, values in ((total, sign * pull), (count, weight), (squares, pull**2), (own, weight**2)):
            np.add.at(table, (end, j), values)
    found = np.zeros((judges, judges))
    for one in range(judges):
        for other in range(one + 1):
            products = total[:, one] * total[:, other]
            weights = count[:, one] * count[:, other]
            if one == other:
                products, weights = products - squares[:, one], weights - own[:, one]
            if weights.sum() > 0.0:
                value = products.sum() / weights.sum()
                error = np.sqrt(((products - value * weights) ** 2).sum()) / weights.sum()
                found[one, other] = found[other, one] = np.sign(value) * max(abs(value) - STANDARD_ERRORS * error, 0.0)
    values, vectors = np.linalg.eigh(found)
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)
