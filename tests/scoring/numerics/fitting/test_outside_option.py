"""The outside option: consistent for Luce's choices, and nothing else moves where nobody says "neither"."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labeling.records import ComparisonColumns, FloatArray
from scoring.numerics.design.static import random_cycles
from scoring.numerics.fitting.comparisons import votes_of_query
from scoring.numerics.fitting.fit import fit_queries
from scoring.numerics.fitting.outside_option import (
    NeitherAnswers,
    option_items,
    with_outside_option,
    without_outside_option,
)
from scoring.numerics.fitting.votes import VoteTerms, fit_votes

NONE = NeitherAnswers(*(np.zeros(0, dtype=np.int64) for _ in range(3)))


def neither_of(pairs: list[tuple[int, int]], query: int = 0) -> NeitherAnswers:
    a, b = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return NeitherAnswers(np.full(len(a), query), a, b)


def fitted(columns: ComparisonColumns, neither: NeitherAnswers) -> tuple[FloatArray, FloatArray]:
    one = with_outside_option(columns, neither, np.ones(len(columns.a), dtype=np.bool_), judge=1)
    fit = fit_queries(one.columns, model="bradley-terry", prior_precision=1e-3)
    whole, thresholds = without_outside_option(fit, one, columns.sizes)
    return whole.theta, thresholds


def test_strengths_and_threshold_of_luces_choices_are_found() -> None:
    truth, threshold = np.array([1.5, 0.5, -0.5, -1.5]), 0.3
    rng = np.random.default_rng(0)
    pairs = np.array([(i, j) for i in range(4) for j in range(i + 1, 4)] * 40_000)
    utility = np.stack([truth[pairs[:, 0]], truth[pairs[:, 1]], np.full(len(pairs), threshold)])
    chosen = np.argmax(utility + rng.gumbel(size=utility.shape), axis=0)
    stated = pairs[chosen < 2]
    columns = votes_of_query(stated[:, 0], stated[:, 1], (chosen[chosen < 2] == 0).astype(float), size=4)
    theta, found = fitted(columns, neither_of([tuple(pair) for pair in pairs[chosen == 2].tolist()]))
    assert theta == pytest.approx(truth, abs=0.05)
    assert found == pytest.approx([threshold], abs=0.05)


@pytest.mark.parametrize("bias", [1.0, 2.0])
def test_votes_without_their_position_bias_find_the_strengths_better(bias: float) -> None:
    """Soft votes of a judge that favours what is shown first, in one order a pair; the pairs' fit knows the bias."""
    errors: list[tuple[float, float]] = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = rng.normal(0.3, 1.5, 20)
        pairs = random_cycles(20, 4, rng)
        swapped = rng.random(len(pairs)) < 0.5
        side = np.where(swapped, -1.0, 1.0)
        difference = truth[pairs[:, 0]] - truth[pairs[:, 1]]
        is_neither = rng.random(len(pairs)) < 1.0 / (1.0 + np.exp(truth)[pairs].sum(axis=1))
        seen = 1.0 / (1.0 + np.exp(-(difference + bias * side + rng.normal(0.0, 0.5, len(pairs)))))
        said, (a, b) = ~is_neither, pairs.T
        columns = replace(votes_of_query(a[said], b[said], seen[said], size=20), swapped=swapped[said])
        neither = neither_of([tuple(pair) for pair in pairs[is_neither].tolist()])
        odds = np.exp(bias * side[said])
        free = columns.preference / (columns.preference + (1.0 - columns.preference) * odds)
        found = []
        for preference in (None, free):
            one = with_outside_option(
                columns, neither, np.ones(len(odds), dtype=np.bool_), judge=1, preference=preference
            )
            offset = np.where(one.vote >= 0, bias * side[said][one.vote], 0.0)
            terms = VoteTerms(np.ones(len(offset)), offset, one.columns.weight)
            fit = fit_votes(one.columns, terms, model="bradley-terry", prior_precision=0.1)
            whole, _ = without_outside_option(fit, one, columns.sizes)
            found.append(float(np.sqrt(np.mean((whole.theta - truth + truth.mean()) ** 2))))
        errors.append((found[0], found[1]))
    raw, free_of_bias = np.array(errors).T
    gain = raw - free_of_bias
    assert gain.mean() > 2.0 * gain.std() / np.sqrt(len(gain)) > 0.0


def test_a_document_of_neither_alone_stands_below_every_loser() -> None:
    columns = votes_of_query([0, 1, 0], [1, 2, 2], [1.0, 1.0, 1.0], size=5)
    one = with_outside_option(columns, neither_of([(3, 4), (3, 4)]), np.ones(3, dtype=np.bool_), judge=1)
    fit, thresholds = without_outside_option(fit_queries(one.columns), one, columns.sizes)
    assert np.argsort(fit.theta).tolist()[-3:] == [2, 1, 0]
    assert fit.theta[3] == pytest.approx(fit.theta[4]) and fit.theta[3] < fit.theta[2]
    assert fit.theta[3] < thresholds[0] < fit.theta[0]
    assert fit.comparisons.tolist() == [2, 2, 2, 1, 1] and set(fit.component.tolist()) == {0}
    assert fit.winless.tolist() == [False, False, True, True, True]
    assert fit.theta.sum() == pytest.approx(0.0) and fit.starts.tolist() == [0, 5]


def test_queries_without_such_answers_keep_every_bit() -> None:
    rng = np.random.default_rng(1)
    a, b = np.array([(i, j) for i in range(6) for j in range(i + 1, 6)]).T
    first, second = (votes_of_query(a, b, rng.random(len(a)), size=6) for _ in range(2))
    both = ComparisonColumns(
        **{name: np.concatenate([getattr(each, name) for each in (first, second)]) for name in
           ("a", "b", "preference", "weight", "judge", "swapped", "sizes")},
        offsets=np.array([0, 15, 30]),
    )  # fmt: skip
    plain = fit_queries(both)
    one = with_outside_option(both, neither_of([(0, 1)], query=1), np.zeros(30, dtype=np.bool_), judge=1)
    assert one.has.tolist() == [False, True] and option_items(one.has, both.sizes).sum() == 1
    fit, thresholds = without_outside_option(fit_queries(one.columns), one, both.sizes)
    assert np.array_equal(fit.theta[:6], plain.theta[:6]) and np.isnan(thresholds[0])
    assert fit.theta[6] < plain.theta[6] and np.isfinite(thresholds[1])
    assert one.vote[one.vote >= 0].tolist() == list(range(30))
    nothing = with_outside_option(both, NONE, np.zeros(30, dtype=np.bool_), judge=1)
    assert np.array_equal(nothing.columns.a, both.a) and not nothing.has.any()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_sides_and_order_of_answers_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.permuted(np.tile(np.arange(7), (20, 1)), axis=1)[:, :2].T
    p, order = rng.random(20), rng.permutation(20)
    neither = rng.permuted(np.tile(np.arange(7), (6, 1)), axis=1)[:, :2]
    theta, found = fitted(votes_of_query(a, b, p, size=7), neither_of([tuple(each) for each in neither.tolist()]))
    turned = votes_of_query(b[order], a[order], 1.0 - p[order], size=7)
    again = fitted(turned, neither_of([tuple(each) for each in neither[::-1, ::-1].tolist()]))
    assert again[0] == pytest.approx(theta, abs=1e-6) and again[1] == pytest.approx(found, abs=1e-6)
