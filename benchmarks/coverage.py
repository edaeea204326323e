"""Claim: 95 % intervals contain the true strength about 95 times in 100, at the cross-validated prior.

200 simulated queries of 100 candidates and 400 pairs a setting. `coverage_bernoulli`: three judges'
independent Bernoulli votes; `coverage_shared`: three judges' soft preferences with an N(0, 1) logit error
that all share on a pair, and N(0, 0.2) of their own; `coverage_top`: the lower of the two over
the true ten best candidates. Strengths deviate by one logit; the other rows show where intervals are
less good. `--quick` runs 60 queries a setting.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

if __name__ == "coverage":
    # numba looks for the package of this name, and takes an ImportError for its absence.
    raise ImportError("this is a benchmark, not the package coverage")
if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # not this folder: coverage.py here is no package

import numpy as np

from benchmarks.simulation import SCALE, columns_of, cycle_pairs, sign_answers, soft_answers, table
from scoring.numerics.fitting.fit import fit_queries
from scoring.numerics.fitting.prior import choose_prior

SIZE, DEGREE, TOP = 100, 8, 10
SHARED_ERROR, OWN_ERROR = 1.0, 0.2


@dataclass(frozen=True, slots=True)
class Setting:
    """`spread` of the strengths in logits; `kind` of answers; number of judges."""

    label: str
    kind: str
    judges: int
    spread: float


SETTINGS = [
    Setting("Bernoulli, 3 judges", "sign", 3, 1.0),
    Setting("soft, shared errors, 3 judges", "soft", 3, 1.0),
    Setting("Bernoulli, 1 judge", "sign", 1, 1.0),
    Setting("Bernoulli, 3 judges, wide", "sign", 3, 2.0),
    Setting("soft, shared errors, wide", "soft", 3, 2.0),
    Setting("Bernoulli, 1 judge, wide", "sign", 1, 2.0),
]


@dataclass(frozen=True, slots=True)
class Coverage:
    """Shares of true strengths inside their intervals: all, the true ten best; and what was fitted."""

    overall: float
    top: float
    width: float
    error: float
    prior_precision: float
    dispersion: float


def measure(setting: Setting, queries: int, seed: int) -> Coverage:
    """Simulate, choose the prior on the simulated votes, fit, and count."""
    rng = np.random.default_rng(seed)
    pairs = cycle_pairs(queries, SIZE, DEGREE, rng)
    truth = rng.normal(0.0, setting.spread / SCALE, (queries, SIZE))
    answers = []
    for strengths, ab in zip(truth, pairs, strict=True):
        d = strengths[ab[:, 0]] - strengths[ab[:, 1]]
        if setting.kind == "sign":
            answers.append(sign_answers(d, judges=setting.judges, rng=rng))
        else:
            shared = rng.normal(0.0, SHARED_ERROR / SCALE, len(d))
            answers.append(soft_answers(d, shared=shared, own=OWN_ERROR / SCALE, judges=setting.judges, rng=rng))
    columns = columns_of(pairs, answers, SIZE)
    choice = choose_prior(columns, rng=rng)
    fit = fit_queries(columns, prior_precision=choice.prior_precision)
    centred = truth - truth.mean(axis=1, keepdims=True)
    theta, stderr = fit.theta.reshape(truth.shape), fit.stderr.reshape(truth.shape)
    inside = np.abs(theta - centred) <= 1.959964 * stderr
    best = np.argsort(-centred, axis=1)[:, :TOP]
    return Coverage(
        overall=float(inside.mean()),
        top=float(np.take_along_axis(inside, best, axis=1).mean()),
        width=float(stderr.mean()),
        error=float(np.sqrt(np.mean((theta - centred) ** 2))),
        prior_precision=choice.prior_precision,
        dispersion=float(fit.dispersion.mean()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="60 queries a setting instead of 200")
    queries = 60 if parser.parse_args().quick else 200
    found = [measure(setting, queries, seed) for seed, setting in enumerate(SETTINGS)]
    headings = ["setting", "coverage", "top ten", "mean s.e.", "RMSE", "lambda", "phi"]
    rows = [
        [setting.label]
        + [f"{value:.3f}" for value in (c.overall, c.top, c.width, c.error, c.prior_precision, c.dispersion)]
        for setting, c in zip(SETTINGS, found, strict=True)
    ]
    print(f"95 % intervals, {queries} queries x {SIZE} candidates, {SIZE * DEGREE // 2} pairs; Thurstone units")
    print(table(headings, rows))
    figures = {
        "coverage_bernoulli": round(found[0].overall, 4),
        "coverage_shared": round(found[1].overall, 4),
        "coverage_top": round(min(found[0].top, found[1].top), 4),
        "queries": queries,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
