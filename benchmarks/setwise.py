"""Claim: questions about sets of documents reach the NDCG@10 of pairs with at most three quarters of their tokens.

Both are chosen by `adaptive` and rotated over the judges, on the same simulated queries of 100 candidates. Votes err as in
`sampling`: independent errors of deviation 0.2, or in addition an N(0, 1) error that all judges share. In a call about a set each
document has an error of its own, such that every pair errs as it would alone: preferences of one call are then correlated by 1/2,
and no pair is answered better for being asked in a set. Soft votes are the probabilities of the letters, sign and
Bernoulli votes a ranking (`json`), or the winner alone (`best`). The correlation within calls is measured in a pilot of
random sets, before the run, by the estimator of the product, and weighs the votes.

Tokens of a call: 200 of the prompt, 12 of the query, 150 a document (MS MARCO's passages have about 75, answers of RAG 150 to 300); the
table also has the ratio at 50 and 500. The target is what pairs reach in 400 calls.

Keys: `tokens_ratio`: tokens until the mean NDCG@10 of sets reaches the target over those of pairs, mean over the settings
(`_worst`: the largest, `_se` by bootstrap over queries; 1.5 where it is not reached); `tokens_ratio_best` the same for the winner
alone; `correlation`: the mean correlation found; `tau_loss`: Kendall's tau of pairs minus that of sets at the target's
tokens; `tau_loss_unweighted`: the tau that counting all votes of a call in full costs, at equal calls.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from benchmarks.sampling import SLOPE, pilot_precision, quality
from benchmarks.sampling_worlds import SIMULATED, SIZE, Setting, World, simulated_world
from benchmarks.simulation import table
from labeling.records import FloatArray, IntArray, QueryState
from scoring.numerics.design.rounds import compile_kernels as compile_design
from scoring.numerics.design.static import pair_keys
from scoring.numerics.fitting.comparisons import votes_of_query
from scoring.numerics.fitting.fit import compile_kernels as compile_fit
from scoring.numerics.fitting.fit import fit_queries
from scoring.numerics.judges.calls import MOST_VOTES, CallVotes, call_correlation, call_weight
from scoring.sampling.samplers import Adaptive

PROMPT, QUERY, DOCUMENT = 200, 12, 150
DOCUMENT_LENGTHS = (50, 150, 500)
TARGET_CALLS = 400
PILOT_CALLS = 60
MOST_RATIO = 1.5
BOOTSTRAPS = 200
OWN, SHARED = 0.2, 1.0
NO_PAIRS = np.empty((0, 2), dtype=np.int64)
NO_RANKS = np.zeros(SIZE, dtype=np.int64)


def tokens(documents: int, length: int = DOCUMENT) -> float:
    """Tokens of a call about so many documents."""
    return PROMPT + QUERY + documents * length


# --- answers about sets ----------------------------------------------------------------------


def answer_set(world: World, setting: Setting, members: IntArray, mode: str, rng: np.random.Generator) -> FloatArray:
    """Preferences of one call, float64[m, 3]: rows (a, b, P(a beats b)) with a < b.

    `mode`: `all` gives every pair of the set, `best` the winner against each other document.
    """
    count = len(members)
    deviation = np.sqrt((OWN**2 + SHARED**2 * (setting.group == "shared")) / 2.0)
    logits = world.strength[members] + rng.normal(0.0, deviation, count)
    shares = np.exp(logits - logits.max())
    shares = 0.98 * shares / shares.sum() + 0.02 * rng.dirichlet(np.ones(count))
    order = np.log(shares) + (rng.gumbel(size=count) if setting.votes == "bernoulli" else 0.0)
    winner = int(np.argmax(order))
    i, j = np.triu_indices(count, 1)
    if mode == "best":
        i, j = (side[(i == winner) | (j == winner)] for side in (i, j))
    p = shares[i] / (shares[i] + shares[j]) if setting.votes == "soft" else (order[i] > order[j]).astype(np.float64)
    a, b = members[i], members[j]
    return np.column_stack([np.minimum(a, b), np.maximum(a, b), np.where(a < b, p, 1.0 - p)])


@dataclass(slots=True)
class Asked:
    """What one query has been asked: pairs int64[m, 2], preferences and weights float64[m]."""

    pairs: IntArray
    preference: FloatArray
    weight: FloatArray

    def add(self, rows: FloatArray, weight: float) -> None:
        """Store new pairs; the first answer of a pair stays, as in the product."""
        keys = pair_keys(SIZE, rows[:, :2].astype(np.int64))
        first = np.sort(np.unique(keys, return_index=True)[1])
        fresh = rows[first[~np.isin(keys[first], pair_keys(SIZE, self.pairs))]]
        self.pairs = np.concatenate([self.pairs, fresh[:, :2].astype(np.int64)])
        self.preference = np.concatenate([self.preference, fresh[:, 2]])
        self.weight = np.concatenate([self.weight, np.full(len(fresh), weight)])


def fitted(asked: Asked, precision: float) -> FloatArray:
    votes = votes_of_query(asked.pairs[:, 0], asked.pairs[:, 1], asked.preference, size=SIZE, weight=asked.weight)
    return fit_queries(
        votes, prior_precision=precision, tolerance=1e-5, require_connected=False, standard_errors=False, threads=1
    ).theta


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to ask: documents a call, which preferences of it count, and the weight of each."""

    name: str
    documents: int
    mode: str = "all"
    weight: float = 1.0


def pilot_correlation(
    worlds: list[World], setting: Setting, kind: Kind, precision: float, rng: np.random.Generator
) -> float:
    """The correlation within calls, from random sets: as many as `call_correlation` reads of a query."""
    a_call = kind.documents * (kind.documents - 1) // 2 if kind.mode == "all" else kind.documents - 1
    found = []
    for world in worlds:
        rows, calls = [], []
        for call in range(min(PILOT_CALLS, MOST_VOTES // a_call)):
            answer = answer_set(world, setting, rng.choice(SIZE, kind.documents, replace=False), kind.mode, rng)
            rows.append(answer)
            calls += [call] * len(answer)
        votes = np.concatenate(rows)
        asked = Asked(
            votes[:, :2].astype(np.int64), votes[:, 2], np.full(len(votes), float(call_weight(kind.documents, 1.0)))
        )
        theta = fitted(asked, precision)
        found.append(
            CallVotes(asked.pairs[:, 0], asked.pairs[:, 1], asked.preference, asked.weight, np.array(calls), theta)
        )
    measured = call_correlation(found, prior_precision=precision)
    assert measured is not None
    return measured.correlation


def replay(
    kind: Kind, worlds: list[World], setting: Setting, *, precision: float, grid: IntArray, seed: int
) -> FloatArray:
    """NDCG@10, recall@10 and tau at each number of calls, float64[R, len(grid), 3]."""
    sampler = Adaptive(Adaptive.Options(pairs_per_candidate=40.0, first_stage=False))
    reached = np.empty((len(worlds), len(grid), 3))
    for i, world in enumerate(worlds):
        rng = np.random.default_rng([seed, i])
        asked, theta, calls = Asked(NO_PAIRS, np.empty(0), np.empty(0)), None, 0
        for column, goal in enumerate(grid.tolist()):
            while calls < goal:
                state = QueryState(SIZE, asked.pairs, NO_RANKS, theta, asked.preference, asked.weight, precision, SLOPE)
                room = goal - calls
                if kind.documents == 2:
                    pairs = sampler.sample(state, room, rng)
                    asked.add(np.column_stack([pairs, world.vote(pairs, 1, rng)]), 1.0)
                    calls += len(pairs)
                else:
                    sets = sampler.sample_sets(state, room * (kind.documents - 1), rng, set_size=kind.documents)
                    chosen = [members[members >= 0] for members in sets[:room]]
                    answers = [answer_set(world, setting, members, kind.mode, rng) for members in chosen]
                    asked.add(np.concatenate(answers), kind.weight)
                    calls += min(room, len(sets))
                theta = fitted(asked, precision)
            reached[i, column] = quality([world], theta[None, :])[0] if theta is not None else 0.0
    return reached


# --- what it shows ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """Curves by kind over their numbers of calls; `correlation` by kind."""

    setting: Setting
    grids: dict[str, IntArray]
    curves: dict[str, FloatArray]
    correlation: dict[str, float]
    kinds: dict[str, Kind]


def run_setting(setting: Setting, *, replications: int, documents: tuple[int, ...], seed: int) -> Outcome:
    """All kinds on the same queries."""
    rng = np.random.default_rng([seed, *map(ord, str(setting))])
    worlds = [simulated_world(setting, rng) for _ in range(replications)]
    pilots = [simulated_world(setting, rng) for _ in range(8)]
    precision = pilot_precision(pilots, 1, seed)
    kinds = [Kind("pairs", 2)]
    correlation = {}
    for count in documents:
        for mode in ("all", "best"):
            plain = Kind(f"{mode} of {count}", count, mode)
            rho = pilot_correlation(pilots, setting, plain, precision, rng)
            correlation[plain.name] = rho
            kinds.append(Kind(plain.name, count, mode, float(call_weight(count, rho))))
        kinds.append(Kind(f"all of {count}, unweighted", count))
    base = np.array([100, 150, 200, 250, 300, 350, 400])
    grids, curves = {}, {}
    for kind in kinds:
        grid = base if kind.documents == 2 else np.ceil(base * tokens(2) / tokens(kind.documents)).astype(np.int64)
        grids[kind.name] = grid
        curves[kind.name] = replay(kind, worlds, setting, precision=precision, grid=grid, seed=seed)
    return Outcome(setting, grids, curves, correlation, {kind.name: kind for kind in kinds})


def tokens_ratio(outcome: Outcome, name: str, rows: IntArray, length: int = DOCUMENT) -> float:
    """Tokens until sets reach what pairs have at TARGET_CALLS, over the tokens until pairs do."""
    target = outcome.curves["pairs"][rows, -1, 0].mean()
    spent = [
        tokens(outcome.kinds[each].documents, length)
        * calls_until(outcome.curves[each][rows, :, 0].mean(axis=0), outcome.grids[each], target)
        for each in (name, "pairs")
    ]
    return float(min(spent[0] / spent[1], MOST_RATIO)) if np.isfinite(spent[0]) else MOST_RATIO


def calls_until(curve: FloatArray, grid: IntArray, target: float) -> float:
    """Calls at which a curve first reaches the target; infinite where it does not."""
    above = np.flatnonzero(curve >= target - 1e-12)
    if not len(above):
        return np.inf
    i = int(above[0])
    if i == 0:
        return float(grid[0])
    share = (target - curve[i - 1]) / max(curve[i] - curve[i - 1], 1e-12)
    return float(grid[i - 1] + share * (grid[i] - grid[i - 1]))


def resampled(outcome: Outcome, name: str) -> FloatArray:
    """Bootstrap values of `tokens_ratio` over queries."""
    rng = np.random.default_rng(0)
    count = len(outcome.curves["pairs"])
    return np.array([tokens_ratio(outcome, name, rng.integers(count, size=count)) for _ in range(BOOTSTRAPS)])


def report(outcomes: list[Outcome]) -> str:
    """One row for each setting and kind."""
    rows = []
    for outcome in outcomes:
        every = np.arange(len(outcome.curves["pairs"]))
        for name, curve in outcome.curves.items():
            mean = curve.mean(axis=0)
            ratios = [f"{tokens_ratio(outcome, name, every, length):.2f}" for length in DOCUMENT_LENGTHS]
            rho = outcome.correlation.get(name)
            kind = outcome.kinds[name]
            rows.append(
                [str(outcome.setting), name, "" if rho is None else f"{rho:.2f}", f"{kind.weight:.2f}"]
                + [f"{mean[i, 0]:.3f}" for i in (2, 4, 6)]
                + [f"{mean[-1, 2]:.3f}", *ratios]
            )
    headings = ["setting", "asked", "correlation", "weight", *(f"NDCG at {t}" for t in ("50%", "75%", "100%")), "tau"]
    return table(headings + [f"tokens, {length} a document" for length in DOCUMENT_LENGTHS], rows)


def keys(outcomes: list[Outcome], count: int) -> dict[str, float]:
    """The claimed figures, for sets of `count` documents."""
    every = [np.arange(len(outcome.curves["pairs"])) for outcome in outcomes]
    name, best, plain = f"all of {count}", f"best of {count}", f"all of {count}, unweighted"
    ratios = [tokens_ratio(outcome, name, rows) for outcome, rows in zip(outcomes, every, strict=True)]
    winners = [tokens_ratio(outcome, best, rows) for outcome, rows in zip(outcomes, every, strict=True)]
    boot = np.mean([resampled(outcome, name) for outcome in outcomes], axis=0)

    def tau(kind: str) -> float:
        return float(np.mean([outcome.curves[kind][:, -1, 2].mean() for outcome in outcomes]))

    return {
        "tokens_ratio": float(np.mean(ratios)),
        "tokens_ratio_se": float(boot.std()),
        "tokens_ratio_worst": max(ratios),
        "tokens_ratio_best": float(np.mean(winners)),
        "correlation": float(np.mean([outcome.correlation[name] for outcome in outcomes])),
        "tau_loss": tau("pairs") - tau(name),
        "tau_loss_unweighted": tau(name) - tau(plain),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few queries, Gaussian strengths and sets of four only")
    parser.add_argument("--replications", type=int, help="queries a setting; default 40, 8 with --quick")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    settings = [setting for setting in SIMULATED if setting.tails == "gaussian" or not options.quick]
    begun = time.perf_counter()
    work = partial(
        run_setting,
        replications=options.replications or (8 if options.quick else 40),
        documents=(4,) if options.quick else (4, 8),
        seed=options.seed,
    )
    compile_fit()  # once, and not in each process
    compile_design()
    with ProcessPoolExecutor(options.processes) as pool:
        outcomes = list(pool.map(work, settings))
    print(report(outcomes))
    found = {key: round(value, 4) for key, value in keys(outcomes, 4).items()}
    print(json.dumps({"benchmark": "setwise", **found, "seconds": round(time.perf_counter() - begun, 1)}))


if __name__ == "__main__":
    main()
