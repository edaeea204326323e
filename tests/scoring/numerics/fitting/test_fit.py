"""Fits: optimality, invariances, uncertainty, and honest refusals."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from labeling.records import Fit
from scoring.numerics.fitting import comparisons, graph, newton, uncertainty
from scoring.numerics.fitting.comparisons import EmptyQuery, aggregate_pairs, votes_of_query
from scoring.numerics.fitting.fit import (
    DisconnectedGraph,
    InvalidFitOption,
    NotConverged,
    UnboundedEstimate,
    compile_kernels,
    fit_queries,
)
from scoring.numerics.fitting.likelihood import MODEL_CODES, log_likelihood, probability, score_and_curvature
from tests.factories.votes import join, random_pairs, soft_query

models = pytest.mark.parametrize("model", list(MODEL_CODES))
seeds = st.integers(0, 10_000)
quickly = settings(max_examples=15, deadline=None)


@models
def test_fit_equals_a_general_purpose_optimiser(model: str) -> None:
    votes, _ = soft_query(25, seed=3)
    pairs = aggregate_pairs(votes)

    def loss(theta: np.ndarray) -> float:
        d = theta[pairs.a] - theta[pairs.b]
        return 0.1 * float(theta @ theta) - log_likelihood(d, pairs.preference, pairs.weight, model=model)

    expected = optimize.minimize(loss, np.zeros(25), method="BFGS", options={"gtol": 1e-7}).x
    fit = fit_queries(votes, model=model, prior_precision=0.2)
    np.testing.assert_allclose(fit.theta, expected, atol=1e-5)


@models
@pytest.mark.parametrize("size", [2, 3, 100, 1_000, 5_000])
def test_gradient_is_below_the_tolerance_at_every_size(model: str, size: int) -> None:
    fit = fit_queries(soft_query(size, degree=8)[0], model=model, prior_precision=0.05)
    assert fit.gradient_norm[0] <= 1e-8
    assert abs(fit.theta.mean()) < 1e-9
    assert np.isfinite(fit.stderr).all()


@models
@quickly
@given(seed=seeds)
def test_swapping_every_pair_changes_nothing(model: str, seed: int) -> None:
    votes, _ = soft_query(12, seed=seed)
    swapped = dataclasses.replace(
        votes, a=votes.b, b=votes.a, preference=1.0 - votes.preference, swapped=~votes.swapped
    )
    _assert_alike(fit_queries(votes, model=model), fit_queries(swapped, model=model))


@models
@quickly
@given(seed=seeds)
def test_reversing_every_preference_reverses_the_strengths(model: str, seed: int) -> None:
    votes, _ = soft_query(12, seed=seed)
    reversed_votes = dataclasses.replace(votes, preference=1.0 - votes.preference)
    fits = [fit_queries(columns, model=model) for columns in (votes, reversed_votes)]
    np.testing.assert_allclose(fits[0].theta, -fits[1].theta, atol=1e-8)


@models
@quickly
@given(seed=seeds)
def test_the_order_of_votes_does_not_matter(model: str, seed: int) -> None:
    votes, _ = soft_query(12, seed=seed)
    order = np.random.default_rng(seed).permutation(len(votes.a))
    shuffled = {name: getattr(votes, name)[order] for name in ("a", "b", "preference", "weight", "judge", "swapped")}
    _assert_alike(fit_queries(votes, model=model), fit_queries(dataclasses.replace(votes, **shuffled), model=model))


@models
@quickly
@given(seed=seeds, shift=st.floats(-5.0, 5.0))
def test_a_start_anywhere_ends_at_the_same_place(model: str, seed: int, shift: float) -> None:
    votes, truth = soft_query(12, seed=seed)
    fits = [fit_queries(votes, model=model, start=start) for start in (None, 3.0 * truth + shift)]
    np.testing.assert_allclose(fits[0].theta, fits[1].theta, atol=1e-6)


@models
def test_renaming_candidates_renames_strengths(model: str) -> None:
    votes, _ = soft_query(20, seed=5)
    names = np.random.default_rng(1).permutation(20)
    renamed = dataclasses.replace(votes, a=names[votes.a], b=names[votes.b])
    fits = [fit_queries(columns, model=model) for columns in (votes, renamed)]
    np.testing.assert_allclose(fits[0].theta, fits[1].theta[names], atol=1e-8)
    np.testing.assert_allclose(fits[0].stderr, fits[1].stderr[names], rtol=1e-7)


def test_queries_are_independent_and_threads_change_no_bit() -> None:
    queries = [soft_query(size, degree=20, seed=size)[0] for size in (40, 2, 300, 60, 200)] * 12
    together = join(queries)
    one, many = (fit_queries(together, threads=threads) for threads in (1, 3))
    alone = np.concatenate([fit_queries(query).theta for query in queries])
    assert np.array_equal(one.theta, many.theta)
    assert np.array_equal(one.stderr, many.stderr)
    assert np.array_equal(one.theta, alone)


def test_weight_is_the_same_as_repetition() -> None:
    once = votes_of_query([0, 1], [1, 2], [0.8, 0.3], size=3, weight=[2.0, 1.0])
    twice = votes_of_query([0, 0, 1], [1, 1, 2], [0.8, 0.8, 0.3], size=3, judge=[0, 1, 0])
    np.testing.assert_allclose(fit_queries(once).theta, fit_queries(twice).theta, atol=1e-9)


@models
def test_stderr_is_the_projected_inverse_hessian_with_dispersion(model: str) -> None:
    votes, _ = soft_query(15, seed=2)
    pairs, precision = aggregate_pairs(votes), 0.3
    fit = fit_queries(votes, model=model, prior_precision=precision)
    score, h = score_and_curvature(fit.theta[pairs.a] - fit.theta[pairs.b], pairs.preference, pairs.weight, model=model)
    incidence = np.zeros((len(h), 15))
    incidence[np.arange(len(h)), pairs.a], incidence[np.arange(len(h)), pairs.b] = 1.0, -1.0
    inverse = np.linalg.inv(incidence.T @ (h[:, None] * incidence) + precision * np.eye(15))
    leverage = h * np.einsum("ei,ij,ej->e", incidence, inverse, incidence)
    pseudo = uncertainty.PSEUDO_PAIRS * h.mean()
    phi = ((score**2).sum() + pseudo) / ((h * (1.0 - leverage)).sum() + pseudo)
    centre = np.eye(15) - 1.0 / 15
    np.testing.assert_allclose(fit.dispersion[0], phi, rtol=1e-8)
    np.testing.assert_allclose(fit.stderr, np.sqrt(phi * np.diag(centre @ inverse @ centre)), rtol=1e-8)


@pytest.mark.parametrize(("degree", "worst"), [(4, 0.1), (8, 0.02)])
def test_approximate_errors_are_close_to_the_exact_ones(degree: int, worst: float) -> None:
    votes, _ = soft_query(600, degree=degree, seed=1)
    exact, local = (fit_queries(votes, prior_precision=0.1, exact_up_to=limit) for limit in (600, 599))
    assert not np.array_equal(exact.stderr, local.stderr)
    np.testing.assert_allclose(local.stderr, exact.stderr, rtol=worst)
    assert local.stderr.mean() == pytest.approx(exact.stderr.mean(), rel=0.01)


def test_islands_are_reported_under_a_prior_and_refused_on_request() -> None:
    votes = votes_of_query([0, 3], [1, 4], [0.9, 0.2], size=6)
    fit = fit_queries(votes, prior_precision=0.1)
    assert fit.component.tolist() == [0, 0, 1, 2, 2, 3]
    assert fit.comparisons.tolist() == [1, 1, 0, 1, 1, 0]
    assert fit.theta[2] == 0.0
    with pytest.raises(DisconnectedGraph, match=r"query 0 has 4: \[0, 1\]; \[3, 4\]; \[2\]; \[5\]") as caught:
        fit_queries(votes, prior_precision=0.1, require_connected=True)
    assert caught.value.islands == {0: [[0, 1], [3, 4], [2], [5]]}
    with pytest.raises(DisconnectedGraph):
        fit_queries(votes, prior_precision=0.0)


def test_without_a_prior_a_clean_sweep_is_refused_and_not_a_large_number() -> None:
    votes = votes_of_query([0, 1, 0], [1, 2, 2], [1.0, 0.6, 1.0], size=3)
    with pytest.raises(UnboundedEstimate, match="query 0"):
        fit_queries(votes, prior_precision=0.0)
    assert np.abs(fit_queries(votes, prior_precision=0.1).theta).max() < 5.0


def test_a_cycle_of_hard_wins_has_a_finite_estimate_without_a_prior() -> None:
    votes = votes_of_query([0, 1, 2], [1, 2, 0], [1.0, 1.0, 1.0], size=3)
    np.testing.assert_allclose(fit_queries(votes, prior_precision=0.0).theta, 0.0, atol=1e-9)


def test_undefeated_and_winless_candidates_are_flagged() -> None:
    fit = fit_queries(votes_of_query([0, 0, 1, 3], [1, 2, 2, 1], [0.9, 0.5, 0.8, 0.5], size=5))
    assert fit.undefeated.tolist() == [True, False, False, False, False]
    assert fit.winless.tolist() == [False, False, True, False, False]


@models
def test_a_single_candidate_and_an_unjudged_query_have_strength_zero(model: str) -> None:
    lone, unjudged = votes_of_query([], [], [], size=1), votes_of_query([], [], [], size=3)
    fit = fit_queries(join([lone, unjudged]), model=model, prior_precision=0.5)
    assert fit.theta.tolist() == [0.0] * 4
    assert fit.stderr[0] == 0.0
    np.testing.assert_allclose(fit.stderr[1:], np.sqrt((1 - 1 / 3) / 0.5))


def test_no_input_makes_the_first_live_refit_compile() -> None:
    """After compile_kernels, arrays of other layouts, widths and access rights find compiled code."""
    compile_kernels()
    kernels = [comparisons._first_defect, comparisons._merge, graph._describe]
    kernels += [newton.solve_queries, uncertainty.errors_of_queries]
    known = [len(kernel.signatures) for kernel in kernels]
    votes, _ = soft_query(10)
    unusual = {name: np.repeat(getattr(votes, name), 2)[::2].astype(np.int32) for name in ("a", "b", "judge", "sizes")}
    frozen = votes.preference.copy()
    frozen.flags.writeable = False
    columns = dataclasses.replace(votes, **unusual, preference=frozen)
    fit_queries(columns, prior_precision=1, start=np.zeros(10, dtype=np.float32))
    assert [len(kernel.signatures) for kernel in kernels] == known


def test_no_queries_make_an_empty_fit() -> None:
    none = dataclasses.replace(votes_of_query([], [], [], size=1), offsets=np.zeros(1, int), sizes=np.empty(0, int))
    assert fit_queries(none).theta.shape == (0,)


def test_a_query_without_candidates_is_refused() -> None:
    with pytest.raises(EmptyQuery):
        fit_queries(votes_of_query([], [], [], size=0))


def test_not_converged_names_query_and_norm() -> None:
    votes, truth = soft_query(30)
    with pytest.raises(NotConverged, match="first query 1") as caught:
        fit_queries(
            join([votes, votes]), model="bradley-terry", prior_precision=0.0, start=np.concatenate([truth, 1e8 * truth])
        )
    assert caught.value.queries == [1]


@pytest.mark.parametrize(
    "options",
    [{"prior_precision": -1.0}, {"prior_precision": np.nan}, {"tolerance": 0.0}, {"threads": 0}, {"start": np.ones(3)}],
)
def test_senseless_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidFitOption):
        fit_queries(soft_query(5)[0], **options)


def test_strengths_recover_the_truth_and_intervals_contain_it() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0.0, 1.0, 60)
    truth -= truth.mean()
    a, b = random_pairs(60, 12, rng)
    wins = rng.binomial(50, probability(truth[a] - truth[b], model="bradley-terry")) / 50
    fit = fit_queries(votes_of_query(a, b, wins, size=60, weight=np.full(len(a), 50.0)), model="bradley-terry")
    inside = np.abs(fit.theta - truth) <= 1.96 * fit.stderr
    assert np.corrcoef(fit.theta, truth)[0, 1] > 0.98
    assert inside.mean() > 0.85


def _assert_alike(first: Fit, second: Fit) -> None:
    np.testing.assert_allclose(first.theta, second.theta, atol=1e-8)
    np.testing.assert_allclose(first.stderr, second.stderr, rtol=1e-6)
