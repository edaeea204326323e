"""Claim: scores without the judges' position bias are nearer to the truth, and no worse where judges have none.

The same answers are fitted as they are and without the biases that the product takes out (`numerics.judges.position_bias`). Simulated
questions have 100 documents of normal strengths; three judges answer in turn about cycle pairs, in one random order each. Panels:
no bias, the same bias in all judges, different ones, large ones, and an import that lists the better document first four times in five and
whose judges have no bias. NDCG@10 with paired 95 % intervals over questions. `fit_queries` on the same answers is the peer: with biases of
zero both fits must agree.

The sampler `adaptive` also chooses rounds of pairs, about probabilities of the panel `different`: once it reads the answers as they are, once
without the biases that were measured on other questions. The scores leave these out in both cases.

With ZELO_DATA, the pair judgments of GPT-4 and GPT-3.5 on 13 prompts and 59 language models (llmfao), which name the sides: Kendall's tau
to the scores that 8,931 votes of people give, on random quarters of the judgments.

Keys: `ndcg_gain`, the mean over kinds of answers with the panel of different biases; `ndcg_loss`, the largest loss where there is no bias;
`rounds_gain` with its interval, the gain of rounds that read answers without biases, mean over ROUNDS_CALLS; `fit_ratio`, the processor time of the
fit without biases over that of the plain fit; `tau_gain_llmfao` with its standard error over quarters.
`--quick` simulates fewer questions.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    began = time.monotonic()
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder: coverage.py here is no package

import numpy as np
from scipy import stats
from scipy.special import expit

from benchmarks.simulation import SCALE, answers_without, fit_without, table
from labeling.records import ComparisonColumns, FloatArray, IntArray, QueryState
from scoring.numerics.design.static import random_cycles
from scoring.numerics.fitting.fit import fit_queries
from scoring.numerics.judges.judges import fit_with_judges
from scoring.numerics.judges.position_bias import removable_biases
from scoring.numerics.measures.rankings import ndcg
from scoring.numerics.measures.resampling import bootstrap_interval
from scoring.sampling.samplers import Adaptive

SIZE, DEGREE, JUDGES = 100, 4, 3
SHARPNESS, ERROR = 1.5, 0.7  # logits for a unit of strength, and of an answer
PRECISION = 0.1
BETTER_FIRST = 0.8
PANELS = {
    "no bias": (0.0, 0.0, 0.0),
    "no bias, better first": (0.0, 0.0, 0.0),
    "alike": (0.3, 0.3, 0.3),
    "different": (1.0, -0.5, 0.7),
    "large": (2.0, 1.5, 1.0),
}
KINDS = ("probabilities", "draws", "signs")
QUARTERS = 200
ROUNDS_CALLS = (150, 200, 300)


def simulated(kind: str, panel: str, questions: int, seed: int) -> tuple[ComparisonColumns, FloatArray]:
    """Answers and true strengths float64[questions, SIZE]."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0.0, 1.0, (questions, SIZE))
    parts = []
    for own in truth:
        pairs = random_cycles(SIZE, DEGREE, rng)
        apart = own[pairs[:, 0]] - own[pairs[:, 1]]
        judge = rng.permutation(len(pairs)) % JUDGES
        share = BETTER_FIRST if panel.endswith("first") else 0.5
        swapped = (rng.random(len(pairs)) < share) == (apart < 0.0)
        side = np.where(swapped, -1.0, 1.0)
        logit = SHARPNESS * apart + np.array(PANELS[panel])[judge] * side + rng.normal(0.0, ERROR, len(pairs))
        preference = expit(logit)
        if kind == "draws":
            preference = (rng.random(len(pairs)) < preference).astype(np.float64)
        elif kind == "signs":
            preference = (logit > 0.0).astype(np.float64)
        parts.append((pairs[:, 0], pairs[:, 1], preference, judge, swapped))
    a, b, preference, judge, swapped = (np.concatenate(column) for column in zip(*parts, strict=True))
    count = SIZE * DEGREE // 2
    columns = ComparisonColumns(
        a=a, b=b, preference=preference, weight=np.ones(len(a)), judge=judge, swapped=swapped,
        offsets=np.arange(questions + 1) * count, sizes=np.full(questions, SIZE),
    )  # fmt: skip
    return columns, truth


def plain_fit(columns: ComparisonColumns) -> FloatArray:
    return fit_queries(
        columns, prior_precision=PRECISION, standard_errors=False, require_connected=False, threads=1
    ).theta


def measured_biases(columns: ComparisonColumns) -> dict[int, float]:
    return removable_biases(columns, fit_with_judges(columns, prior_precision=PRECISION))


def quality(theta: FloatArray, truth: FloatArray) -> FloatArray:
    """NDCG@10 of each question; grades as in `sampling.py`: 3, 2, 1 for the true best 3, next 7, next 15, gain 2^grade - 1."""
    place = np.argsort(np.argsort(-truth, axis=1), axis=1)
    grades = 3 - np.digitize(place, [3, 10, 25])
    scores = theta.reshape(truth.shape)
    return np.array([ndcg(own, grade, 10, gain="exponential") for own, grade in zip(scores, grades, strict=True)])


def worlds(questions: int, seed: int) -> dict[str, Any]:
    rows, gains = [], {}
    for panel in PANELS:
        for number, kind in enumerate(KINDS):
            columns, truth = simulated(kind, panel, questions, seed + 10 * number)
            plain = plain_fit(columns)
            if np.abs(plain - fit_without(columns, {}, PRECISION)).max() > 1e-4:
                raise AssertionError("with biases of zero the two fits differ")
            biases = measured_biases(columns)
            before, after = quality(plain, truth), quality(fit_without(columns, biases, PRECISION), truth)
            gain = bootstrap_interval(after - before, rng=np.random.default_rng(0), resamples=2000)
            gains[panel, kind] = gain.estimate
            taken = " ".join(f"{biases[judge]:+.2f}" if judge in biases else "-" for judge in range(JUDGES))
            interval = f"{gain.low:+.3f} … {gain.high:+.3f}"
            rows.append([panel, kind, taken, f"{before.mean():.3f}", f"{after.mean():.3f}", interval])
    print(f"{questions} questions, {SIZE * DEGREE // 2} answers each; biases in Thurstone units\n")
    print(table(["panel", "answers", "taken out", "NDCG@10 as they are", "without bias", "gain, 95 %"], rows))
    unbiased = [gain for (panel, _), gain in gains.items() if panel.startswith("no bias")]
    return {
        "ndcg_gain": round(float(np.mean([gains["different", kind] for kind in KINDS])), 4),
        "ndcg_loss": round(max(0.0, -min(unbiased)), 4),
    }


# --- rounds ------------------------------------------------------------------------------


def drawn_by_rounds(truth: FloatArray, biases: dict[int, float], *, corrected: bool, seed: int) -> FloatArray:
    """NDCG@10 of each question at ROUNDS_CALLS, float64[calls, questions]. `corrected`: rounds read answers without `biases`."""
    sampler = Adaptive(Adaptive.Options(pairs_per_candidate=12.0))
    rngs = [np.random.default_rng([seed, number]) for number in range(len(truth))]
    asked: list[list[FloatArray]] = [[] for _ in truth]  # a, b, preference, judge and side of each answer, by question
    theta, reached = None, []
    for goal in ROUNDS_CALLS:
        while sum(map(len, asked[0])) < goal:
            for number, (own, rng) in enumerate(zip(truth, rngs, strict=True)):
                before = np.concatenate([np.empty((0, 5)), *asked[number]])
                known = biases if corrected else {}
                read = answers_without(before[:, 2], before[:, 3].astype(np.int64), before[:, 4] < 0.0, known)
                state = QueryState(
                    size=SIZE, pairs=before[:, :2].astype(np.int64), first_stage_rank=np.zeros(SIZE, dtype=np.int64),
                    theta=None if theta is None else theta[number], preference=read, weight=np.ones(len(before)),
                    prior_precision=PRECISION, logit_scale=SCALE,
                )  # fmt: skip
                pairs = sampler.sample(state, goal - len(before), rng)
                judge = (len(before) + np.arange(len(pairs))) % JUDGES
                side = rng.choice([-1.0, 1.0], len(pairs))
                apart = SHARPNESS * (own[pairs[:, 0]] - own[pairs[:, 1]]) + np.array(PANELS["different"])[judge] * side
                answer = expit(apart + rng.normal(0.0, ERROR, len(pairs)))
                asked[number].append(np.column_stack([pairs, answer, judge, side]))
            theta = fit_without(columns_of(asked), biases, PRECISION).reshape(truth.shape)
        reached.append(quality(theta, truth))
    return np.array(reached)


def columns_of(asked: list[list[FloatArray]]) -> ComparisonColumns:
    rows = [np.concatenate(own) for own in asked]
    a, b, preference, judge, side = np.concatenate(rows).T
    return ComparisonColumns(
        a=a.astype(np.int64), b=b.astype(np.int64), preference=preference, weight=np.ones(len(a)),
        judge=judge.astype(np.int64), swapped=side < 0.0,
        offsets=np.cumsum([0, *map(len, rows)]), sizes=np.full(len(rows), SIZE),
    )  # fmt: skip


def rounds(questions: int, seed: int) -> dict[str, Any]:
    biases = measured_biases(simulated("probabilities", "different", 30, seed + 1)[0])
    truth = np.random.default_rng(seed + 2).normal(0.0, 1.0, (questions, SIZE))
    plain, corrected = (drawn_by_rounds(truth, biases, corrected=each, seed=seed) for each in (False, True))
    rows = []
    for calls, before, after in zip(ROUNDS_CALLS, plain, corrected, strict=True):
        gain = bootstrap_interval(after - before, rng=np.random.default_rng(0), resamples=2000)
        interval = f"{gain.low:+.3f} … {gain.high:+.3f}"
        rows.append([str(calls), f"{before.mean():.3f}", f"{after.mean():.3f}", interval])
    print(f"\n{questions} questions, adaptive rounds; the scores leave biases out in both columns\n")
    print(table(["calls", "NDCG@10, rounds read answers as they are", "without bias", "gain, 95 %"], rows))
    gain = bootstrap_interval((corrected - plain).mean(axis=0), rng=np.random.default_rng(0), resamples=2000)
    return {
        "rounds_gain": round(gain.estimate, 4),
        "rounds_gain_interval": [round(gain.low, 4), round(gain.high, 4)],
    }


def fit_ratio(questions: int, seed: int) -> float:
    """Processor time of the fit without biases, vote by vote, over that of the plain fit, pair by pair; the shortest of five each."""
    columns, _ = simulated("probabilities", "different", questions, seed)
    fits = (lambda: plain_fit(columns), lambda: fit_without(columns, {0: 0.1}, PRECISION))
    seconds = []
    for fit in fits:
        own = []
        for _ in range(5):
            since = time.process_time()
            fit()
            own.append(time.process_time() - since)
        seconds.append(min(own))
    print(f"\nprocessor time of the fit without biases over the plain fit: {seconds[1] / seconds[0]:.2f}")
    return round(seconds[1] / seconds[0], 2)


# --- real judgments ----------------------------------------------------------------------


def votes_of(files: list[Path], items: dict[str, int]) -> ComparisonColumns:
    """The votes of each file as one judge's, over all prompts, between items by name."""
    rows = []
    for judge, path in enumerate(files):
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                if row["left"] in items and row["right"] in items:
                    first = {"left": 1.0, "right": 0.0, "tie": 0.5}[row["winner"]]
                    rows.append((items[row["left"]], items[row["right"]], first, judge))
    left, right, first, judge = (np.array(column) for column in zip(*rows, strict=True))
    swapped = left > right
    return ComparisonColumns(
        a=np.minimum(left, right), b=np.maximum(left, right), preference=np.where(swapped, 1.0 - first, first),
        weight=np.ones(len(left)), judge=judge, swapped=swapped,
        offsets=np.array([0, len(left)]), sizes=np.array([len(items)]),
    )  # fmt: skip


def some(columns: ComparisonColumns, rows: IntArray) -> ComparisonColumns:
    names = ("a", "b", "preference", "weight", "judge", "swapped")
    kept = {name: getattr(columns, name)[rows] for name in names}
    return ComparisonColumns(**kept, offsets=np.array([0, len(rows)]), sizes=columns.sizes)


def llmfao(folder: Path, quarters: int) -> dict[str, Any]:
    people = folder / "comparisons.csv"
    with people.open(encoding="utf-8", newline="") as stream:
        names = sorted({row[side] for row in csv.DictReader(stream) for side in ("left", "right")})
    items = {name: at for at, name in enumerate(names)}
    truth = plain_fit(votes_of([people], items))
    models = {each: folder / f"{each}-crowd-comparisons.csv" for each in ("gpt4", "gpt3")}
    rows, found = [], {}
    for label, files in (("GPT-4", ["gpt4"]), ("GPT-3.5", ["gpt3"]), ("both", ["gpt4", "gpt3"])):
        columns = votes_of([models[each] for each in files], items)
        biases = measured_biases(columns)
        rng = np.random.default_rng(0)
        gains, values = [], []
        for _ in range(quarters):
            part = some(columns, np.sort(rng.permutation(len(columns.a))[: len(columns.a) // 4]))
            tau = [
                stats.kendalltau(own, truth).statistic
                for own in (plain_fit(part), fit_without(part, biases, PRECISION))
            ]
            gains.append(tau[1] - tau[0])
            values.append(tau)
        gain = float(np.mean(gains))
        error = float(np.std(gains) / np.sqrt(quarters))
        before, after = np.mean(values, axis=0)
        taken = " ".join(f"{biases[judge]:+.2f}" if judge in biases else "-" for judge in range(len(files)))
        rows.append([label, taken, f"{before:.3f}", f"{after:.3f}", f"{gain:+.4f} ({error:.4f})"])
        found = {"tau_gain_llmfao": round(gain, 4), "tau_gain_llmfao_stderr": round(error, 4)}
    print(f"\nllmfao, {quarters} random quarters of the judgments, tau to people's votes\n")
    print(table(["judges", "taken out", "as they are", "without bias", "gain (s. e.)"], rows))
    return found


def main(began: float) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer questions and quarters")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    questions = 30 if arguments.quick else 200
    found = worlds(questions, arguments.seed) | rounds(20 if arguments.quick else 300, arguments.seed)
    found["fit_ratio"] = fit_ratio(questions, arguments.seed)
    folder = Path(os.environ.get("ZELO_DATA", "")) / "llmfao"
    if os.environ.get("ZELO_DATA") and folder.is_dir():
        found |= llmfao(folder, QUARTERS // 4 if arguments.quick else QUARTERS)
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps({"benchmark": "position_bias", **found, "seconds": seconds}))


if __name__ == "__main__":
    main(began)
