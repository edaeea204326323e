"""Judges that differ: what is found out about them, and what it does to the strengths."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from labeling.records import ComparisonColumns, FloatArray
from scoring.numerics.fitting.fit import fit_queries
from scoring.numerics.fitting.likelihood import MODEL_CODES, probability
from scoring.numerics.fitting.votes import VoteTerms, fit_votes
from scoring.numerics.judges.judges import NoAnchorAnswers, fit_with_judges
from scoring.numerics.measures.metrics import kendall
from tests.factories.votes import join, random_pairs, soft_query

PEOPLE = 9


def panel(
    sharpness: Sequence[float],
    *,
    position: Sequence[float] = (),
    queries: int = 20,
    people: float = 0.0,
    shared: float = 0.0,
    taste: float = 0.0,
    seed: int = 0,
) -> tuple[ComparisonColumns, FloatArray]:
    """Bernoulli votes of judges 0, 1, ... in random order; people (9) answer a share of the pairs.

    `shared`: deviation of an error that all judges have on a pair; `taste`: of one that judges 0 and 1 have
    on a candidate.
    """
    rng = np.random.default_rng(seed)
    bias = [*position, *[0.0] * (len(sharpness) - len(position))]
    parts, truth = [], rng.normal(0.0, 0.6, (queries, 30))
    for strengths in truth:
        a, b = random_pairs(30, 8, rng)
        d, error = strengths[a] - strengths[b], rng.normal(0.0, shared, len(a))
        liking = rng.normal(0.0, taste, 30)
        rows: list[tuple[FloatArray, ...]] = []
        for judge, (s, c) in enumerate(zip(sharpness, bias, strict=True)):
            swapped = rng.random(len(a)) < 0.5
            seen = d + (liking[a] - liking[b] if judge < 2 else 0.0)
            latent = s * seen + c * np.where(swapped, -1.0, 1.0) + error
            vote = (rng.random(len(a)) < probability(latent, model="thurstone")).astype(float)
            rows.append((a, b, vote, np.full(len(a), judge), swapped))
        asked = rng.random(len(a)) < people
        vote = (rng.random(len(a)) < probability(d, model="thurstone")).astype(float)
        rows.append((a[asked], b[asked], vote[asked], np.full(asked.sum(), PEOPLE), np.zeros(asked.sum(), bool)))
        a, b, p, judge, swapped = (np.concatenate(column) for column in zip(*rows, strict=True))
        columns = ComparisonColumns(a, b, p, np.ones(len(a)), judge, swapped, np.array([0, len(a)]), np.array([30]))
        parts.append(columns)
    return join(parts), truth


def _without_people(columns: ComparisonColumns) -> ComparisonColumns:
    keep = columns.judge != PEOPLE
    votes = {name: getattr(columns, name)[keep] for name in ("a", "b", "preference", "weight", "judge", "swapped")}
    offsets = np.concatenate([[0], np.cumsum(keep)])[columns.offsets]
    return dataclasses.replace(columns, **votes, offsets=offsets)


def tau(theta: FloatArray, truth: FloatArray) -> float:
    return float(np.mean([kendall(x, y) for x, y in zip(theta.reshape(truth.shape), truth, strict=True)]))


def test_a_panel_of_equal_judges_is_fitted_like_their_average() -> None:
    columns, truth = panel([1.0, 1.0, 1.0])
    found = fit_with_judges(columns, prior_precision=2.0)
    plain = fit_queries(columns, prior_precision=2.0)
    np.testing.assert_allclose(found.judges.sharpness, 1.0, atol=0.15)
    assert tau(found.fit.theta, truth) > tau(plain.theta, truth) - 0.005


def test_anchors_recover_sharpness_within_its_interval() -> None:
    columns, _ = panel([2.0, 1.0, 0.3], people=0.5, queries=30)
    judges = fit_with_judges(columns, prior_precision=2.0, anchors=[PEOPLE]).judges
    truth = np.array([2.0, 1.0, 0.3])
    truth /= np.sqrt(np.mean(truth**2))
    assert judges.judge.tolist() == [0, 1, 2]
    assert judges.anchored
    np.testing.assert_allclose(judges.sharpness, truth, atol=0.2)
    low, high = judges.interval(2)
    assert low < truth[2] < high
    assert high - low < 0.4


def test_an_adversarial_judge_gets_negative_sharpness_when_anchored_and_helps() -> None:
    columns, truth = panel([1.0, 1.0, -1.5], people=0.3)
    found = fit_with_judges(columns, prior_precision=2.0, anchors=[PEOPLE])
    assert found.judges.interval(2)[1] < 0.0
    assert tau(found.fit.theta, truth) > tau(fit_queries(columns, prior_precision=2.0).theta, truth) + 0.1


@pytest.mark.parametrize("anchors", [[], [PEOPLE]])
def test_position_bias_is_found_and_taken_out(anchors: list[int]) -> None:
    columns, _ = panel([1.0, 1.0, 1.0], position=[0.8, 0.0, -0.4], people=0.5 if anchors else 0.0)
    judges = fit_with_judges(columns, prior_precision=2.0, anchors=anchors).judges
    np.testing.assert_allclose(judges.position_bias, [0.8, 0.0, -0.4], atol=0.12)
    assert (judges.position_bias_stderr < 0.1).all()


def test_judges_that_err_together_are_warned_about() -> None:
    shared, _ = panel([1.0, 1.0, 1.0], shared=1.0)
    apart, _ = panel([1.0, 1.0, 1.0])
    assert len(fit_with_judges(shared, prior_precision=2.0).judges.correlated()) == 3
    assert fit_with_judges(apart, prior_precision=2.0).judges.correlated() == []


def test_anchors_see_through_judges_that_share_a_taste() -> None:
    """Two sharp judges like the same candidates for no good reason; alone they convince each other."""
    columns, truth = panel([1.5, 1.5, 1.0], people=0.4, taste=0.6, queries=40)
    anchored = fit_with_judges(columns, prior_precision=2.0, anchors=[PEOPLE])
    without = fit_with_judges(_without_people(columns), prior_precision=2.0)
    plain = fit_queries(columns, prior_precision=2.0)
    assert tau(anchored.fit.theta, truth) > tau(plain.theta, truth) + 0.01
    assert tau(without.fit.theta, truth) < tau(plain.theta, truth) - 0.02
    assert anchored.judges.weight[2] > anchored.judges.weight[:2].sum()


def test_steadier_answers_have_less_dispersion_and_more_weight() -> None:
    rng = np.random.default_rng(0)
    quiet, truth = soft_query(60, degree=10, noise=0.2)
    loud = dataclasses.replace(
        quiet,
        preference=probability(
            truth[quiet.a] - truth[quiet.b] + rng.normal(0, 1.5, len(quiet.a)), model="bradley-terry"
        ),
        judge=quiet.judge + 1,
    )
    both = {name: np.concatenate([getattr(quiet, name), getattr(loud, name)]) for name in ("a", "b", "preference")}
    rest = {
        name: np.concatenate([getattr(quiet, name), getattr(loud, name)]) for name in ("weight", "judge", "swapped")
    }
    columns = dataclasses.replace(quiet, **both, **rest, offsets=np.array([0, 2 * len(quiet.a)]))
    judges = fit_with_judges(columns, model="bradley-terry", prior_precision=0.05).judges
    assert judges.dispersion[0] < 0.3 * judges.dispersion[1]
    assert judges.weight[0] > 3.0 * judges.weight[1]


def test_anchors_without_common_candidates_are_refused() -> None:
    columns, _ = panel([1.0, 1.0], queries=3)
    with pytest.raises(NoAnchorAnswers, match=r"\[9\]"):
        fit_with_judges(columns, anchors=[PEOPLE])


@pytest.mark.parametrize("model", list(MODEL_CODES))
def test_votes_of_plain_judges_give_the_ordinary_fit(model: str) -> None:
    columns, _ = soft_query(40, degree=8)
    ones = np.ones(len(columns.a))
    plain = fit_queries(columns, model=model, prior_precision=0.2)
    votes = fit_votes(columns, VoteTerms(ones, 0.0 * ones, ones), model=model, prior_precision=0.2)
    np.testing.assert_allclose(votes.theta, plain.theta, atol=1e-8)
    np.testing.assert_allclose(votes.stderr, plain.stderr, rtol=1e-6)


def test_turning_pair_and_slope_round_changes_nothing() -> None:
    columns, _ = soft_query(20)
    ones = np.ones(len(columns.a))
    turned = dataclasses.replace(columns, a=columns.b, b=columns.a)
    first = fit_votes(columns, VoteTerms(1.5 * ones, 0.3 * ones, ones), model="thurstone", prior_precision=0.2)
    second = fit_votes(turned, VoteTerms(-1.5 * ones, 0.3 * ones, ones), model="thurstone", prior_precision=0.2)
    np.testing.assert_allclose(first.theta, second.theta, atol=1e-8)
