"""Which position biases may be taken out: those that are sure, of judges whose sides were random."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from labeling.records import ComparisonColumns, FloatArray
from scoring.numerics.fitting.fit import fit_queries
from scoring.numerics.fitting.votes import VoteTerms, fit_votes
from scoring.numerics.judges.judges import fit_with_judges
from scoring.numerics.judges.position_bias import LEAST_VOTES, removable_biases

QUERIES, DOCUMENTS = 10, 40
LOGITS = np.random.default_rng(5).normal(0.0, 1.5, (QUERIES, DOCUMENTS))


def votes(biases: list[float], *, better_first: float = 0.5, cycles: int = 2) -> ComparisonColumns:
    """Soft votes on pairs of random cycles, judges in turn, the better document first in this share of them."""
    rng = np.random.default_rng(3)
    parts = []
    for query in range(QUERIES):
        rounds = [rng.permutation(DOCUMENTS) for _ in range(cycles)]
        a, b = (np.concatenate([np.roll(each, shift) for each in rounds]) for shift in (0, 1))
        apart = LOGITS[query, a] - LOGITS[query, b]
        swapped = (rng.random(len(a)) < better_first) == (apart < 0.0)
        judge = rng.permutation(len(a)) % len(biases)
        logit = apart + np.array(biases)[judge] * np.where(swapped, -1.0, 1.0) + rng.normal(0.0, 0.8, len(a))
        parts.append((a, b, expit(logit), judge, swapped))
    a, b, preference, judge, swapped = (np.concatenate(column) for column in zip(*parts, strict=True))
    return ComparisonColumns(
        a=a, b=b, preference=preference, weight=np.ones(len(a)), judge=judge, swapped=swapped,
        offsets=np.arange(QUERIES + 1) * (DOCUMENTS * cycles), sizes=np.full(QUERIES, DOCUMENTS),
    )  # fmt: skip


def found_in(columns: ComparisonColumns) -> dict[int, float]:
    return removable_biases(columns, fit_with_judges(columns, model="bradley-terry", prior_precision=0.02))


def error(theta: FloatArray) -> float:
    """Root mean square of the differences to the true strengths, both centred within queries."""
    strengths = theta.reshape(QUERIES, DOCUMENTS)
    centred = strengths - strengths.mean(axis=1, keepdims=True) - LOGITS + LOGITS.mean(axis=1, keepdims=True)
    return float(np.sqrt((centred**2).mean()))


def test_random_sides_give_the_bias_and_without_it_the_strengths_are_nearer() -> None:
    columns = votes([0.0, 1.0, -0.7])
    found = found_in(columns)
    assert set(found) == {1, 2}
    assert 0.6 < found[1] < 1.1 and -0.8 < found[2] < -0.3
    offset = np.array([0.0, found[1], found[2]])[columns.judge] * np.where(columns.swapped, -1.0, 1.0)
    terms = VoteTerms(np.ones(len(offset)), offset, columns.weight)
    without = fit_votes(columns, terms, model="bradley-terry", prior_precision=0.02).theta
    plain = fit_queries(columns, model="bradley-terry", prior_precision=0.02).theta
    assert error(without) < 0.8 * error(plain)


def test_sides_that_follow_the_documents_prove_no_bias() -> None:
    assert found_in(votes([1.0, 1.0], better_first=0.8)) == {}
    columns = votes([1.0, 1.0])
    always_a = ComparisonColumns(
        a=np.where(columns.swapped, columns.b, columns.a), b=np.where(columns.swapped, columns.a, columns.b),
        preference=np.where(columns.swapped, 1.0 - columns.preference, columns.preference), weight=columns.weight,
        judge=columns.judge, swapped=np.zeros(len(columns.a), dtype=np.bool_), offsets=columns.offsets, sizes=columns.sizes,
    )  # fmt: skip
    assert found_in(always_a) == {}, "an import that knows no sides has every first document as a"


def test_few_votes_prove_no_bias() -> None:
    columns = votes([1.0] * (QUERIES * DOCUMENTS * 2 // LEAST_VOTES + 1))
    assert np.bincount(columns.judge).max() < LEAST_VOTES
    assert found_in(columns) == {}
