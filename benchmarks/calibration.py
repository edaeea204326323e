"""Claim: few cross-query pairs a query put the strengths of all queries on one scale.

Simulated queries of 40 candidates, strengths known up to the error of an ordinary fit, biases N(0, 1)
logit; pairs along a random regular graph over queries between candidates of middle strength, RMSE of the bias in
logits. `soft_rmse_3`: three pairs a query, soft preferences with an N(0, 0.2) logit error; `sign_rmse_12`: twelve,
only the sign of the same preference; the table adds soft preferences with an N(0, 1) error, and independent
Bernoulli votes, which need the most. Also the time for 112,000 queries.
`--quick` simulates fewer queries.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder: coverage.py here is no package

import numpy as np

from benchmarks.simulation import SCALE, sign_answers, soft_answers, table
from labeling.records import FloatArray
from scoring.numerics.calibration.calibration import draw_cross_pairs, fit_biases
from scoring.numerics.fitting.comparisons import votes_of_query

SIZE = 40
SPREAD, BIAS_SPREAD = 1.5, 1.0  # logits
STRENGTH_ERROR = 0.15  # logits: what an ordinary fit of 8 soft pairs a candidate leaves
ANSWER_ERROR = 0.2  # logits, as the paper's authors simulate
HARD_ERROR = 1.0  # logits, the harder column
PAIRS = [1, 2, 3, 6, 12, 24]
KINDS = ["soft", "hard", "sign", "bernoulli"]


@dataclass(frozen=True, slots=True)
class Result:
    """RMSE of the bias in logits, share of biases inside their 95 % interval, seconds with and without choosing."""

    rmse: float
    coverage: float
    seconds: float
    fit_seconds: float


def answers_of(kind: str, d: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Preferences float64[m] in [0, 1] for true differences d in Thurstone units."""
    if kind == "bernoulli":
        return sign_answers(d, judges=1, rng=rng)[0]
    error = rng.normal(0.0, (HARD_ERROR if kind == "hard" else ANSWER_ERROR) / SCALE, len(d))
    soft = soft_answers(d, shared=error, own=0.0, judges=1, rng=rng)[0]
    return np.where(soft > 0.5, 1.0, 0.0) if kind == "sign" else soft


def measure(kind: str, pairs_a_query: int, queries: int, seed: int) -> Result:
    """Simulate one calibration and fit it as the product does, sharpness and prior cross-validated."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0.0, SPREAD / SCALE, queries * SIZE)
    bias = rng.normal(0.0, BIAS_SPREAD / SCALE, queries)
    theta = truth + rng.normal(0.0, STRENGTH_ERROR / SCALE, len(truth))
    starts = np.arange(queries + 1) * SIZE
    pairs = draw_cross_pairs(theta, starts, pairs_a_query, rng)
    level = truth + np.repeat(bias, SIZE)
    preference = answers_of(kind, level[pairs[:, 0]] - level[pairs[:, 1]], rng)
    votes = votes_of_query(pairs[:, 0], pairs[:, 1], preference, size=len(theta))
    began = time.perf_counter()
    found = fit_biases(votes, theta=theta, starts=starts, require_connected=pairs_a_query > 1)
    seconds = time.perf_counter() - began
    known = {"sharpness": found.sharpness, "prior_precision": found.prior_precision}
    began = time.perf_counter()
    fit_biases(votes, theta=theta, starts=starts, require_connected=False, **known)
    fit_seconds = time.perf_counter() - began
    error = found.bias - (bias - bias.mean())
    inside = np.abs(error) <= 1.959964 * found.stderr
    return Result(float(np.sqrt(np.mean(error**2))) * SCALE, float(inside.mean()), seconds, fit_seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="400 queries instead of 1,000; 20,000 timed")
    quick = parser.parse_args().quick
    queries = 400 if quick else 1_000
    found = {(kind, k): measure(kind, k, queries, seed=k) for kind in KINDS for k in PAIRS}
    rows = [
        [str(k)] + [f"{getattr(found[kind, k], what):.3f}" for kind in KINDS for what in ("rmse", "coverage")]
        for k in PAIRS
    ]
    headings = ["pairs a query"] + [f"{kind} {what}" for kind in KINDS for what in ("RMSE", "cover")]
    print(f"RMSE of the bias in logits (spread {BIAS_SPREAD:g}) and coverage of its 95 % intervals, {queries} queries")
    print(table(headings, rows))
    many = 20_000 if quick else 112_000
    large = measure("soft", 3, many, seed=1)
    print(
        f"{many:,} queries, 3 soft pairs each: {large.fit_seconds:.2f} s at a known prior, "
        f"{large.seconds:.2f} s with its choice; RMSE {large.rmse:.3f}"
    )
    figures = {
        "soft_rmse_3": round(found["soft", 3].rmse, 4),
        "sign_rmse_12": round(found["sign", 12].rmse, 4),
        "bernoulli_rmse_24": round(found["bernoulli", 24].rmse, 4),
        "seconds": round(large.fit_seconds, 2),
        "seconds_with_choice": round(large.seconds, 2),
        "queries": many,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
