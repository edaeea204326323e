"""The prior's precision, chosen by cross-validated log-loss over pairs, pooled over a project's queries.

Each fold hides a fifth of every query's judged pairs and predicts them from the rest, averaging over what
is unknown of the strengths: a prediction at the fitted strengths alone is too sure of itself, and makes
up for that by too strong a prior (coverage .91 instead of .95 in simulation). The search
starts at 0.2 phi, phi being the dispersion of pair means, walks downhill in factors of two, and ends
with a parabola through the best three. `scoring.rating` stores the choice with the fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from labeling.records import ComparisonColumns, FloatArray, IntArray
from scoring.numerics.fitting.comparisons import PairMeans, aggregate_pairs
from scoring.numerics.fitting.fit import fit_queries
from scoring.numerics.fitting.likelihood import AVERAGING, LOGIT_SCALES, log_probability

FOLDS = 5
MINIMUM_PAIRS = 50
START_FACTOR = 0.2
LIMITS = (1e-4, 1e3)

# Log-loss by pair changes little beyond this many pairs; a project of millions is sampled by query.
MAXIMUM_PAIRS = 200_000

_TOLERANCE = 1e-5

# Predictions average over errors of strengths; approximate ones will do, but for small dense graphs.
_EXACT_UP_TO = 30


@dataclass(frozen=True, slots=True)
class PriorChoice:
    """The chosen precision, and the losses that it was chosen by.

    `prior_precision` in the model's units; `grid` float64[k] ascending precisions that were tried and
    `losses` float64[k] their mean log-loss a unit of weight on hidden pairs; `dispersion` phi; `pairs`
    how many pairs took part. `cross_validated` is False where there were too few of them: then the
    precision is the starting value 0.2 phi, and grid and losses are empty.
    """

    model: str
    prior_precision: float
    grid: FloatArray
    losses: FloatArray
    dispersion: float
    pairs: int
    folds: int
    cross_validated: bool


def choose_prior(
    columns: ComparisonColumns | PairMeans,
    *,
    model: str = "thurstone",
    folds: int = FOLDS,
    rng: np.random.Generator | None = None,
    threads: int | None = None,
) -> PriorChoice:
    """The precision that predicts hidden pairs best. `rng` draws folds; None seeds it with 0."""
    rng = rng if rng is not None else np.random.default_rng(0)
    pairs = columns if isinstance(columns, PairMeans) else aggregate_pairs(columns)
    pairs = _sample(pairs, rng)
    dispersion = _dispersion(pairs, model, threads)
    start = float(np.clip(START_FACTOR * dispersion, *LIMITS))
    if len(pairs.a) < MINIMUM_PAIRS:
        return PriorChoice(model, start, np.empty(0), np.empty(0), dispersion, len(pairs.a), folds, False)
    parts = _split(pairs, folds, rng)
    losses = {start: held_out_loss(parts, model=model, prior_precision=start, threads=threads)}
    while (following := _next_precision(losses)) is not None:
        losses[following] = held_out_loss(parts, model=model, prior_precision=following, threads=threads)
    grid = np.array(sorted(losses))
    values = np.array([losses[precision] for precision in grid])
    return PriorChoice(model, _parabola(grid, values), grid, values, dispersion, len(pairs.a), folds, True)


def held_out_loss(
    parts: list[tuple[PairMeans, PairMeans]], *, model: str, prior_precision: float, threads: int | None = None
) -> float:
    """Mean log-loss a unit of weight of hidden pairs; `parts` lists (shown, hidden) pairs of each fold."""
    loss = weight = 0.0
    for shown, hidden in parts:
        fit = fit_queries(
            shown,
            model=model,
            prior_precision=prior_precision,
            tolerance=_TOLERANCE,
            threads=threads,
            exact_up_to=_EXACT_UP_TO,
        )
        shift = np.repeat(fit.starts[:-1], np.diff(hidden.offsets))
        a, b = hidden.a + shift, hidden.b + shift
        variance = fit.stderr[a] ** 2 + fit.stderr[b] ** 2
        d = (fit.theta[a] - fit.theta[b]) / np.sqrt(1.0 + AVERAGING[model] * variance)
        wins = hidden.preference * log_probability(d, model=model)
        loss -= float(hidden.weight @ (wins + (1.0 - hidden.preference) * log_probability(-d, model=model)))
        weight += float(hidden.weight.sum())
    return loss / weight


def _sample(pairs: PairMeans, rng: np.random.Generator) -> PairMeans:
    """Whole queries, drawn at random until they hold MAXIMUM_PAIRS."""
    if len(pairs.a) <= MAXIMUM_PAIRS:
        return pairs
    order = rng.permutation(pairs.queries)
    counts = np.diff(pairs.offsets)[order]
    chosen = np.sort(order[: max(1, int(np.searchsorted(np.cumsum(counts), MAXIMUM_PAIRS)))])
    rows = np.isin(np.repeat(np.arange(pairs.queries), np.diff(pairs.offsets)), chosen)
    return _subset(pairs, rows, chosen)


def _subset(pairs: PairMeans, rows: np.ndarray, queries: IntArray | None = None) -> PairMeans:
    """The pairs where `rows` is true, of all queries or of some."""
    owner = np.repeat(np.arange(pairs.queries), np.diff(pairs.offsets))[rows]
    counts = np.bincount(owner, minlength=pairs.queries)
    counts = counts if queries is None else counts[queries]
    return PairMeans(
        a=pairs.a[rows],
        b=pairs.b[rows],
        preference=pairs.preference[rows],
        weight=pairs.weight[rows],
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        sizes=pairs.sizes if queries is None else pairs.sizes[queries],
    )


def _split(pairs: PairMeans, folds: int, rng: np.random.Generator) -> list[tuple[PairMeans, PairMeans]]:
    """(shown, hidden) of each fold; every query's pairs are dealt out evenly."""
    owner = np.repeat(np.arange(pairs.queries), np.diff(pairs.offsets))
    shuffled = np.lexsort((rng.random(len(owner)), owner))
    fold = np.empty(len(owner), dtype=np.int64)
    fold[shuffled] = np.arange(len(owner)) % folds
    return [(_subset(pairs, fold != k), _subset(pairs, fold == k)) for k in range(folds)]


def _dispersion(pairs: PairMeans, model: str, threads: int | None) -> float:
    """phi pooled over queries: the mean of their dispersions by number of pairs."""
    counts = np.diff(pairs.offsets)
    if not counts.sum():
        return 1.0
    precision = 0.02 * LOGIT_SCALES[model] ** 2
    fit = fit_queries(pairs, model=model, prior_precision=precision, tolerance=_TOLERANCE, threads=threads)
    return float(np.average(fit.dispersion, weights=counts))


def _next_precision(losses: dict[float, float]) -> float | None:
    """Twice or half the best precision so far, whichever is still untried and allowed; None to stop."""
    best = min(losses, key=lambda precision: losses[precision])
    for neighbour in (best * 2.0, best / 2.0):
        untried = all(abs(math.log(neighbour / tried)) > 0.01 for tried in losses)
        if untried and LIMITS[0] <= neighbour <= LIMITS[1]:
            return neighbour
    return None


def _parabola(grid: FloatArray, losses: FloatArray) -> float:
    """The minimum, in log precision, of the parabola through the best point and its neighbours."""
    best = int(np.argmin(losses))
    if best in (0, len(grid) - 1):
        return float(grid[best])
    x, y = np.log(grid[best - 1 : best + 2]), losses[best - 1 : best + 2]
    curvature, slope, _ = np.polyfit(x - x[1], y, 2)
    if not curvature > 0.0:
        return float(grid[best])
    return float(np.exp(x[1] + np.clip(-slope / (2.0 * curvature), x[0] - x[1], x[2] - x[1])))
