"""The judges of `sampling.py`: simulated judges, replayed photo votes, the answers of GPT-4o.

Not a benchmark itself. A world is one query with known strengths and a function that votes on pairs; the
GPT-4o answers are a fixed set of pairs with human grades instead.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from labeling.records import ComparisonColumns, FloatArray, IntArray
from scoring.numerics.design import all_pairs
from scoring.numerics.fit import fit_queries

SIZE = 100

Vote = Callable[[IntArray, int, np.random.Generator], FloatArray]
"""(pairs int64[m, 2], judges on each, generator) -> mean preference float64[m]."""


@dataclass(slots=True)
class World:
    """One query with known strengths and someone to ask; `rank` int64[n] its first-stage ranks."""

    strength: FloatArray
    vote: Vote
    rank: IntArray
    grade: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        place = np.argsort(np.argsort(-self.strength)) / len(self.strength)
        self.grade = np.select([place < 0.03, place < 0.10, place < 0.25], [3.0, 2.0, 1.0], 0.0)


@dataclass(frozen=True, slots=True)
class Setting:
    """Where the answers come from. `votes`: soft, sign, bernoulli, or graded for replayed ones."""

    group: str
    votes: str = "graded"
    tails: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, [self.group, self.votes, self.tails]))


SIMULATED = [
    Setting(group, votes, tails)
    for group in ("independent", "shared")
    for votes in ("soft", "sign", "bernoulli")
    for tails in ("gaussian", "heavy")
]


# --- where answers come from -------------------------------------------------------------


def simulated_world(setting: Setting, rng: np.random.Generator) -> World:
    """Strengths of deviation one logit; heavy tails are Student's t with three degrees of freedom.

    The first stage sees the strengths through an error of 1.2 deviations (Kendall tau about .44).
    """
    s = rng.standard_normal(SIZE) if setting.tails == "gaussian" else rng.standard_t(3, SIZE) / np.sqrt(3.0)
    shared = np.triu(rng.standard_normal((SIZE, SIZE)) * (setting.group == "shared"), 1)
    shared -= shared.T
    first_stage = s / s.std() + 1.2 * rng.standard_normal(SIZE)
    rank = np.argsort(np.argsort(-first_stage)) + 1
    return World(s, partial(simulated_votes, s[:, None] - s[None, :] + shared, setting.votes), rank)


def simulated_votes(
    logit: FloatArray, votes: str, pairs: IntArray, judges: int, rng: np.random.Generator
) -> FloatArray:
    """The authors' published noise: 0.98 sigmoid(d + N(0, 0.2)) + 0.02 U(0, 1), as it is, its sign, or a draw."""
    d = logit[pairs[:, 0], pairs[:, 1]] + rng.normal(0.0, 0.2, (judges, len(pairs)))
    p = 0.98 / (1.0 + np.exp(-d)) + 0.02 * rng.random(d.shape)
    if votes == "sign":
        p = (p > 0.5).astype(np.float64)
    elif votes == "bernoulli":
        p = (rng.random(d.shape) < p).astype(np.float64)
    return np.asarray(p.mean(axis=0))


def photo_world(matrix: FloatArray) -> World:
    """All 100 photos; truth is the fit of all ten votes on all pairs, and a judge is a vote not yet drawn."""
    pairs = all_pairs(SIZE)
    every = matrix[pairs[:, 0], pairs[:, 1]]
    columns = columns_of([pairs], [every.mean(axis=1)], weight=float(every.shape[1]))
    fit = fit_queries(columns, prior_precision=0.1, standard_errors=False, threads=1)
    return World(fit.theta, partial(photo_votes, matrix), np.zeros(SIZE, dtype=np.int64))


def photo_votes(matrix: FloatArray, pairs: IntArray, judges: int, rng: np.random.Generator) -> FloatArray:
    """Mean of `judges` of the ten votes on each pair, drawn without replacement."""
    votes = matrix[pairs[:, 0], pairs[:, 1]]
    return np.asarray(rng.permuted(votes, axis=1)[:, :judges].mean(axis=1))


def read_photos(folder: Path) -> FloatArray:
    """float64[100, 100, 10] of P(row preferred to column)."""
    matrix = np.full((SIZE, SIZE, 10), np.nan)
    with (folder / "photo_pairs" / "votes.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    index = {name: i for i, name in enumerate(sorted({name for row in rows for name in row[:2]}))}
    for row in rows:
        a, b = index[row[0]], index[row[1]]
        matrix[a, b] = (np.array(row[2:], dtype=np.float64) + 1.0) / 2.0
        matrix[b, a] = 1.0 - matrix[a, b]
    return matrix


def columns_of(
    pairs: list[IntArray], answers: list[FloatArray], *, weight: float, size: int = SIZE
) -> ComparisonColumns:
    """One vote of that weight for each pair of each query."""
    ends = np.concatenate(pairs)
    return ComparisonColumns(
        a=ends[:, 0],
        b=ends[:, 1],
        preference=np.concatenate(answers),
        weight=np.full(len(ends), weight),
        judge=np.zeros(len(ends), dtype=np.int64),
        swapped=np.zeros(len(ends), dtype=np.bool_),
        offsets=np.concatenate([[0], np.cumsum([len(p) for p in pairs])]),
        sizes=np.full(len(pairs), size, dtype=np.int64),
    )


@dataclass(frozen=True, slots=True)
class AskedQuery:
    """What GPT-4o was asked of one query: distinct pairs int64[m, 2], preferences, human grades float64[n]."""

    pairs: IntArray
    preference: FloatArray
    grade: FloatArray

    @property
    def size(self) -> int:
        return len(self.grade)


def read_asked(folder: Path, least: int = 20) -> list[AskedQuery]:
    """Queries with at least `least` compared passages and differing grades; the first answer of a repeated pair counts."""
    grades: dict[tuple[str, str], int] = {}
    for line in (folder / "trec_dl19" / "qrels.txt").read_text().splitlines():
        query, _, document, value = line.split()
        grades[query, document] = int(value)
    answers: dict[str, dict[tuple[str, str], float]] = {}
    with (folder / "trec_dl19" / "gpt4o_pairwise.jsonl").open() as stream:
        for row in map(json.loads, stream):
            a, b = sorted((row["a"], row["b"]))
            won = row[row["winner"]]
            answers.setdefault(row["qid"], {}).setdefault((a, b), float(won == a))
    asked = []
    for query, answered in sorted(answers.items()):
        names = sorted({name for pair in answered for name in pair})
        grade = np.array([grades.get((query, name), 0) for name in names], dtype=np.float64)
        if len(names) >= least and len(set(grade.tolist())) > 1:
            index = {name: i for i, name in enumerate(names)}
            pairs = np.array([[index[a], index[b]] for a, b in answered], dtype=np.int64)
            asked.append(AskedQuery(pairs, np.array(list(answered.values())), grade))
    return asked
