"""Strengths of many queries by penalised maximum likelihood: the entry point of the numerics.

`fit_queries` takes votes (or pair means), solves every query on all cores and returns a
`labeling.records.Fit` with standard errors, islands and flags. `newton` solves, `uncertainty` gives
the errors, `graph` the islands; `scoring.raters` wraps this for the plugin registry.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from labeling.records import ComparisonColumns, Fit, FloatArray, IntArray
from scoring.numerics.fitting import newton, uncertainty
from scoring.numerics.fitting.comparisons import PairMeans, aggregate_pairs, votes_of_query
from scoring.numerics.fitting.graph import describe_graph, islands_of, unbounded_queries
from scoring.numerics.fitting.likelihood import LOGIT_SCALES, MODEL_CODES, model_code

_BLOCK_PAIRS = 20_000


class NotConverged(RuntimeError):
    """The gradient's norm stayed above the tolerance. `queries` lists where."""

    def __init__(self, queries: IntArray, norms: FloatArray, tolerance: float) -> None:
        self.queries = [int(query) for query in queries]
        super().__init__(
            f"{len(queries)} queries did not converge, first query {queries[0]}: gradient norm {norms.max():.3g} after "
            f"{newton.MAX_STEPS} steps; expected at most {tolerance:g}; raise prior_precision or the tolerance, or leave out start"
        )


class DisconnectedGraph(ValueError):
    """Judged pairs leave islands. `islands[query]` lists the candidates of each, largest first."""

    def __init__(self, islands: dict[int, list[list[int]]]) -> None:
        self.islands = islands
        query, first = next(iter(islands.items()))
        named = "; ".join(_abridged(island) for island in first[:5]) + (" ..." if len(first) > 5 else "")
        super().__init__(
            f"{len(islands)} queries have comparisons in groups that no judged pair connects; query {query} has {len(first)}: "
            f"{named}; judge pairs between them, or fit with a positive prior_precision and require_connected=False"
        )


class UnboundedEstimate(ValueError):
    """Without a prior some strength is infinite: a group of candidates wins all it has against the rest."""

    def __init__(self, queries: IntArray) -> None:
        self.queries = [int(query) for query in queries]
        super().__init__(
            f"prior_precision is 0, and {len(queries)} queries have no finite estimate, first query {queries[0]}: some "
            "candidates won every comparison against the others; use a positive prior_precision"
        )


class InvalidFitOption(ValueError):
    """A prior precision, tolerance, start or number of threads that makes no sense."""


def fit_queries(
    columns: ComparisonColumns | PairMeans,
    *,
    model: str = "thurstone",
    prior_precision: float = 0.1,
    tolerance: float = 1e-8,
    start: FloatArray | None = None,
    threads: int | None = None,
    require_connected: bool | None = None,
    standard_errors: bool = True,
    exact_up_to: int = uncertainty.EXACT_LIMIT,
) -> Fit:
    """Fit every query of `columns`; theta is mean zero within a query, in the model's natural units.

    `prior_precision` lambda >= 0 belongs to a Gaussian prior on each strength. `tolerance` bounds the
    Euclidean norm of each query's gradient (but never below 1e-14 times its total weight, where
    rounding sets in). `start` float64[sum sizes] warm-starts. `threads`: None takes as many as there
    are cores and work. `require_connected`: None demands connected graphs only where lambda is 0.
    A query with one candidate, or without votes under a prior, has theta 0. Without
    `standard_errors`, stderr and dispersion are NaN; they are exact up to `exact_up_to` candidates.

    Raises InvalidComparisons, DisconnectedGraph, UnboundedEstimate, NotConverged, UnknownModel.
    """
    code = model_code(model)
    _check_options(prior_precision, tolerance, threads)
    prior_precision, tolerance = float(prior_precision), float(tolerance)  # an int would compile again
    pairs = columns if isinstance(columns, PairMeans) else aggregate_pairs(columns)
    starts = np.concatenate([[0], np.cumsum(pairs.sizes)]).astype(np.int64)
    standing = describe_graph(pairs, starts)
    _check_graph(pairs, starts, standing.component, prior_precision, require_connected)
    theta = _starting_point(start, int(starts[-1]))
    norms, steps = np.zeros(pairs.queries), np.zeros(pairs.queries, dtype=np.int64)
    data = (code, pairs.a, pairs.b, pairs.preference, pairs.weight, pairs.offsets, starts)

    def solve(first: int, last: int) -> None:
        newton.solve_queries(*data, first, last, prior_precision, tolerance, theta, norms, steps)

    _in_blocks(solve, pairs.offsets, threads)
    _check_convergence(pairs, norms, tolerance)
    stderr, dispersion = np.full(len(theta), np.nan), np.full(pairs.queries, np.nan)

    def errors(first: int, last: int) -> None:
        uncertainty.errors_of_queries(*data, first, last, prior_precision, exact_up_to, theta, stderr, dispersion)

    if standard_errors:
        _in_blocks(errors, pairs.offsets, threads)
    return Fit(
        theta=theta,
        stderr=stderr,
        starts=starts,
        dispersion=dispersion,
        gradient_norm=norms,
        iterations=steps,
        component=standing.component,
        comparisons=standing.comparisons,
        undefeated=standing.undefeated,
        winless=standing.winless,
        prior_precision=prior_precision,
        logit_scale=LOGIT_SCALES[model],
    )


def compile_kernels() -> None:
    """Compile (or load from numba's cache) all that `fit_queries` needs, so that no first refit waits."""
    for model in MODEL_CODES:
        fit_queries(votes_of_query([0, 1], [1, 2], [0.7, 0.4], size=3), model=model, prior_precision=0.1, threads=1)


def _abridged(island: list[int]) -> str:
    shown = ", ".join(map(str, island[:8])) + (f" ... ({len(island)} in all)" if len(island) > 8 else "")
    return f"[{shown}]"


def _check_options(prior_precision: float, tolerance: float, threads: int | None) -> None:
    if not (np.isfinite(prior_precision) and prior_precision >= 0.0):
        raise InvalidFitOption(f"prior_precision is {prior_precision}; expected a finite number >= 0, such as 0.1")
    if not (np.isfinite(tolerance) and tolerance > 0.0):
        raise InvalidFitOption(f"tolerance is {tolerance}; expected a finite number > 0, such as 1e-8")
    if threads is not None and threads < 1:
        raise InvalidFitOption(f"threads is {threads}; expected at least 1, or None for all cores")


def _starting_point(start: FloatArray | None, total: int) -> FloatArray:
    if start is None:
        return np.zeros(total)
    theta = np.array(start, dtype=np.float64)
    if theta.shape != (total,) or not np.isfinite(theta).all():
        raise InvalidFitOption(
            f"start has shape {theta.shape}; expected {total} finite strengths, one for each candidate; or None"
        )
    return theta


def _check_graph(
    pairs: PairMeans, starts: IntArray, component: IntArray, prior_precision: float, require_connected: bool | None
) -> None:
    if not (prior_precision == 0.0 or require_connected):
        return
    owner = np.repeat(np.arange(pairs.queries), np.diff(starts))
    broken = np.unique(owner[component > 0])
    if broken.size:
        raise DisconnectedGraph({int(q): islands_of(component[starts[q] : starts[q + 1]]) for q in broken})
    if prior_precision == 0.0:
        unbounded = unbounded_queries(pairs, starts, component)
        if unbounded.size:
            raise UnboundedEstimate(unbounded)


def _check_convergence(pairs: PairMeans, norms: FloatArray, tolerance: float) -> None:
    suspects = np.flatnonzero(~(norms <= tolerance))
    if not suspects.size:
        return
    weights = np.array([pairs.weight[pairs.offsets[q] : pairs.offsets[q + 1]].sum() for q in suspects])
    failed = suspects[~(norms[suspects] <= newton.GRADIENT_ROUNDING * weights)]
    if failed.size:
        raise NotConverged(failed, norms[failed], tolerance)


def _in_blocks(work: Callable[[int, int], None], offsets: IntArray, threads: int | None) -> None:
    """Run `work(first, last)` over blocks of queries of about equal pairs, on threads where that pays.

    The kernels release the interpreter lock. numba's own parallel loops are not used: their only
    threading layer that ships everywhere must not be entered from two threads at once.
    """
    queries = len(offsets) - 1
    blocks = max(1, min(queries, int(offsets[-1]) // _BLOCK_PAIRS))
    workers = min(blocks, threads or os.cpu_count() or 1)
    if workers == 1:
        work(0, queries)
        return
    cuts = np.searchsorted(offsets, np.linspace(0, offsets[-1], blocks + 1)[1:-1])
    edges = np.unique(np.concatenate([[0], cuts, [queries]])).tolist()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, edges[:-1], edges[1:]))
