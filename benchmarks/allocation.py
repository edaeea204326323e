"""Claim: choosing the judge of each pair by its expected gain per dollar reaches a ranking for less than taking turns.

Simulated projects of questions over 100 documents; panels of three judges of unequal price and quality. `adaptive` chooses
the pairs, `rotate` or `informative` the judge and the order of each. The judges are known by nothing but their prices: after
every round they are measured on the answers of the run, without anchors, as the product measures them. Judge j votes on
s_j (difference + its own errors on the two documents + an error on the pair that all judges share) + c_j where a is shown
first; draws, or probabilities with noise. Both allocations are rated by the fit with equal
weights, without the position biases that the product takes out, and once more by the fit that weighs judges by what the same answers say of them.

Keys: `dollars_ratio`: dollars until `informative` has the mean NDCG@10 that `rotate` has after TARGET_CALLS calls a
question, over the dollars of those, mean over the panels of unequal judges (`_worst`: the worst panel, `_se` by bootstrap over
questions; 1.5 where it is not reached); `dollars_ratio_equal`: the same where judges and prices are equal, where nothing can be
gained; `dollars_ratio_alike`: the same where the two cheap judges make the same errors on documents, which no answers of
judges can show; `dollars_ratio_weighed`: with the weighing fit for both. `--quick` asks fewer questions.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from scipy.special import ndtri

from benchmarks.simulation import answers_without, fit_without, table
from labeling.records import BoolArray, ComparisonColumns, FloatArray, IntArray, QueryState
from scoring.numerics.fitting.likelihood import LOGIT_SCALES
from scoring.numerics.judges.allocation import allocate
from scoring.numerics.judges.informative import (
    PILOT_ROUNDS,
    PanelTerms,
    SeenCandidates,
    choose_judges,
    pilot_queries,
    shared_errors,
)
from scoring.numerics.judges.judges import fit_with_judges
from scoring.numerics.judges.position_bias import removable_biases
from scoring.sampling.samplers import Adaptive

SIZE, JUDGES = 100, 3
SCALE = LOGIT_SCALES["thurstone"]
PRECISION = 1.0
PASSES = 4
TARGET_CALLS = 250
MOST_DOLLARS = 1.5
MOST_CALLS = 1200
BOOTSTRAPS = 200


@dataclass(frozen=True, slots=True)
class PanelKind:
    """Three judges: price of a call, sharpness, position bias and errors on documents (deviation, logits); `alike`: the last
    two make the same errors on documents. `pair_error`: deviation of the error on a pair that all share.
    """

    name: str
    price: tuple[float, float, float]
    sharpness: tuple[float, float, float]
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)
    document_error: tuple[float, float, float] = (0.0, 0.0, 0.0)
    alike: bool = False
    pair_error: float = 0.5
    soft: bool = False


UNEQUAL = [
    PanelKind("dear and sharp", (10.0, 3.0, 1.0), (2.0, 1.0, 0.5)),
    PanelKind("dear, no better", (10.0, 3.0, 1.0), (1.0, 1.0, 1.0)),
    PanelKind("cheap and biased", (5.0, 2.0, 1.0), (1.5, 1.2, 0.8), bias=(0.0, 0.3, 1.5)),
    PanelKind("one guesses", (3.0, 3.0, 1.0), (1.5, 1.0, 0.1)),
    PanelKind("probabilities", (10.0, 3.0, 1.0), (1.5, 1.0, 0.7), bias=(0.0, 0.3, 0.6), soft=True),
]
ALIKE = PanelKind("cheap ones err alike", (4.0, 1.0, 1.0), (1.5, 1.0, 1.0), document_error=(0.3, 0.8, 0.8), alike=True)
EQUAL = PanelKind("equal", (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))


@dataclass(slots=True)
class Project:
    """Questions with known strengths (logits), and three judges to ask."""

    kind: PanelKind
    strength: FloatArray
    document: FloatArray
    pair: FloatArray
    chance: FloatArray

    @classmethod
    def draw(cls, kind: PanelKind, queries: int, rng: np.random.Generator) -> Project:
        """`chance` decides the answer on each pair, whoever is asked, so that equal judges answer alike in both runs."""
        strength = rng.standard_normal((queries, SIZE))
        errors = rng.standard_normal((queries, JUDGES, SIZE))
        if kind.alike:
            errors[:, 2] = errors[:, 1]
        upper = np.triu(rng.standard_normal((queries, SIZE, SIZE)), 1)
        pair = kind.pair_error * (upper - upper.transpose(0, 2, 1))
        chance = rng.random((queries, SIZE, SIZE))
        return cls(kind, strength, errors * np.array(kind.document_error)[None, :, None], pair, chance)

    def vote(self, query: int, pairs: IntArray, judge: IntArray, swapped: BoolArray) -> FloatArray:
        a, b = pairs[:, 0], pairs[:, 1]
        seen = self.strength[query][None, :] + self.document[query]
        d = seen[judge, a] - seen[judge, b] + self.pair[query, a, b]
        side = np.where(swapped, -1.0, 1.0)
        logit = np.array(self.kind.sharpness)[judge] * d + np.array(self.kind.bias)[judge] * side
        chance = self.chance[query, a, b]
        if self.kind.soft:
            return np.asarray(1.0 / (1.0 + np.exp(-logit - 0.7 * ndtri(chance))))
        return (chance < 1.0 / (1.0 + np.exp(-logit))).astype(np.float64)


@dataclass(slots=True)
class Asked:
    """The answers so far, question by question."""

    pairs: list[IntArray]
    judge: list[IntArray]
    swapped: list[BoolArray]
    answer: list[FloatArray]

    @classmethod
    def nothing(cls, queries: int) -> Asked:
        return cls(
            [np.empty((0, 2), dtype=np.int64) for _ in range(queries)],
            [np.empty(0, dtype=np.int64) for _ in range(queries)],
            [np.empty(0, dtype=np.bool_) for _ in range(queries)],
            [np.empty(0) for _ in range(queries)],
        )

    def columns(self) -> ComparisonColumns:
        ends = np.concatenate(self.pairs)
        return ComparisonColumns(
            a=ends[:, 0],
            b=ends[:, 1],
            preference=np.concatenate(self.answer),
            weight=np.ones(len(ends)),
            judge=np.concatenate(self.judge),
            swapped=np.concatenate(self.swapped),
            offsets=np.concatenate([[0], np.cumsum([len(each) for each in self.pairs])]),
            sizes=np.full(len(self.pairs), SIZE, dtype=np.int64),
        )

    def seen(self, theta: FloatArray | None) -> SeenCandidates:
        """What was asked about the candidates of all questions, numbered one question after another."""
        queries = len(self.pairs)
        found = SeenCandidates.none(queries * SIZE, JUDGES)
        ends, judge = self.shifted(self.pairs), np.concatenate(self.judge)
        side = np.where(np.concatenate(self.swapped), -1, 1)
        for end, sign in ((0, 1), (1, -1)):
            np.add.at(found.votes, (ends[:, end], judge), 1)
            np.add.at(found.first, (ends[:, end], judge), sign * side)
        return found if theta is None else SeenCandidates(theta.ravel(), found.votes, found.first)

    @staticmethod
    def shifted(pairs: list[IntArray]) -> IntArray:
        return np.concatenate([each + query * SIZE for query, each in enumerate(pairs)])


@dataclass(slots=True)
class Curve:
    """After each round: dollars a question (mean), NDCG@10 of each question under the plain and the weighing fit."""

    dollars: list[float] = field(default_factory=list)
    plain: list[FloatArray] = field(default_factory=list)
    weighed: list[FloatArray] = field(default_factory=list)
    share: FloatArray = field(default_factory=lambda: np.zeros(JUDGES))


def unmeasured(price: FloatArray) -> PanelTerms:
    ones, none = np.ones(JUDGES), np.zeros(JUDGES)
    return PanelTerms(
        ones, ones, none, ones, np.zeros(JUDGES, dtype=np.int64), price, np.zeros((JUDGES, JUDGES)), SCALE, SCALE**-2.0
    )


def measured(asked: Asked, price: FloatArray) -> tuple[PanelTerms, FloatArray, dict[int, float]]:
    """The judges by the answers of the run alone, the strengths of the fit that weighs them, and the position biases that scores leave out."""
    columns = asked.columns()
    found = fit_with_judges(columns, prior_precision=PRECISION, passes=PASSES)
    each = found.judges
    terms = {"sharpness": np.ones(JUDGES), "position_bias": np.zeros(JUDGES), "dispersion": np.ones(JUDGES)}
    stderr, votes = np.ones(JUDGES), np.zeros(JUDGES, dtype=np.int64)
    for name, values in terms.items():
        values[each.judge] = getattr(each, name)
    stderr[each.judge], votes[each.judge] = each.sharpness_stderr, each.answers
    shared = shared_errors(columns, found.fit.theta, judges=JUDGES, slope=SCALE, **terms)
    begun = np.repeat([len(each) > 0 for each in asked.pairs], SIZE)
    spread = float(np.var(found.fit.theta[begun]))
    panel = PanelTerms(
        **terms,
        sharpness_stderr=stderr,
        votes=votes,
        price=price,
        shared=shared,
        slope=SCALE,
        spread=spread,
        without_bias=True,
    )
    return panel, found.fit.theta.reshape(-1, SIZE), removable_biases(columns, found)


def state_of(asked: Asked, query: int, theta: FloatArray | None, biases: Mapping[int, float]) -> QueryState:
    return QueryState(
        size=SIZE,
        pairs=asked.pairs[query],
        first_stage_rank=np.zeros(SIZE, dtype=np.int64),
        theta=None if theta is None else theta[query],
        preference=answers_without(asked.answer[query], asked.judge[query], asked.swapped[query], biases),
        weight=np.ones(len(asked.pairs[query])),
        prior_precision=PRECISION,
        logit_scale=SCALE,
    )


def judges_of(
    mode: str,
    pairs: list[IntArray],
    asked: Asked,
    theta: FloatArray | None,
    panel: PanelTerms,
    rng: np.random.Generator,
) -> tuple[IntArray, BoolArray]:
    """The judge and the order of each pair of all questions, allocated together as the product does."""
    ends = Asked.shifted(pairs)
    if mode == "rotate":
        _, judge, swapped = allocate(ends, judges=JUDGES, mode=mode, rng=rng, offset=sum(map(len, asked.pairs)))
    else:
        _, judge, swapped = choose_judges(ends, asked.seen(theta), panel, rng)
    return judge, swapped


def replay(project: Project, mode: str, dollars: float, seed: int) -> Curve:
    """Rounds of `adaptive` until so many dollars a question are spent."""
    queries = len(project.strength)
    price = np.array(project.kind.price)
    rngs = [np.random.default_rng([seed, query]) for query in range(queries)]
    sampler = Adaptive(Adaptive.Options(start_cycles=1, pairs_per_candidate=MOST_CALLS / SIZE))
    asked, curve, panel = Asked.nothing(queries), Curve(), unmeasured(price)
    theta: FloatArray | None = None
    biases: dict[int, float] = {}
    spent = 0.0
    while spent < dollars * queries and len(asked.pairs[0]) < MOST_CALLS:
        begun = queries
        if mode == "informative" and len(curve.dollars) < PILOT_ROUNDS:
            begun = pilot_queries(panel, np.full(queries, SIZE))
        pairs = [
            sampler.sample(state_of(asked, query, theta, biases), MOST_CALLS, rngs[query])
            if query < begun
            else np.empty((0, 2), dtype=np.int64)
            for query in range(queries)
        ]
        judge, swapped = judges_of(mode, pairs, asked, theta, panel, rngs[0])
        at = 0
        for query, new in enumerate(pairs):
            own = slice(at, at := at + len(new))
            answer = project.vote(query, new, judge[own], swapped[own])
            asked.pairs[query] = np.concatenate([asked.pairs[query], new])
            asked.judge[query] = np.concatenate([asked.judge[query], judge[own]])
            asked.swapped[query] = np.concatenate([asked.swapped[query], swapped[own]])
            asked.answer[query] = np.concatenate([asked.answer[query], answer])
        spent += float(price[judge].sum())
        panel, weighed, biases = measured(asked, price)
        theta = fit_without(asked.columns(), biases, PRECISION).reshape(queries, SIZE)
        curve.dollars.append(spent / queries)
        curve.plain.append(ndcg(project.strength, theta))
        curve.weighed.append(ndcg(project.strength, weighed))
    curve.share = np.bincount(np.concatenate(asked.judge), minlength=JUDGES) / sum(map(len, asked.judge))
    return curve


def ndcg(strength: FloatArray, theta: FloatArray) -> FloatArray:
    """NDCG@10 of each question; grades 3, 2, 1 for the best 3, next 7, next 15, gain 2^grade - 1."""
    place = np.argsort(np.argsort(-strength, axis=1), axis=1)
    gain = np.select([place < 3, place < 10, place < 25], [7.0, 3.0, 1.0], 0.0)
    reached = (gain * rank_discounts(theta.T, 10).T).sum(axis=1)
    return np.asarray(reached / (gain * rank_discounts(strength.T, 10).T).sum(axis=1))


def rank_discounts(draws: FloatArray, top: int) -> FloatArray:
    """1 / log2(1 + rank) of each candidate in each draw, 0 below rank `top`; float64[n, draws]."""
    ranks = np.argsort(np.argsort(-draws, axis=0), axis=0)
    return np.where(ranks < top, 1.0 / np.log2(ranks + 2.0), 0.0)


def dollars_ratio(rotate: Curve, informative: Curve, rows: IntArray, fit: str = "plain") -> float:
    """Dollars of `informative` until it has what `rotate` has at the target, over those of `rotate`."""
    target, goal = rotate.dollars[-1], float(getattr(rotate, fit)[-1][rows].mean())
    curve = np.array([each[rows].mean() for each in getattr(informative, fit)])
    above = np.flatnonzero(curve >= goal)
    if not len(above):
        return MOST_DOLLARS
    i = int(above[0])
    if i == 0:
        return informative.dollars[0] / target
    part = (goal - curve[i - 1]) / (curve[i] - curve[i - 1])
    return float(informative.dollars[i - 1] + part * (informative.dollars[i] - informative.dollars[i - 1])) / target


@dataclass(slots=True)
class Outcome:
    kind: PanelKind
    rotate: Curve
    informative: Curve

    def ratios(self, fit: str = "plain") -> FloatArray:
        """The ratio, then its bootstrap values over questions."""
        rng = np.random.default_rng(0)
        count = len(self.rotate.plain[0])
        rows = [np.arange(count), *(rng.integers(count, size=count) for _ in range(BOOTSTRAPS))]
        return np.array([dollars_ratio(self.rotate, self.informative, each, fit) for each in rows])


def run_kind(kind: PanelKind, queries: int, seed: int) -> Outcome:
    project = Project.draw(kind, queries, np.random.default_rng([seed, *map(ord, kind.name)]))
    target = TARGET_CALLS * float(np.mean(kind.price))
    rotate = replay(project, "rotate", target, seed)
    return Outcome(kind, rotate, replay(project, "informative", 1.05 * target, seed))


def report(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for outcome in outcomes:
        ratio, weighed = outcome.ratios(), outcome.ratios("weighed")
        half = int(np.searchsorted(outcome.informative.dollars, 0.5 * outcome.rotate.dollars[-1]))
        rows.append(
            [
                outcome.kind.name,
                " ".join(f"{price:g}" for price in outcome.kind.price),
                " ".join(f"{share:.2f}" for share in outcome.informative.share),
                f"{outcome.rotate.plain[-1].mean():.3f}",
                f"{outcome.informative.plain[min(half, len(outcome.informative.plain) - 1)].mean():.3f}",
                f"{ratio[0]:.2f} ({ratio[1:].std():.2f})",
                f"{weighed[0]:.2f} ({weighed[1:].std():.2f})",
            ]
        )
    headings = ["panel", "prices", "shares", "rotate", "informative at half", "dollars (se)", "weighed fit"]
    return table(headings, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer questions")
    parser.add_argument("--queries", type=int, help="questions of each project; default 100, 20 with --quick")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    queries = options.queries or (20 if options.quick else 100)
    begun = time.perf_counter()
    outcomes = [run_kind(kind, queries, options.seed) for kind in [*UNEQUAL, ALIKE, EQUAL]]
    print(report(outcomes))
    unequal = [outcome.ratios() for outcome in outcomes[: len(UNEQUAL)]]
    found = {
        "dollars_ratio": float(np.mean([each[0] for each in unequal])),
        "dollars_ratio_se": float(np.mean(unequal, axis=0)[1:].std()),
        "dollars_ratio_worst": max(float(each[0]) for each in unequal),
        "dollars_ratio_alike": float(outcomes[-2].ratios()[0]),
        "dollars_ratio_equal": float(outcomes[-1].ratios()[0]),
        "dollars_ratio_weighed": float(np.mean([outcome.ratios("weighed")[0] for outcome in outcomes[: len(UNEQUAL)]])),
    }
    found = {key: round(value, 4) for key, value in found.items()}
    print(json.dumps({"benchmark": "allocation", **found, "seconds": round(time.perf_counter() - begun, 1)}))


if __name__ == "__main__":
    main()
