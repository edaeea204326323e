"""Claim: judges weighed by what people's answers say of them beat plain averaging, and never lose much.

Simulated panels of three judges with Bernoulli votes on 8-regular graphs; people answered three in
ten of the pairs of a fifth of the queries (the anchors), and only queries without anchors
are scored. Figures are differences of Kendall's tau to the true strengths between the anchored fit
and plain averaging: `gain_unequal, gain_adversarial, loss_equal, loss_correlated`. The table also shows the fit without anchors, which
is opt-in, and the LLMFAO votes (needs ZELO_DATA): GPT-4 and GPT-3.5 anchored on half of the crowd's
prompts, against the crowd's strengths on the other half. `--quick` simulates fewer queries.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder: coverage.py here is no package

import numpy as np

from benchmarks.simulation import SCALE, columns_of, cycle_pairs, sign_answers, table
from labeling.records import ComparisonColumns, FloatArray
from scoring.numerics.fitting.comparisons import votes_of_query
from scoring.numerics.fitting.fit import fit_queries
from scoring.numerics.judges.judges import fit_with_judges
from scoring.numerics.measures.metrics import kendall

SIZE, DEGREE = 50, 8
SPREAD = 1.0  # logits
ANCHOR_SHARE, ANCHOR_PAIRS = 0.2, 0.3
PEOPLE = 3  # the anchors' index, after the three judges
PRECISION = 2.0


@dataclass(frozen=True, slots=True)
class PanelKind:
    """`sharpness` of three judges, and deviations (logits) of errors that the first two have in common: on each
    pair, and on each candidate, which is consistent and therefore the more misleading.
    """

    name: str
    sharpness: tuple[float, float, float]
    pair_error: float = 0.0
    candidate_error: float = 0.0


KINDS = [
    PanelKind("unequal", (2.0, 0.5, 0.3)),
    PanelKind("adversarial", (1.5, 1.0, -1.0)),
    PanelKind("equal", (1.0, 1.0, 1.0)),
    PanelKind("correlated", (1.5, 1.5, 1.0), candidate_error=1.0),
    PanelKind("correlated pairs", (1.0, 1.0, 1.3), pair_error=2.0),
]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Mean tau of each method, and the anchored estimates of sharpness."""

    plain: float
    anchored: float
    unanchored: float
    sharpness: FloatArray


def simulate(kind: PanelKind, queries: int, rng: np.random.Generator) -> tuple[ComparisonColumns, FloatArray, int]:
    """Votes of judges 0 to 2 and people (3); true strengths; how many queries, the first ones, have anchors."""
    pairs = cycle_pairs(queries, SIZE, DEGREE, rng)
    truth = rng.normal(0.0, SPREAD / SCALE, (queries, SIZE))
    anchored = int(queries * ANCHOR_SHARE)
    answers = []
    for query, (strengths, ab) in enumerate(zip(truth, pairs, strict=True)):
        d = strengths[ab[:, 0]] - strengths[ab[:, 1]]
        liking = rng.normal(0.0, kind.candidate_error / SCALE, SIZE)
        error = liking[ab[:, 0]] - liking[ab[:, 1]] + rng.normal(0.0, kind.pair_error / SCALE, len(d))
        seen = [sharpness * (d + error if j < 2 else d) for j, sharpness in enumerate(kind.sharpness)]
        votes = [sign_answers(x, judges=1, rng=rng)[0] for x in seen]
        people = np.full(len(d), np.nan)
        if query < anchored:
            asked = rng.random(len(d)) < ANCHOR_PAIRS
            people[asked] = sign_answers(1.5 * d[asked], judges=1, rng=rng)[0]
        answers.append(np.stack([*votes, people]))
    return columns_of(pairs, answers, SIZE), truth, anchored


def mean_tau(theta: FloatArray, truth: FloatArray, skip: int) -> float:
    fitted = theta.reshape(truth.shape)
    return float(np.mean([kendall(x, y) for x, y in zip(fitted[skip:], truth[skip:], strict=True)]))


def measure(kind: PanelKind, queries: int, seed: int) -> Outcome:
    """Plain averaging, the anchored fit and the one without anchors on the same votes."""
    columns, truth, skip = simulate(kind, queries, np.random.default_rng(seed))
    plain = fit_queries(columns, prior_precision=PRECISION, standard_errors=False)
    anchored = fit_with_judges(columns, prior_precision=PRECISION, anchors=[PEOPLE])
    unanchored = fit_with_judges(_without_people(columns), prior_precision=PRECISION)
    return Outcome(
        plain=mean_tau(plain.theta, truth, skip),
        anchored=mean_tau(anchored.fit.theta, truth, skip),
        unanchored=mean_tau(unanchored.fit.theta, truth, skip),
        sharpness=anchored.judges.sharpness,
    )


def _without_people(columns: ComparisonColumns) -> ComparisonColumns:
    keep = columns.judge != PEOPLE
    owner = np.repeat(np.arange(columns.queries), np.diff(columns.offsets))[keep]
    counts = np.bincount(owner, minlength=columns.queries)
    votes = {name: getattr(columns, name)[keep] for name in ("a", "b", "preference", "weight", "judge", "swapped")}
    return ComparisonColumns(**votes, offsets=np.concatenate([[0], np.cumsum(counts)]), sizes=columns.sizes)


# --- LLMFAO ------------------------------------------------------------------------------

SHARE = {"left": 1.0, "right": 0.0, "tie": 0.5}


def llmfao(data: Path, seed: int) -> Outcome:
    """Tau to the crowd's Bradley-Terry strengths on prompts that the anchors do not touch."""

    def read(name: str) -> list[dict[str, str]]:
        with (data / "llmfao" / name).open(encoding="utf-8", newline="") as stream:
            return list(csv.DictReader(stream))

    crowd, gpt4, gpt3 = (read(f"{part}comparisons.csv") for part in ("", "gpt4-crowd-", "gpt3-crowd-"))
    names = {name: i for i, name in enumerate(sorted({row[side] for row in crowd for side in ("left", "right")}))}
    prompts = sorted({row["prompt"] for row in crowd})
    shown = set(np.random.default_rng(seed).permutation(prompts)[: len(prompts) // 2].tolist())

    def columns(groups: list[list[dict[str, str]]]) -> ComparisonColumns:
        rows = [(row, judge) for judge, group in enumerate(groups) for row in group]
        sides = [[names[row[side]] for row, _ in rows] for side in ("left", "right")]
        share = [SHARE[row["winner"]] for row, _ in rows]
        return votes_of_query(*sides, share, size=len(names), judge=[judge for _, judge in rows])

    people = [row for row in crowd if row["prompt"] in shown]
    hidden = [row for row in crowd if row["prompt"] not in shown]
    options = {"model": "bradley-terry", "prior_precision": 0.5}
    truth = fit_queries(columns([hidden]), standard_errors=False, **options).theta
    judged = columns([gpt4, gpt3])
    together = columns([gpt4, gpt3, people])
    anchored = fit_with_judges(together, anchors=[2], **options)
    return Outcome(
        plain=kendall(fit_queries(together, standard_errors=False, **options).theta, truth),
        anchored=kendall(anchored.fit.theta, truth),
        unanchored=kendall(fit_with_judges(judged, **options).fit.theta, truth),
        sharpness=anchored.judges.sharpness,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="60 queries a panel instead of 200")
    quick = parser.parse_args().quick
    queries = 60 if quick else 200
    found = {kind.name: measure(kind, queries, seed) for seed, kind in enumerate(KINDS)}
    labels = {kind.name: "(" + ", ".join(f"{s:g}" for s in kind.sharpness) + ")" for kind in KINDS}
    folder = os.environ.get("ZELO_DATA")
    if folder and (Path(folder) / "llmfao").is_dir():
        runs = [llmfao(Path(folder), seed) for seed in range(5 if quick else 20)]
        found["llmfao"] = Outcome(
            *(float(np.mean([getattr(run, name) for run in runs])) for name in ("plain", "anchored", "unanchored")),
            sharpness=np.mean([run.sharpness for run in runs], axis=0),
        )
    else:
        print("llmfao left out: ZELO_DATA does not name a folder that holds it")
    rows = []
    for name, outcome in found.items():
        taus = [outcome.plain, outcome.anchored, outcome.anchored - outcome.plain, outcome.unanchored]
        fitted = "(" + ", ".join(f"{s:.2f}" for s in outcome.sharpness) + ")"
        rows.append([name, labels.get(name, ""), *(f"{value:.3f}" for value in taus), fitted])
    print(f"Kendall's tau, {queries} queries x {SIZE} candidates; scored on queries without people's answers")
    print(table(["panel", "true s", "plain", "anchored", "gain", "no anchors", "fitted s"], rows))
    gain = {name: outcome.anchored - outcome.plain for name, outcome in found.items()}
    figures = {
        "gain_unequal": round(gain["unequal"], 4),
        "gain_adversarial": round(gain["adversarial"], 4),
        "loss_equal": round(-gain["equal"], 4),
        "loss_correlated": round(-gain["correlated"], 4),
    }
    print(json.dumps(figures | ({"gain_llmfao": round(gain["llmfao"], 4)} if "llmfao" in gain else {})))


if __name__ == "__main__":
    main()
