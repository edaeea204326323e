"""Small random comparison problems for the numerics' tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit

from labeling.records import ComparisonColumns, FloatArray, IntArray, QueryState
from scoring.numerics.design import static
from scoring.numerics.fitting.comparisons import votes_of_query


def random_pairs(size: int, degree: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """A connected graph: distinct pairs of degree/2 random cycles."""
    pairs: set[tuple[int, int]] = set()
    for _ in range(max(1, degree // 2)):
        cycle = rng.permutation(size)
        pairs |= {(int(min(x, y)), int(max(x, y))) for x, y in zip(cycle, np.roll(cycle, 1), strict=True) if x != y}
    a, b = np.array(sorted(pairs)).T
    return a, b


def soft_query(
    size: int, *, degree: int = 6, seed: int = 0, spread: float = 1.5, noise: float = 0.5
) -> tuple[ComparisonColumns, FloatArray]:
    """One soft vote on each pair and the true strengths in logits."""
    rng = np.random.default_rng(seed)
    a, b = random_pairs(size, degree, rng)
    truth = rng.normal(0.0, spread, size)
    preference = expit(truth[a] - truth[b] + rng.normal(0.0, noise, len(a)))
    return votes_of_query(a, b, preference, size=size), truth


def join(queries: list[ComparisonColumns]) -> ComparisonColumns:
    """Queries laid end to end."""
    merged = {
        name: np.concatenate([getattr(query, name) for query in queries])
        for name in ("a", "b", "preference", "weight", "judge", "swapped", "sizes")
    }
    offsets = np.concatenate([[0], np.cumsum([len(query.a) for query in queries])])
    return ComparisonColumns(**merged, offsets=offsets)


def rated_state(size: int = 40, degree: int = 4, *, noise: float = 0.5, seed: int = 0, **known: Any) -> QueryState:
    """A query judged softly on random cycles; its strengths are -size / 2 .. size / 2, in steps, shuffled."""
    generator = np.random.default_rng(seed)
    strength = generator.permutation(np.linspace(-2.0, 2.0, size))
    pairs = static.random_cycles(size, degree, generator)
    logits = strength[pairs[:, 0]] - strength[pairs[:, 1]] + generator.normal(0.0, noise, len(pairs))
    fields: dict[str, Any] = {
        "first_stage_rank": np.zeros(size, dtype=np.int64),
        "theta": np.zeros(size),
        "preference": 1.0 / (1.0 + np.exp(-logits)),
        "weight": np.ones(len(pairs)),
        "prior_precision": 0.3,
        "logit_scale": 1.0,
        **known,
    }
    return QueryState(size=size, pairs=pairs, **fields)
