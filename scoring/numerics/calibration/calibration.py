"""Cross-query calibration: one bias a query, so that strengths of different queries can be compared.

Annotators answer "is a more relevant to its query than b to its own?" for pairs along a random regular
graph over queries; with the strengths held fixed, P = F(s (theta_a + bias_p - theta_b - bias_q)) is
a problem of the same form as a query's, with queries in the place of candidates, and `votes` solves it.
The sharpness s matters where answers are hard votes: of steadier or shakier answers than F expects,
s = 1 would make biases too wide or too narrow.
`relevance` then maps strength + bias to [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from labeling.records import BoolArray, ComparisonColumns, Fit, FloatArray, IntArray
from scoring.numerics.design.static import random_regular_pairs
from scoring.numerics.fitting.comparisons import InvalidComparisons, PairMeans, aggregate_pairs
from scoring.numerics.fitting.graph import islands_of
from scoring.numerics.fitting.likelihood import log_likelihood
from scoring.numerics.fitting.uncertainty import EXACT_LIMIT
from scoring.numerics.fitting.votes import VoteTerms, fit_votes

FOLDS = 5
START_FACTOR = 0.2
MINIMUM_ANSWERS = 50
SHARPNESS_LIMITS = (0.25, 16.0)
PRECISION_LIMITS = (1e-3, 100.0)

# Beyond this many answers one held-out fifth decides as well as five.
ONE_FOLD_ANSWERS = 50_000

# Candidates between these quantiles of a query's strengths stand for it in cross-query pairs:
# asking about top documents only makes the bias worse.
MIDDLE = (0.25, 0.75)


class SameQueryPair(InvalidComparisons):
    """A cross-query pair whose candidates belong to one query."""


class UnlinkedQueries(ValueError):
    """Cross-query pairs leave disconnected groups of queries. `islands` lists them, largest first."""

    def __init__(self, islands: list[list[int]]) -> None:
        self.islands = islands
        sizes = ", ".join(str(len(island)) for island in islands[:5])
        super().__init__(
            f"queries have disconnected comparisons: {len(islands)} groups (of {sizes}"
            f"{', ...' if len(islands) > 5 else ''}) "
            f"that no cross-query pair connects, query {islands[-1][0]} in the smallest; "
            "judge pairs between the groups, or "
            "calibrate with require_connected=False and compare only within a group"
        )


@dataclass(frozen=True, slots=True)
class Biases:
    """One bias a query in the strengths' units, float64[Q], mean zero over each island.

    `stderr` float64[Q] (approximate above 1,000 queries, see `exact`); `component` int64[Q] numbers
    the connected groups of queries; `comparisons` int64[Q] counts a query's links to distinct other queries.
    `sharpness` and `prior_precision` were cross-validated, given, or left at their start (too few answers).
    """

    bias: FloatArray
    stderr: FloatArray
    exact: bool
    component: IntArray
    comparisons: IntArray
    dispersion: float
    gradient_norm: float
    iterations: int
    answers: int
    sharpness: float
    prior_precision: float

    @property
    def islands(self) -> list[list[int]]:
        """The queries of each connected group, largest first."""
        return islands_of(self.component)


def draw_cross_pairs(theta: FloatArray, starts: IntArray, per_query: int, rng: np.random.Generator) -> IntArray:
    """Pairs of candidates of different queries, int64[Q per_query, 2], as indices into theta.

    A random regular graph over queries of degree 2 per_query (all pairs of queries where there are
    too few); each end is drawn again from the middle half of its query's strengths.
    """
    queries = np.flatnonzero(np.diff(starts) > 0)
    if len(queries) < 2:
        return np.empty((0, 2), dtype=np.int64)
    edges = queries[random_regular_pairs(len(queries), 2 * per_query, rng)]
    ends = _middle_candidates(theta, starts, edges.ravel(), rng).reshape(-1, 2)
    return np.sort(ends, axis=1)


def _middle_candidates(theta: FloatArray, starts: IntArray, queries: IntArray, rng: np.random.Generator) -> IntArray:
    """A random candidate of middle strength for each entry of `queries`, as an index into theta."""
    owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    ranked = np.lexsort((theta, owner))
    sizes = np.diff(starts)[queries]
    low = np.floor(MIDDLE[0] * (sizes - 1)).astype(np.int64)
    high = np.ceil(MIDDLE[1] * (sizes - 1)).astype(np.int64)
    rank = low + np.floor(rng.random(len(queries)) * (high - low + 1)).astype(np.int64)
    return np.asarray(ranked[starts[queries] + rank])


def fit_biases(
    votes: ComparisonColumns | PairMeans,
    *,
    theta: FloatArray,
    starts: IntArray,
    model: str = "thurstone",
    sharpness: float | None = None,
    prior_precision: float | None = None,
    require_connected: bool = True,
    rng: np.random.Generator | None = None,
) -> Biases:
    """Biases of Q queries by maximum likelihood with the strengths fixed.

    `votes` is a single block whose a, b index `theta` (sizes = [len(theta)]); query q owns
    starts[q] .. starts[q + 1]. Where `sharpness` or `prior_precision` is None, both are chosen by
    cross-validated log-loss over answers. Raises UnlinkedQueries, SameQueryPair, NotConverged,
    InvalidComparisons.
    """
    pairs = votes if isinstance(votes, PairMeans) else aggregate_pairs(votes)
    links = _Links.of(pairs, theta, starts, model)
    component = links.components()
    if require_connected and component.max(initial=0) > 0:
        raise UnlinkedQueries(islands_of(component))
    if sharpness is None or prior_precision is None:
        sharpness, prior_precision = _choose(links, rng if rng is not None else np.random.default_rng(0))
    fit = links.fit(np.ones(len(links.first), dtype=np.bool_), sharpness, prior_precision, standard_errors=True)
    means = np.bincount(fit.component, fit.theta) / np.maximum(np.bincount(fit.component), 1)
    return Biases(
        bias=fit.theta - means[fit.component],
        stderr=fit.stderr,
        exact=links.queries <= EXACT_LIMIT,
        component=fit.component,
        comparisons=fit.comparisons,
        dispersion=float(fit.dispersion[0]),
        gradient_norm=float(fit.gradient_norm[0]),
        iterations=int(fit.iterations[0]),
        answers=len(links.first),
        sharpness=float(sharpness),
        prior_precision=float(prior_precision),
    )


@dataclass(frozen=True, slots=True)
class _Links:
    """Answers as links between queries: `d` is the difference of the two strengths."""

    first: IntArray
    second: IntArray
    d: FloatArray
    preference: FloatArray
    weight: FloatArray
    queries: int
    model: str

    @classmethod
    def of(cls, pairs: PairMeans, theta: FloatArray, starts: IntArray, model: str) -> _Links:
        queries = len(starts) - 1
        owner = np.repeat(np.arange(queries), np.diff(starts))
        first, second = owner[pairs.a], owner[pairs.b]
        _check_different(pairs, first, second)
        return cls(first, second, theta[pairs.a] - theta[pairs.b], pairs.preference, pairs.weight, queries, model)

    def by_what_they_say(self) -> IntArray:
        """Places in an order of the answers themselves, so that the order of storing and the sides have no say in draws."""
        turned = np.where(self.d < 0.0, 1.0 - self.preference, self.preference)
        return np.lexsort((np.round(self.weight, 9), np.round(turned, 9), np.round(np.abs(self.d), 6)))

    def components(self) -> IntArray:
        shape = (self.queries, self.queries)
        graph = coo_array((np.ones(len(self.first)), (self.first, self.second)), shape=shape)
        return np.asarray(connected_components(graph.tocsr(), directed=False)[1], dtype=np.int64)

    def fit(
        self,
        rows: BoolArray,
        sharpness: float,
        precision: float,
        *,
        tolerance: float = 1e-8,
        standard_errors: bool = False,
        start: FloatArray | None = None,
    ) -> Fit:
        """Biases from the links where `rows` is true."""
        count = int(rows.sum())
        columns = ComparisonColumns(
            a=self.first[rows],
            b=self.second[rows],
            preference=self.preference[rows],
            weight=self.weight[rows],
            judge=np.zeros(count, dtype=np.int64),
            swapped=np.zeros(count, dtype=np.bool_),
            offsets=np.array([0, count]),
            sizes=np.array([self.queries]),
        )
        terms = VoteTerms(np.full(count, sharpness), sharpness * self.d[rows], self.weight[rows])
        return fit_votes(
            columns,
            terms,
            model=self.model,
            prior_precision=precision,
            tolerance=tolerance,
            standard_errors=standard_errors,
            start=start,
        )

    def loss(self, rows: BoolArray, bias: FloatArray, sharpness: float) -> float:
        """Summed log-loss of the links where `rows` is true."""
        d = sharpness * (self.d + bias[self.first] - bias[self.second])[rows]
        return -log_likelihood(d, self.preference[rows], self.weight[rows], model=self.model)


def _choose(links: _Links, rng: np.random.Generator) -> tuple[float, float]:
    """(sharpness, prior precision) of the lowest held-out loss: downhill in factors of two from (1, 0.2 phi)."""
    everything = np.ones(len(links.first), dtype=np.bool_)
    small = links.queries <= EXACT_LIMIT
    rough = links.fit(everything, 1.0, 1.0, tolerance=1e-4, standard_errors=small)
    phi = min(float(rough.dispersion[0]), 1.0) if small else 1.0
    start = (0, round(float(np.log2(START_FACTOR * phi))))
    if len(links.first) < MINIMUM_ANSWERS:
        return 1.0, 2.0 ** start[1]
    fold = np.empty(len(links.first), dtype=np.int64)
    fold[links.by_what_they_say()] = rng.permutation(len(links.first)) % FOLDS
    hidden = [fold == k for k in range(1 if len(fold) > ONE_FOLD_ANSWERS else FOLDS)]

    def held_out(at: tuple[int, int]) -> float:
        sharpness, precision = 2.0 ** at[0], 2.0 ** at[1]
        fits = [links.fit(~rows, sharpness, precision, tolerance=1e-4, start=rough.theta).theta for rows in hidden]
        return sum(links.loss(rows, bias, sharpness) for rows, bias in zip(hidden, fits, strict=True))

    losses = {start: held_out(start)}
    while True:
        best = min(losses, key=lambda at: losses[at])
        steps = [(best[0] + i, best[1] + j) for i, j in ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, -1))]
        untried = [at for at in steps if at not in losses and _allowed(at)]
        if not untried:
            return 2.0 ** best[0], 2.0 ** best[1]
        losses[untried[0]] = held_out(untried[0])


def _allowed(at: tuple[int, int]) -> bool:
    """Whether (log2 sharpness, log2 precision) lies within the limits."""
    sharp, precise = SHARPNESS_LIMITS, PRECISION_LIMITS
    return sharp[0] <= 2.0 ** at[0] <= sharp[1] and precise[0] <= 2.0 ** at[1] <= precise[1]


def _check_different(pairs: PairMeans, first: IntArray, second: IntArray) -> None:
    same = np.flatnonzero(first == second)
    if same.size:
        row = int(same[0])
        raise SameQueryPair(
            f"pair ({pairs.a[row]}, {pairs.b[row]}) lies within query {first[row]}; expected candidates of two queries; "
            "fit pairs of one query with fit_queries"
        )
