"""Simulated queries with known strengths, shared by the benchmarks of the numerics.

Not a benchmark itself. Every error here is Gaussian on the strength difference and the model is
Thurstone's, because then the strengths that a fit ought to find are known exactly: an error of variance v
turns F(d) into F(d / sqrt(1 + 2 v)) on average, so that answers with errors are drawn from
differences stretched by that root.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from labeling.records import BoolArray, ComparisonColumns, FloatArray, IntArray
from scoring.numerics.design.static import random_cycles
from scoring.numerics.fitting.likelihood import LOGIT_SCALES, probability
from scoring.numerics.fitting.votes import VoteTerms, fit_votes

SCALE = LOGIT_SCALES["thurstone"]


def soft_answers(d: FloatArray, *, shared: FloatArray, own: float, judges: int, rng: np.random.Generator) -> FloatArray:
    """float64[judges, m] of P(a is the more relevant); `shared` errors float64[m] and `own` deviation in
    Thurstone units, their spread undone as the module says."""
    spread = float(np.var(shared)) + own**2
    noise = rng.normal(0.0, own, (judges, len(d)))
    return probability(np.sqrt(1.0 + 2.0 * spread) * d + shared + noise, model="thurstone")


def sign_answers(d: FloatArray, *, judges: int, rng: np.random.Generator) -> FloatArray:
    """float64[judges, m] of independent Bernoulli votes 0 or 1."""
    return (rng.random((judges, len(d))) < probability(d, model="thurstone")).astype(np.float64)


def cycle_pairs(queries: int, size: int, degree: int, rng: np.random.Generator) -> list[IntArray]:
    """Pairs of each query: the union of degree/2 random cycles."""
    return [random_cycles(size, degree, rng) for _ in range(queries)]


def columns_of(pairs: list[IntArray], answers: list[FloatArray], size: int) -> ComparisonColumns:
    """Votes of all queries; answers[q] is float64[judges, m], NaN where a judge was not asked."""
    judge, a, b, preference, counts = [], [], [], [], []
    for ab, table in zip(pairs, answers, strict=True):
        asked = ~np.isnan(table)
        who, row = np.nonzero(asked)
        judge.append(who)
        a.append(ab[row, 0])
        b.append(ab[row, 1])
        preference.append(table[asked])
        counts.append(len(who))
    total = sum(counts)
    return ComparisonColumns(
        a=np.concatenate(a),
        b=np.concatenate(b),
        preference=np.concatenate(preference),
        weight=np.ones(total),
        judge=np.concatenate(judge),
        swapped=np.zeros(total, dtype=np.bool_),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        sizes=np.full(len(pairs), size, dtype=np.int64),
    )


def fit_without(columns: ComparisonColumns, biases: Mapping[int, float], precision: float) -> FloatArray:
    """Strengths float64[sum sizes], position biases by judge number taken out, as the product does (`scoring.raters.rate`)."""
    bias = np.array([biases.get(judge, 0.0) for judge in range(int(columns.judge.max(initial=0)) + 1)])[columns.judge]
    terms = VoteTerms(np.ones(len(bias)), bias * np.where(columns.swapped, -1.0, 1.0), columns.weight)
    return fit_votes(
        columns, terms, model="thurstone", prior_precision=precision, tolerance=1e-5, standard_errors=False
    ).theta


def answers_without(
    preference: FloatArray, judge: IntArray, swapped: BoolArray, biases: Mapping[int, float]
) -> FloatArray:
    """float64[m] answers without the position biases by judge number, as samplers read them (`scoring.sampling.draw`)."""
    bias = np.array([biases.get(each, 0.0) for each in judge.tolist()])
    odds = np.exp(SCALE * bias * np.where(swapped, -1.0, 1.0))
    return np.asarray(preference / (preference + (1.0 - preference) * odds))


def table(headings: list[str], rows: list[list[str]]) -> str:
    """Plain text, columns aligned."""
    widths = [max(len(row[i]) for row in [headings, *rows]) for i in range(len(headings))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in [headings, *rows]]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def calls_ratio(points: list[tuple[int, float]], target: float, paper_calls: int) -> float:
    """Calls at which the curve first reaches the target, between rounds by straight lines, over the paper's; 1 where it does not."""
    before: tuple[int, float] | None = None
    for calls, value in points:
        if value >= target:
            if before is None:
                return calls / paper_calls
            share = (target - before[1]) / (value - before[1])
            return (before[0] + share * (calls - before[0])) / paper_calls
        before = (calls, value)
    return 1.0


def mean_curve(curves: list[list[tuple[int, float]]]) -> list[tuple[int, float]]:
    """The mean NDCG@10 after each round that all curves have."""
    rounds = zip(*curves, strict=False)
    return [(points[0][0], float(np.mean([value for _, value in points]))) for points in rounds]
