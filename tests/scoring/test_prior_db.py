"""The prior that a project's fits share: chosen from its judgments, used by its rater, kept while it holds."""

from __future__ import annotations

import numpy as np
import pytest

from labeling.models import Project
from scoring import project_fits
from scoring.models import ProjectFit, QueryFit, Score
from scoring.project_fits import choose_project_fit, project_rater, sampled_query_ids
from scoring.rating import rate_queries, rate_stale, stale_query_ids
from tests.factories.judged import Judged, answer, draw_pairs, make_judged
from tests.factories.rows import judge_pair, make_judges, make_pair

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture
def judged() -> Judged:
    rng = np.random.default_rng(5)
    judged = make_judged(queries=6, size=12, rng=rng)
    pairs = draw_pairs(judged, 6, rng)
    for judge in make_judges(judged.project, 2):
        answer(judged, judge, pairs, rng)
    rate_stale(judged.project.pk)
    return judged


def test_a_prior_is_chosen_by_cross_validation_and_stored_with_every_fit(judged: Judged) -> None:
    chosen = choose_project_fit(judged.project.pk)
    assert chosen.cross_validated and chosen.changed and chosen.version == 1
    shared = ProjectFit.objects.get(project=judged.project)
    assert shared.pairs == 6 * 36
    precisions, losses = zip(*shared.losses, strict=True)
    best = precisions[int(np.argmin(losses))]
    assert best / 2 <= chosen.prior_precision <= best * 2
    rate_stale(judged.project.pk)
    stored = QueryFit.objects.filter(query__project=judged.project)
    assert set(stored.values_list("prior_precision", "project_version")) == {(chosen.prior_precision, 1)}


def test_a_changed_prior_makes_every_fitted_query_stale_once(judged: Judged) -> None:
    assert stale_query_ids(judged.project.pk) == []
    choose_project_fit(judged.project.pk)
    assert sorted(stale_query_ids(judged.project.pk)) == sorted(judged.candidates)
    assert rate_stale(judged.project.pk).queries == 6
    assert stale_query_ids(judged.project.pk) == []


def test_choosing_again_from_the_same_judgments_refits_nothing(judged: Judged) -> None:
    first = choose_project_fit(judged.project.pk)
    rate_stale(judged.project.pk)
    again = choose_project_fit(judged.project.pk)
    assert not again.changed and again.version == first.version
    assert again.prior_precision == first.prior_precision
    assert stale_query_ids(judged.project.pk) == []


def test_new_answers_are_fitted_before_old_fits_get_the_new_prior(judged: Judged) -> None:
    choose_project_fit(judged.project.pk)
    last = judged.queries[-1]
    judge = make_judges(judged.project, 3)[2]
    judge_pair(make_pair(last), judge)
    assert stale_query_ids(judged.project.pk, limit=1) == [last.pk]


def test_a_prior_that_the_project_fixes_is_left_alone(judged: Judged) -> None:
    Project.objects.filter(pk=judged.project.pk).update(rater_options={"prior_precision": 0.7})
    chosen = choose_project_fit(judged.project.pk)
    assert chosen.prior_precision is None and not chosen.changed
    rate_queries(judged.project.pk, list(judged.candidates))
    assert set(QueryFit.objects.values_list("prior_precision", flat=True)) == {0.7}


def test_too_few_pairs_leave_the_raters_default() -> None:
    rng = np.random.default_rng(1)
    judged = make_judged(queries=1, size=5, rng=rng)
    answer(judged, make_judges(judged.project)[0], draw_pairs(judged, 4, rng), rng)
    rate_stale(judged.project.pk)
    chosen = choose_project_fit(judged.project.pk)
    assert chosen.prior_precision is None and not chosen.cross_validated and not chosen.changed
    assert project_rater(judged.project).prior_precision == 0.1  # type: ignore[attr-defined]


def test_a_fit_with_an_older_prior_never_replaces_a_newer_one(judged: Judged) -> None:
    chosen = choose_project_fit(judged.project.pk)
    rate_stale(judged.project.pk)
    before = dict(Score.objects.values_list("candidate_id", "theta"))
    ProjectFit.objects.filter(project=judged.project).update(version=0, prior_precision=50.0)
    rate_queries(judged.project.pk, list(judged.candidates))
    assert dict(Score.objects.values_list("candidate_id", "theta")) == before
    assert set(QueryFit.objects.values_list("prior_precision", flat=True)) == {chosen.prior_precision}


def test_the_sample_is_bounded_and_the_same_for_the_same_seed(judged: Judged) -> None:
    whole = sampled_query_ids(judged.project.pk)
    assert whole == sorted(judged.candidates)
    some = sampled_query_ids(judged.project.pk, most=100)
    assert len(some) == 2 and some == sampled_query_ids(judged.project.pk, most=100)  # 72 judgments a query
    others = {tuple(sampled_query_ids(judged.project.pk, most=100, seed=seed)) for seed in range(8)}
    assert len(others) > 1


def test_a_rater_of_another_name_does_not_inherit_the_prior(judged: Judged) -> None:
    choose_project_fit(judged.project.pk)
    judged.project.rater = "bradley-terry"
    judged.project.save()
    assert project_rater(judged.project).prior_precision == 0.02  # type: ignore[attr-defined]
    chosen = choose_project_fit(judged.project.pk)
    assert chosen.changed
    assert ProjectFit.objects.get(project=judged.project).rater == "bradley-terry"


def test_growth_is_measured_by_what_entered_the_fits(judged: Judged) -> None:
    assert project_fits.fitted_judgments(judged.project.pk) == 6 * 36 * 2
