"""Claim: the fastest and most exact fit of paired comparisons that we know of.

The same simulated soft preferences go to every solver; times are medians of five, on one thread, in
processor time, and solutions are checked for agreement. Ours is timed from pair means to strengths, many
queries in a call and without standard errors, as the others give none; `live_ms` is a whole refit of one query
from raw votes of three judges, standard errors included, on the clock. `--quick` leaves out the sizes above
1,000 and extrapolates the 112,000 queries from 4,000.

Keys: `evalica_ratio` (the faster of bradley_terry and newman), `choix_ratio` (the faster of ilsr_pairwise
and opt_pairwise) and `lbfgs_ratio` at n = 100; `max_gradient`; `paper_scale_s`; `live_ms`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder: coverage.py here is no package

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("RAYON_NUM_THREADS", "1")

import choix
import evalica
import numpy as np
from scipy import optimize, special

from benchmarks.simulation import SCALE, columns_of, cycle_pairs, soft_answers, table
from labeling.records import ComparisonColumns, FloatArray
from scoring.numerics.fitting.comparisons import PairMeans, aggregate_pairs
from scoring.numerics.fitting.fit import compile_kernels, fit_queries

DEGREE = 8
PAPER_QUERIES = 112_000
PRECISION = 0.1
SLOWEST_S = 1.0


@dataclass(slots=True)
class Timing:
    """Median seconds a query, and the largest difference from our strengths."""

    seconds: dict[str, float] = field(default_factory=dict)
    disagreement: dict[str, float] = field(default_factory=dict)


def simulate(queries: int, size: int, *, judges: int = 1, seed: int = 0) -> ComparisonColumns:
    """Soft votes on 8-regular graphs."""
    rng = np.random.default_rng(seed)
    pairs = cycle_pairs(queries, size, DEGREE, rng)
    answers = []
    for ab in pairs:
        strengths = rng.normal(0.0, 1.5 / SCALE, size)
        d = strengths[ab[:, 0]] - strengths[ab[:, 1]]
        answers.append(soft_answers(d, shared=rng.normal(0.0, 0.2, len(d)), own=0.05, judges=judges, rng=rng))
    return columns_of(pairs, answers, size)


def median_time(work: Callable[[], object], repeats: int = 5) -> float:
    """Median processor seconds of `repeats` runs, fewer where one alone takes long.

    Processor time, since everything here runs on one thread and another process's load is nobody's merit.
    """
    times: list[float] = []
    while len(times) < repeats and sum(times) < SLOWEST_S:
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return statistics.median(times)


def ours(pairs: PairMeans, model: str, precision: float) -> FloatArray:
    return fit_queries(pairs, model=model, prior_precision=precision, threads=1, standard_errors=False).theta


def both_ways(pairs: PairMeans) -> tuple[list[int], list[int], list[float]]:
    """Soft preferences as weighted wins, the form that evalica takes."""
    return (
        [*pairs.a.tolist(), *pairs.b.tolist()],
        [*pairs.b.tolist(), *pairs.a.tolist()],
        [*pairs.preference.tolist(), *(1.0 - pairs.preference).tolist()],
    )


def lbfgs(pairs: PairMeans, size: int, precision: float) -> FloatArray:
    """scipy L-BFGS-B with an analytic gradient, to the same gradient norm as far as it gets."""

    def loss(theta: FloatArray) -> tuple[float, FloatArray]:
        d = theta[pairs.a] - theta[pairs.b]
        wins = pairs.preference * special.log_expit(d) + (1.0 - pairs.preference) * special.log_expit(-d)
        slope = pairs.weight * (special.expit(d) - pairs.preference)
        gradient = precision * theta + np.bincount(pairs.a, slope, size) - np.bincount(pairs.b, slope, size)
        return 0.5 * precision * float(theta @ theta) - float(pairs.weight @ wins), gradient

    options = {"gtol": 1e-9, "ftol": 1e-16, "maxiter": 5_000, "maxcor": 20}
    return np.asarray(optimize.minimize(loss, np.zeros(size), jac=True, method="L-BFGS-B", options=options).x)


def peers(pairs: PairMeans, size: int, sample: int) -> dict[str, Callable[[], FloatArray]]:
    """Every other solver on one query's pairs, each giving log strengths.

    choix takes no fractional preferences: it gets `sample` signed wins a pair, drawn to the preference.
    """
    xs, ys, weights = both_ways(pairs)
    winners = [evalica.Winner.X] * len(xs)
    wins = np.rint(pairs.preference * sample).astype(int)
    data = [
        game
        for a, b, won in zip(pairs.a.tolist(), pairs.b.tolist(), wins.tolist(), strict=True)
        for game in [(a, b)] * won + [(b, a)] * (sample - won)
    ]
    limits = {"limit": 20_000, "tolerance": 1e-10}
    solvers: dict[str, Callable[[], FloatArray]] = {
        "evalica bradley_terry": lambda: _logs(evalica.bradley_terry(xs, ys, winners, weights=weights, **limits), size),
        "scipy L-BFGS": lambda: lbfgs(pairs, size, 0.0),
    }
    if size <= 1_000:
        newman = partial(evalica.newman, xs, ys, winners, weights=weights, **limits)
        solvers["evalica newman"] = lambda: _logs(newman(), size)
    if size <= 100:
        solvers["choix ilsr_pairwise"] = lambda: np.asarray(choix.ilsr_pairwise(size, data, alpha=1e-6))
        solvers["choix opt_pairwise"] = lambda: np.asarray(choix.opt_pairwise(size, data, alpha=1e-6))
    return solvers


def _logs(result: object, size: int) -> FloatArray:
    scores = result.scores  # type: ignore[attr-defined]
    return np.log(np.array([scores[item] for item in range(size)]))


def sampled(pairs: PairMeans, sample: int) -> PairMeans:
    """Preferences rounded to whole wins out of `sample`, one at least either way, so that all can take them."""
    preference = np.clip(np.rint(pairs.preference * sample), 1, sample - 1) / sample
    return PairMeans(pairs.a, pairs.b, preference, pairs.weight, pairs.offsets, pairs.sizes)


def compare(size: int) -> Timing:
    """Seconds a query of every solver on the same queries; ours solves them in one call, on one thread."""
    sample, queries = 10, (20 if size <= 100 else 3)
    pairs = sampled(aggregate_pairs(simulate(queries, size, seed=size)), sample)
    single = [pairs.of_query(query) for query in range(queries)]
    reference = ours(pairs, "bradley-terry", 0.0).reshape(queries, size)
    timing = Timing()
    for model in ("bradley-terry", "thurstone"):
        timing.seconds[f"ours {model}"] = median_time(partial(ours, pairs, model, 0.0)) / queries
    solvers = [peers(query, size, sample) for query in single]
    for name in solvers[0]:
        timing.seconds[name], timing.disagreement[name] = _time_peer([solver[name] for solver in solvers], reference)
    return timing


def _time_peer(solvers: list[Callable[[], FloatArray]], reference: FloatArray) -> tuple[float, float]:
    """(median seconds of a pass, by query, largest difference); one query stands for all where it is slow."""
    began = time.perf_counter()
    apart = [_apart(solvers[0](), reference[0])]
    if (time.perf_counter() - began) * len(solvers) > SLOWEST_S:
        return median_time(solvers[0]), apart[0]
    apart += [_apart(solve(), strengths) for solve, strengths in zip(solvers[1:], reference[1:], strict=True)]
    return median_time(lambda: [solve() for solve in solvers]) / len(solvers), max(apart)


def _apart(found: FloatArray, strengths: FloatArray) -> float:
    return float(np.abs(found - found.mean() - strengths).max())


def batch_us(size: int, model: str) -> float:
    """Microseconds a query in one thread when many are solved together."""
    pairs = aggregate_pairs(simulate(200, size))
    return median_time(lambda: ours(pairs, model, PRECISION)) / 200 * 1e6


def paper_scale(queries: int) -> tuple[float, float, float]:
    """(solver seconds, seconds with standard errors, largest gradient norm) for 112,000 queries, all cores.

    `queries` distinct ones are timed and the time is scaled up where they are fewer.
    """
    distinct = aggregate_pairs(simulate(min(queries, 4_000), 100))
    rounds = queries // distinct.queries
    began = time.perf_counter()
    for _ in range(rounds):
        fit = fit_queries(distinct, prior_precision=PRECISION, standard_errors=False)
    solver = (time.perf_counter() - began) * PAPER_QUERIES / (rounds * distinct.queries)
    began = time.perf_counter()
    fit = fit_queries(distinct, prior_precision=PRECISION)
    complete = (time.perf_counter() - began) * PAPER_QUERIES / distinct.queries
    return solver, complete, float(fit.gradient_norm.max())


def live_ms(size: int, *, standard_errors: bool) -> float:
    """Milliseconds of one refit from raw votes of three judges, warm-started."""
    votes = simulate(1, size, judges=3)
    start = fit_queries(votes, prior_precision=PRECISION).theta
    times = [
        _timed(lambda: fit_queries(votes, prior_precision=PRECISION, start=start, standard_errors=standard_errors))
        for _ in range(25)
    ]
    return statistics.median(times) * 1e3


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def print_comparison(timings: dict[int, Timing]) -> None:
    names = list(timings[100].seconds)
    rows = []
    for size, timing in timings.items():
        base = timing.seconds["ours bradley-terry"]
        for name in names:
            if name in timing.seconds:
                seconds, gap = timing.seconds[name], timing.disagreement.get(name)
                agreement = "" if gap is None else f"{gap:.1e}"
                rows.append([str(size), name, f"{seconds * 1e6:,.1f}", f"{seconds / base:.1f}", agreement])
    print("Microseconds a query, one thread, no prior; `apart`: largest difference from our log strengths")
    print(table(["n", "solver", "us", "times ours", "apart"], rows))


def ratio(timing: Timing, prefix: str) -> float:
    """How many times the fastest solver of a library takes of our time."""
    best = min(seconds for name, seconds in timing.seconds.items() if name.startswith(prefix))
    return round(best / timing.seconds["ours bradley-terry"], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="n up to 1,000; paper scale extrapolated from 4,000")
    quick = parser.parse_args().quick
    compile_kernels()
    timings = {size: compare(size) for size in ((25, 100, 1_000) if quick else (25, 100, 1_000, 5_000))}
    print_comparison(timings)
    batch = {model: batch_us(100, model) for model in ("bradley-terry", "thurstone")}
    solver, complete, gradient = paper_scale(4_000 if quick else PAPER_QUERIES)
    live, live_large = live_ms(100, standard_errors=True), live_ms(5_000, standard_errors=False)
    print(
        f"\nn = 100 in a batch, one thread: {batch['bradley-terry']:.1f} us Bradley-Terry, "
        f"{batch['thurstone']:.1f} us Thurstone a query"
    )
    print(
        f"112,000 queries x 400 pairs, {os.cpu_count()} cores: {solver:.1f} s solver, {complete:.1f} s with standard "
        f"errors ({'extrapolated from 4,000' if quick else 'solver measured in full, errors extrapolated'})"
    )
    print(f"live refit from 1,200 votes: {live:.2f} ms with standard errors; n = 5,000, strengths: {live_large:.1f} ms")
    figures = {
        "evalica_ratio": ratio(timings[100], "evalica"),
        "choix_ratio": ratio(timings[100], "choix"),
        "lbfgs_ratio": ratio(timings[100], "scipy"),
        "max_gradient": gradient,
        "paper_scale_s": round(solver, 2),
        "paper_scale_extrapolated": quick,
        "live_ms": round(live, 3),
        "live_5000_ms": round(live_large, 2),
        "bradley_terry_us": round(batch["bradley-terry"], 1),
        "thurstone_us": round(batch["thurstone"], 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
