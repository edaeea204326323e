"""Claim: "neither is relevant", fitted as an outside option, helps the calibration of relevance and harms no order.

The same answers are fitted without the answers "neither" (as answers without a preference) and with them. Relevance is learned
from grades by queries, and the Brier score is that of held-out queries; tau is Kendall's, of strengths and true utilities within
a query. Worlds: `luce` (the model's own: a choice among both documents and an outside option), `threshold` (a person answers
"neither" if both perceived utilities are below a threshold of their own, which the model does not assume), `rare` (nearly all
documents are relevant) and, with ZELO_DATA, `dl19`: TREC's grades of 43 queries, answered by a simulated person who sees each
grade with an error. `calibration_gain`: the smallest reduction of the Brier score in the worlds but `rare`; `tau_loss`: the
largest loss of tau in all worlds. `--quick` simulates fewer queries.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder: coverage.py here is no package

import numpy as np
from scipy import stats

from benchmarks.simulation import table
from labeling.records import ComparisonColumns, FloatArray, IntArray
from scoring.numerics.calibration.relevance import fit_relevance
from scoring.numerics.design.static import random_cycles
from scoring.numerics.fitting.fit import fit_queries
from scoring.numerics.fitting.outside_option import NeitherAnswers, with_outside_option, without_outside_option

SIZE, DEGREE = 30, 6
LEVELS, SPREAD = 1.0, 1.5  # logits: of queries' mean utilities, and within a query
PRECISION = 0.1
GRADED_PRECISION = 1.0  # error of a simulated person who sees grades, in grades


@dataclass(frozen=True, slots=True)
class World:
    """True utilities of each query (0 is the threshold of relevance), its pairs, and the answers: P(a), NaN for neither."""

    utilities: list[FloatArray]
    pairs: list[IntArray]
    answers: list[FloatArray]


@dataclass(frozen=True, slots=True)
class Result:
    """Held-out Brier score and mean Kendall's tau without and with the outside option, and the share of "neither"."""

    brier: tuple[float, float]
    tau: tuple[float, float]
    neither: float


def luce(queries: int, level: float, rng: np.random.Generator) -> World:
    """Choices among a, b and an outside option of utility 0, logits."""
    utilities = [rng.normal(level + rng.normal(0, LEVELS), SPREAD, SIZE) for _ in range(queries)]
    pairs = [random_cycles(SIZE, DEGREE, rng) for _ in range(queries)]
    answers = []
    for own, ab in zip(utilities, pairs, strict=True):
        noisy = np.stack([own[ab[:, 0]], own[ab[:, 1]], np.zeros(len(ab))]) + rng.gumbel(size=(3, len(ab)))
        answers.append(np.array([1.0, 0.0, np.nan])[np.argmax(noisy, axis=0)])
    return World(utilities, pairs, answers)


def threshold(utilities: list[FloatArray], error: float, rng: np.random.Generator) -> World:
    """Neither where both perceived utilities are below 0; otherwise five steps by their difference, as on the screen."""
    pairs = [random_cycles(len(own), min(DEGREE, len(own) - 1), rng) for own in utilities]
    answers = []
    for own, ab in zip(utilities, pairs, strict=True):
        seen = own[ab] + rng.normal(0, error, ab.shape)
        difference = seen[:, 0] - seen[:, 1]
        steps = np.array([0.05, 0.25, 0.5, 0.75, 0.95])[np.digitize(difference / error, [-1.0, -0.3, 0.3, 1.0])]
        answers.append(np.where((seen < 0.0).all(axis=1), np.nan, steps))
    return World(utilities, pairs, answers)


def simulated_threshold(queries: int, rng: np.random.Generator) -> World:
    utilities = [rng.normal(rng.normal(-0.5, LEVELS), SPREAD, SIZE) for _ in range(queries)]
    return threshold(utilities, 1.0, rng)


def graded(folder: Path, rng: np.random.Generator) -> World:
    """Up to SIZE graded passages of each query; the threshold of relevance is between the grades 0 and 1."""
    grades: dict[str, list[float]] = defaultdict(list)
    for line in (folder / "trec_dl19" / "qrels.txt").read_text().splitlines():
        query, _, _, grade = line.split()
        grades[query].append(float(grade))
    utilities = [rng.permutation(np.array(own))[:SIZE] - 0.5 for own in grades.values()]
    return threshold(utilities, GRADED_PRECISION, rng)


def columns_of(world: World) -> tuple[ComparisonColumns, NeitherAnswers]:
    stated = [~np.isnan(own) for own in world.answers]
    rows = [ab[own] for ab, own in zip(world.pairs, stated, strict=True)]
    lost = [ab[~own] for ab, own in zip(world.pairs, stated, strict=True)]
    counts = [len(each) for each in rows]
    preference = np.concatenate([own[known] for own, known in zip(world.answers, stated, strict=True)])
    ab, none = np.concatenate(rows), np.concatenate(lost)
    columns = ComparisonColumns(
        a=ab[:, 0],
        b=ab[:, 1],
        preference=preference,
        weight=np.ones(len(ab)),
        judge=np.zeros(len(ab), dtype=np.int64),
        swapped=np.zeros(len(ab), dtype=np.bool_),
        offsets=np.append(0, np.cumsum(counts)).astype(np.int64),
        sizes=np.array([len(own) for own in world.utilities], dtype=np.int64),
    )
    query = np.repeat(np.arange(len(lost)), [len(each) for each in lost])
    return columns, NeitherAnswers(query, none[:, 0], none[:, 1])


def measure(world: World) -> Result:
    columns, neither = columns_of(world)
    plain = fit_queries(columns, prior_precision=PRECISION)
    one = with_outside_option(columns, neither, np.ones(len(columns.a), dtype=np.bool_), judge=1)
    fitted, thresholds = without_outside_option(fit_queries(one.columns, prior_precision=PRECISION), one, columns.sizes)
    owner = np.repeat(np.arange(columns.queries), columns.sizes)
    truth = np.concatenate(world.utilities)
    level = np.where(np.isnan(thresholds), np.nanmean(thresholds), thresholds)
    scores = (plain.theta, fitted.theta - level[owner])
    relevant = (truth > 0.0).astype(np.float64)
    first, second = (fit_relevance(own, relevant, owner).brier for own in scores)
    without, within = (_mean_tau(own, truth, owner) for own in scores)
    share = len(neither.query) / (len(neither.query) + len(columns.a))
    return Result((first, second), (without, within), share)


def _mean_tau(scores: FloatArray, truth: FloatArray, owner: IntArray) -> float:
    values = [
        stats.kendalltau(scores[owner == query], truth[owner == query]).statistic for query in range(owner.max() + 1)
    ]
    return float(np.nanmean(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="60 queries a world instead of 400")
    queries = 60 if parser.parse_args().quick else 400
    worlds = {
        "luce": luce(queries, -0.5, np.random.default_rng(1)),
        "threshold": simulated_threshold(queries, np.random.default_rng(2)),
        "rare": luce(queries, 3.0, np.random.default_rng(3)),
    }
    if folder := os.environ.get("ZELO_DATA"):
        worlds["dl19"] = graded(Path(folder), np.random.default_rng(4))
    found = {name: measure(world) for name, world in worlds.items()}
    print(f'the same answers without "neither" and with it, {queries} simulated queries a world')
    heads = ["world", "neither", "Brier without", "with", "tau without", "with"]
    print(
        table(
            heads,
            [
                [name, f"{own.neither:.2f}", *(f"{value:.4f}" for value in (*own.brier, *own.tau))]
                for name, own in found.items()
            ],
        )
    )
    gains = {name: own.brier[0] - own.brier[1] for name, own in found.items()}
    figures = {
        "calibration_gain": round(min(gain for name, gain in gains.items() if name != "rare"), 4),
        "tau_loss": round(max(own.tau[0] - own.tau[1] for own in found.values()), 4),
        **{f"gain_{name}": round(gain, 4) for name, gain in gains.items()},
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
