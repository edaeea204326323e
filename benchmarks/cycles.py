"""Claim: circles are a sign of position bias and noise; re-asking their pairs in the other order removes most of them, and is
worth about as much as the same calls on other pairs.

Simulated queries of 40 candidates, each judge asked once about the pairs of a dense design in a random order of presentation;
every judge has an error of its own on a pair, a shared error, and a position bias. Then the same number of further calls is
spent on the pairs of circles in the other order (`repair`), on random other asked pairs in the other order (`again`), or on new
pairs (`new`). `cycles_before`, `cycles_repaired`: share of circles; `tau_gain_*`: Kendall's tau after minus before.
`repair_against_again` and `repair_against_new`: differences of these gains, with 95 % intervals in the table. `--quick`: fewer queries.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder: coverage.py here is no package

import numpy as np
from scipy import stats
from scipy.special import expit

from benchmarks.simulation import table
from labeling.records import FloatArray, IntArray
from scoring.numerics.design.static import all_pairs, random_cycles
from scoring.numerics.fitting.comparisons import votes_of_query
from scoring.numerics.fitting.fit import fit_queries
from scoring.numerics.judges.judge_checks import cycles_of, intransitive_triples
from scoring.numerics.measures.resampling import bootstrap_interval

SIZE, DEGREE, JUDGES = 40, 14, 3
SPREAD, OWN, SHARED, POSITION = 1.5, 1.0, 0.5, 0.6  # logits
WAYS = ("repair", "again", "new")


class Panel:
    """Judges whose answers to a question in one order are fixed, as at temperature 0."""

    def __init__(self, utilities: FloatArray, rng: np.random.Generator) -> None:
        shape = (JUDGES, 2, SIZE, SIZE)
        own, shared = rng.normal(0, OWN, shape), rng.normal(0, SHARED, (SIZE, SIZE))
        shared = np.triu(shared) - np.triu(shared).T
        bias = np.abs(rng.normal(POSITION, 0.2, JUDGES))
        self._d = (utilities[:, None] - utilities[None, :] + shared)[None, None] + own
        self._d += np.array([1.0, -1.0])[None, :, None, None] * bias[:, None, None, None]

    def answer(self, judge: IntArray, swapped: IntArray, pairs: IntArray) -> FloatArray:
        return np.asarray(expit(self._d[judge, swapped, pairs[:, 0], pairs[:, 1]]))


class Votes:
    """Answers so far: (a, b, judge, swapped, preference)."""

    def __init__(self, panel: Panel, pairs: IntArray, sides: IntArray) -> None:
        self.panel = panel
        self.rows = self._asked(pairs, sides)

    def _asked(self, pairs: IntArray, sides: IntArray) -> FloatArray:
        found = [
            np.column_stack(
                [pairs, np.full(len(pairs), judge), sides, self.panel.answer(np.full(len(pairs), judge), sides, pairs)]
            )
            for judge in range(JUDGES)
        ]
        return np.concatenate(found)

    def also(self, pairs: IntArray, sides: IntArray) -> FloatArray:
        return np.concatenate([self.rows, self._asked(pairs, sides)])


def means(rows: FloatArray) -> tuple[IntArray, FloatArray]:
    pairs, place = np.unique(rows[:, :2].astype(np.int64), axis=0, return_inverse=True)
    by_judge = place.ravel() * JUDGES + rows[:, 2].astype(np.int64)
    number = np.bincount(by_judge, minlength=len(pairs) * JUDGES)
    sums = np.bincount(by_judge, rows[:, 4], minlength=len(pairs) * JUDGES)
    judged = (sums / np.maximum(number, 1)).reshape(-1, JUDGES)
    return pairs, judged.mean(axis=1)


def tau_and_circles(rows: FloatArray, truth: FloatArray) -> tuple[float, int, int]:
    columns = votes_of_query(
        rows[:, 0], rows[:, 1], rows[:, 4], size=SIZE, judge=rows[:, 2].astype(np.int64), swapped=rows[:, 3] > 0
    )
    theta = fit_queries(columns, prior_precision=0.1).theta
    pairs, mean = means(rows)
    return float(stats.kendalltau(theta, truth).statistic), *intransitive_triples(*pairs.T, mean, SIZE)


def one_query(rng: np.random.Generator) -> tuple[dict[str, tuple[float, int, int]], int]:
    truth = rng.normal(0, SPREAD, SIZE)
    panel = Panel(truth, rng)
    pairs = random_cycles(SIZE, DEGREE, rng)
    sides = rng.integers(0, 2, len(pairs))
    votes = Votes(panel, pairs, sides)
    found = {"before": tau_and_circles(votes.rows, truth)}
    asked, mean = means(votes.rows)
    order = {tuple(pair): side for pair, side in zip(pairs.tolist(), sides.tolist(), strict=True)}
    circles = {
        (min(x, y), max(x, y)) for (i, j, k), _ in cycles_of(*asked.T, mean, SIZE) for x, y in ((i, j), (j, k), (k, i))
    }
    chosen = np.array(sorted(circles), dtype=np.int64).reshape(-1, 2)
    other = rng.permutation(asked)[: len(chosen)]
    rest = np.array([pair for pair in all_pairs(SIZE).tolist() if tuple(pair) not in order])
    fresh = rng.permutation(rest)[: len(chosen)]
    turned = [np.array([1 - order[tuple(pair)] for pair in each.tolist()], dtype=np.int64) for each in (chosen, other)]
    plans = ((chosen, turned[0]), (other, turned[1]), (fresh, rng.integers(0, 2, len(fresh))))
    for way, (more, theirs) in zip(WAYS, plans, strict=True):
        found[way] = tau_and_circles(votes.also(more, theirs), truth)
    return found, len(chosen) * JUDGES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="60 queries instead of 400")
    queries = 60 if parser.parse_args().quick else 400
    rng = np.random.default_rng(8)
    results = [one_query(rng) for _ in range(queries)]
    names = ("before", *WAYS)
    tau = {name: np.array([each[name][0] for each, _ in results]) for name in names}
    share = {
        name: sum(each[name][1] for each, _ in results) / sum(each[name][2] for each, _ in results) for name in names
    }
    calls = float(np.mean([number for _, number in results]))
    print(f"{queries} queries of {SIZE}, {JUDGES} judges, {SIZE * DEGREE // 2 * JUDGES} calls, then {calls:.0f} more")
    print(
        table(
            ["calls on", "tau", "circles"], [[name, f"{tau[name].mean():.4f}", f"{share[name]:.4f}"] for name in names]
        )
    )
    figures = {"cycles_before": round(share["before"], 4), "cycles_repaired": round(share["repair"], 4)}
    figures |= {f"tau_gain_{way}": round(float((tau[way] - tau["before"]).mean()), 4) for way in WAYS}
    for way in ("again", "new"):
        found = bootstrap_interval(tau["repair"] - tau[way], rng=np.random.default_rng(0), resamples=2000)
        print(f"repair against {way}: tau {found.estimate:+.4f} ({found.low:+.4f} to {found.high:+.4f})")
        figures[f"repair_against_{way}"] = round(found.estimate, 4)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
