"""Simulated judged projects for the tests of priors, judges and calibration.

Candidates have a true relevance in logits: the query's level plus the candidate's own part. Judges see it
through an error; everything enters by `record_judgments`, as in the product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit

from labeling.judgments import record_judgments
from labeling.models import Annotator, Candidate, Document, Project, Query
from labeling.pairs import store_pairs
from labeling.records import FloatArray, IntArray, NewJudgment
from scoring.numerics.design.static import random_cycles
from tests.factories.rows import make_project


@dataclass
class Judged:
    """A project and its truth: `logits` and `level` by candidate id."""

    project: Project
    queries: list[Query] = field(default_factory=list)
    candidates: dict[int, list[int]] = field(default_factory=dict)
    logits: dict[int, float] = field(default_factory=dict)
    level: dict[int, float] = field(default_factory=dict)

    def difference(self, a: int, b: int) -> float:
        return self.logits[a] - self.logits[b]


def make_judged(
    *, queries: int, size: int, rng: np.random.Generator, level_spread: float = 0.0, spread: float = 1.5
) -> Judged:
    """Queries with `size` candidates each and nothing judged yet."""
    judged = Judged(make_project())
    for number in range(queries):
        query = Query.objects.create(project=judged.project, external_id=f"query-{number}", text=f"query {number}")
        documents = Document.objects.bulk_create(
            Document(project=judged.project, external_id=f"{number}-{i}", text=f"text {i}") for i in range(size)
        )
        rows = Candidate.objects.bulk_create(Candidate(query=query, document=each) for each in documents)
        ids = sorted(row.pk for row in rows)
        level = float(rng.normal(0.0, level_spread))
        judged.queries.append(query)
        judged.candidates[query.pk] = ids
        for candidate in ids:
            judged.level[candidate] = level
            judged.logits[candidate] = level + float(rng.normal(0.0, spread))
    return judged


def draw_pairs(judged: Judged, degree: int, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """(pair, a, b) of the union of random cycles in every query."""
    found = []
    for query, ids in judged.candidates.items():
        local = random_cycles(len(ids), degree, rng)
        found += stored(np.array(ids)[local], query)
    return found


def stored(pairs: IntArray, query: int | None) -> list[tuple[int, int, int]]:
    """Rows of these pairs of candidates."""
    pairs = np.sort(pairs, axis=1)
    a, b = pairs[:, 0].tolist(), pairs[:, 1].tolist()
    return list(zip(store_pairs(a, b, [query] * len(a)), a, b, strict=True))


def answer(
    judged: Judged,
    annotator: Annotator,
    pairs: Sequence[tuple[int, int, int]],
    rng: np.random.Generator,
    *,
    noise: float = 0.5,
    sharpness: float = 1.0,
    position_bias: float = 0.0,
    shared: FloatArray | None = None,
) -> None:
    """Soft preferences of one annotator on these pairs, each in a random order."""
    errors = rng.normal(0.0, noise, len(pairs)) + (0.0 if shared is None else shared)
    swapped = rng.random(len(pairs)) < 0.5
    rows = []
    for (pair, a, b), error, turned in zip(pairs, errors, swapped, strict=True):
        lean = -position_bias if turned else position_bias
        preference = float(expit(sharpness * (judged.difference(a, b) + error) + lean))
        rows.append(NewJudgment(pair_id=pair, annotator_id=annotator.pk, swapped=bool(turned), preference=preference))
    record_judgments(rows)


def grade(judged: Judged, *, queries: Sequence[Query] | None = None) -> None:
    """Grades 0, 1, 2 by true relevance, of all queries or some."""
    for query in queries if queries is not None else judged.queries:
        for candidate in judged.candidates[query.pk]:
            value = int(np.digitize(judged.logits[candidate], [0.0, 1.5]))
            Candidate.objects.filter(pk=candidate).update(grade=value)
