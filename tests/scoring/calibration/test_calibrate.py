"""Calibration of a project: biases from cross-query answers, relevance from people, and what scores show."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from labeling.access.annotators import get_person
from labeling.judgments import record_judgments
from labeling.models import Candidate, Judgment, Pair, Project
from labeling.records import AnswerKind, NewJudgment
from scoring.calibration.calibrate import (
    NothingRated,
    apply_calibration,
    calibrate_project,
    fit_calibration,
    project_calibration,
    query_biases,
)
from scoring.calibration.cross_query import sample_cross_pairs
from scoring.calibration.data import read_calibration_data
from scoring.models import Calibration, ProjectFit, QueryFit, Score
from scoring.project_fits import choose_project_fit
from scoring.rating import rate_queries, rate_stale
from scoring.sampling.samplers import CrossQuery
from tests.factories.judged import Judged, answer, draw_pairs, grade, make_judged, stored
from tests.factories.rows import judge_pair, make_judges, make_project, make_user

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]

QUERIES, SIZE = 30, 10


@pytest.fixture
def judged() -> Judged:
    """Queries of different level, judged within themselves and rated."""
    rng = np.random.default_rng(11)
    judged = make_judged(queries=QUERIES, size=SIZE, rng=rng, level_spread=1.5)
    answer(judged, make_judges(judged.project)[0], draw_pairs(judged, 6, rng), rng, noise=0.3)
    rate_stale(judged.project.pk)
    choose_project_fit(judged.project.pk)
    rate_stale(judged.project.pk)
    return judged


def judge_across(judged: Judged, *, per_query: int = 3, queries: list[int] | None = None, seed: int = 2) -> None:
    """Cross-query answers on a random regular graph over these queries."""
    pairs = sample_cross_pairs(
        judged.project.pk,
        CrossQuery(CrossQuery.Options(pairs_per_query=per_query)),
        budget=10_000,
        seed=seed,
        round_number=1,
        query_ids=queries,
    )
    answer(judged, make_judges(judged.project)[0], stored(pairs, None), np.random.default_rng(seed), noise=0.3)


def true_levels(judged: Judged) -> np.ndarray:
    """What a query's bias should be, in logits: the mean of its candidates."""
    return np.array([np.mean([judged.logits[each] for each in ids]) for ids in judged.candidates.values()])


def elo_by_candidate(judged: Judged) -> tuple[np.ndarray, np.ndarray]:
    """Elo and true logits of all candidates, in one order."""
    elo = dict(Score.objects.values_list("candidate_id", "elo"))
    ids = sorted(judged.logits)
    return np.array([elo[each] for each in ids]), np.array([judged.logits[each] for each in ids])


# --- biases ------------------------------------------------------------------------------


def test_biases_recover_the_levels_of_queries_within_their_intervals(judged: Judged) -> None:
    judge_across(judged)
    found = calibrate_project(judged.project.pk)
    assert (found.pairs, found.islands) == (QUERIES * 3, 1)
    fits = QueryFit.objects.order_by("query_id")
    scale = fits[0].logit_scale
    bias = np.array([fit.bias for fit in fits]) * scale
    stderr = np.array([fit.bias_stderr for fit in fits]) * scale
    levels = true_levels(judged)
    error = bias - (levels - levels.mean())
    assert np.sqrt(np.mean(error**2)) < 0.35  # logits, where levels spread by 1.5
    assert np.mean(np.abs(error) < 3.0 * stderr) > 0.8
    assert abs(bias.mean()) < 1e-6
    assert {fit.bias_island for fit in fits} == {0}


def test_elo_of_all_queries_is_on_one_scale_after_calibration(judged: Judged) -> None:
    before = spearmanr(*elo_by_candidate(judged)).statistic
    judge_across(judged)
    calibrate_project(judged.project.pk)
    after = spearmanr(*elo_by_candidate(judged)).statistic
    assert after > 0.97 > before


def test_calibration_never_changes_the_order_within_a_query(judged: Judged) -> None:
    before = dict(Score.objects.values_list("candidate_id", "elo"))
    judge_across(judged)
    calibrate_project(judged.project.pk)
    after = dict(Score.objects.values_list("candidate_id", "elo"))
    for ids in judged.candidates.values():
        shift = {round(after[each] - before[each], 6) for each in ids}
        assert len(shift) == 1


def test_new_cross_query_answers_make_the_calibration_stale(judged: Judged) -> None:
    judge_across(judged)
    assert project_calibration(judged.project).stale
    calibrate_project(judged.project.pk)
    shown = project_calibration(judged.project)
    assert not shown.stale and shown.version == Project.objects.get(pk=judged.project.pk).calibration_version == 1
    judge_across(judged, per_query=4, seed=3)
    assert project_calibration(judged.project).stale
    assert calibrate_project(judged.project.pk).version == 2
    assert list(Calibration.objects.values_list("version", flat=True)) == [2, 1]


def test_a_refit_keeps_bias_and_calibrated_relevance(judged: Judged) -> None:
    judge_across(judged)
    grade(judged)
    calibrate_project(judged.project.pk)
    before = {row[0]: row[1:] for row in Score.objects.values_list("candidate_id", "elo", "relevance", "calibrated")}
    rate_queries(judged.project.pk, list(judged.candidates))
    after = {row[0]: row[1:] for row in Score.objects.values_list("candidate_id", "elo", "relevance", "calibrated")}
    assert {each[2] for each in after.values()} == {True}
    for candidate, (elo, relevance, _) in before.items():
        assert after[candidate][:2] == pytest.approx((elo, relevance), abs=1e-6)


def test_bias_is_rescaled_where_the_rater_is_changed(judged: Judged) -> None:
    judge_across(judged)
    calibrate_project(judged.project.pk)
    before = {fit.query_id: fit.bias * fit.logit_scale for fit in QueryFit.objects.all()}
    Project.objects.filter(pk=judged.project.pk).update(rater="bradley-terry")
    rate_queries(judged.project.pk, list(judged.candidates))
    for fit in QueryFit.objects.all():
        assert fit.logit_scale == 1.0
        assert fit.bias == pytest.approx(before[fit.query_id])


# --- islands -----------------------------------------------------------------------------


def test_of_two_islands_of_one_size_the_texts_decide_which_is_calibrated(judged: Judged) -> None:
    """Not the order in which their queries were imported."""
    names = read_calibration_data(judged.project.pk, judge_terms={}).strengths.names
    ids, lowest = [query.pk for query in judged.queries], int(names.argmin())
    assert lowest > 0
    halves = [ids[lowest:] + ids[1:lowest], ids[:1]]
    one, other = halves[0][: QUERIES // 2], halves[1] + halves[0][QUERIES // 2 :]
    for number, queries in enumerate((one, other)):
        judge_across(judged, queries=queries, seed=number)
    biases = query_biases(read_calibration_data(judged.project.pk, judge_terms={}), model="thurstone")
    assert biases is not None and biases.island.max() == 1
    assert sorted(biases.query_ids[biases.island == 0].tolist()) == sorted(one)


def test_islands_are_named_and_only_the_largest_is_calibrated(judged: Judged) -> None:
    ids = list(judged.candidates)
    judge_across(judged, queries=ids[:18])
    judge_across(judged, queries=ids[18:28], seed=3)
    grade(judged)
    found = calibrate_project(judged.project.pk)
    assert found.islands == 4  # 18, 10 and two queries that no pair reaches
    shown = project_calibration(judged.project)
    assert [island.queries for island in shown.islands] == [18, 10]
    assert shown.islands[1].names[0] == "query-18"
    assert (shown.unlinked, shown.unlinked_names) == (2, ("query-28", "query-29"))
    calibrated = set(Score.objects.filter(calibrated=True).values_list("candidate__query_id", flat=True))
    assert calibrated == set(ids[:18])
    unlinked = QueryFit.objects.get(query_id=ids[29])
    assert (unlinked.bias, unlinked.bias_stderr, unlinked.bias_island) == (None, None, None)


def test_a_query_that_lost_its_links_loses_its_bias(judged: Judged) -> None:
    judge_across(judged)
    calibrate_project(judged.project.pk)
    lost = judged.queries[0]
    across = Judgment.objects.filter(pair__query=None)
    (across.filter(pair__a__query=lost) | across.filter(pair__b__query=lost)).delete()
    calibrate_project(judged.project.pk)
    assert QueryFit.objects.get(query=lost).bias is None
    elos = Score.objects.filter(candidate__query=lost).values_list("elo", flat=True)
    assert np.mean(list(elos)) == pytest.approx(1500.0, abs=1e-6)


# --- relevance ---------------------------------------------------------------------------


def test_relevance_rests_on_grades_of_held_out_queries(judged: Judged) -> None:
    judge_across(judged)
    grade(judged)
    found = calibrate_project(judged.project.pk)
    assert found.answers == QUERIES * SIZE
    shown = project_calibration(judged.project)
    assert shown.calibrated and shown.source == "grades" and shown.queries == QUERIES
    assert sum(each.count for each in shown.bins) == shown.answers
    ece = sum(abs(each.predicted - each.observed) * each.count for each in shown.bins) / shown.answers
    assert shown.ece == pytest.approx(ece) and ece < 0.1
    rows = Score.objects.values_list("relevance", "candidate__grade", "calibrated")
    assert all(calibrated for _, _, calibrated in rows)
    mean = [np.mean([relevance for relevance, value, _ in rows if value == level]) for level in range(3)]
    assert mean[0] < 0.35 < mean[1] < 0.7 < mean[2]


def test_without_grades_or_people_relevance_is_labelled_uncalibrated(judged: Judged) -> None:
    judge_across(judged)
    assert calibrate_project(judged.project.pk).method == ""
    shown = project_calibration(judged.project)
    assert not shown.calibrated and shown.answers == 0 and shown.ece is None
    assert "until there are at least 20" in shown.reason
    assert set(Score.objects.values_list("calibrated", flat=True)) == {False}


def test_grades_alone_calibrate_relevance_without_any_bias(judged: Judged) -> None:
    grade(judged)
    found = calibrate_project(judged.project.pk)
    assert found.pairs == 0 and found.islands == QUERIES and found.answers == QUERIES * SIZE
    assert set(Score.objects.values_list("calibrated", flat=True)) == {True}
    assert set(QueryFit.objects.values_list("bias", flat=True)) == {None}


def test_where_only_positive_grades_exist_ungraded_candidates_count_as_irrelevant(judged: Judged) -> None:
    for ids in list(judged.candidates.values())[:10]:
        best = max(ids, key=lambda each: judged.logits[each])
        Candidate.objects.filter(pk=best).update(grade=1)
    assert calibrate_project(judged.project.pk).answers == 10 * SIZE
    assert project_calibration(judged.project).ungraded_as_zero


def test_peoples_answers_stand_in_where_nothing_is_graded(judged: Judged) -> None:
    person = get_person(judged.project, make_user())
    rng = np.random.default_rng(4)
    answer(judged, person, draw_pairs(judged, 2, rng)[:60], rng, noise=0.2)
    rate_stale(judged.project.pk)
    found = calibrate_project(judged.project.pk)
    shown = project_calibration(judged.project)
    assert shown.source == "people" and found.answers == 120  # both sides of sixty answers


def test_neither_is_relevant_counts_as_irrelevant_for_both(judged: Judged) -> None:
    person = get_person(judged.project, make_user())
    pair, a, b = draw_pairs(judged, 2, np.random.default_rng(4))[0]
    judge_pair(Pair.objects.get(pk=pair), person, None, kind=AnswerKind.BOTH_IRRELEVANT)
    data = read_calibration_data(judged.project.pk, judge_terms={})
    found = dict(zip(data.strengths.candidate_ids[data.answers.position].tolist(), data.answers.outcome, strict=True))
    assert found == {a: 0.0, b: 0.0}


# --- interruptions and refusals ----------------------------------------------------------


def test_an_interrupted_rewrite_of_scores_is_finished_by_the_next(
    judged: Judged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scoring.calibration.calibrate.QUERIES_AT_ONCE", 7)
    judge_across(judged)
    fit_calibration(judged.project.pk)
    assert apply_calibration(judged.project.pk, slice_s=0.0) is False
    latest = Calibration.objects.get()
    assert QueryFit.objects.filter(calibration_id=latest.pk).count() == 7
    assert apply_calibration(judged.project.pk) is True
    assert QueryFit.objects.filter(calibration_id=latest.pk).count() == QUERIES
    assert spearmanr(*elo_by_candidate(judged)).statistic > 0.97


def test_a_repeat_leaves_one_row_for_one_version(judged: Judged) -> None:
    judge_across(judged)
    first = calibrate_project(judged.project.pk)
    assert calibrate_project(judged.project.pk) == first
    assert Calibration.objects.count() == 1


def test_nothing_is_stored_where_there_is_nothing_to_calibrate(judged: Judged) -> None:
    calibrate_project(judged.project.pk)
    assert not Calibration.objects.exists()
    assert ProjectFit.objects.get(project=judged.project).calibrated_at is not None
    assert project_calibration(judged.project).version == 0


def test_a_project_without_scores_is_refused() -> None:
    project = make_project(queries=2)
    with pytest.raises(NothingRated, match="judges pairs within queries first"):
        calibrate_project(project.pk)


def test_an_unknown_project_is_refused() -> None:
    with pytest.raises(Project.DoesNotExist):
        calibrate_project(10**9)


def test_answers_across_projects_or_within_a_query_never_enter(judged: Judged) -> None:
    other = make_judged(queries=1, size=3, rng=np.random.default_rng(1))
    mine, theirs = next(iter(judged.candidates.values())), next(iter(other.candidates.values()))
    pairs = stored(np.array([[mine[0], theirs[0]], [mine[0], mine[1]]]), None)
    judge = make_judges(judged.project)[0]
    record_judgments([NewJudgment(pair, judge.pk, False, 0.9) for pair, _, _ in pairs])
    assert read_calibration_data(judged.project.pk, judge_terms={}).judgments == 0


# --- cross-query pairs -------------------------------------------------------------------


def test_cross_query_pairs_join_two_queries_by_candidates_of_middle_strength(judged: Judged) -> None:
    sampler = CrossQuery(CrossQuery.Options(pairs_per_query=3))
    pairs = sample_cross_pairs(judged.project.pk, sampler, budget=10_000, seed=1, round_number=1)
    assert len(pairs) == QUERIES * 3 and (pairs[:, 0] < pairs[:, 1]).all()
    of = {each: query for query, ids in judged.candidates.items() for each in ids}
    joined = [(of[a], of[b]) for a, b in pairs.tolist()]
    assert all(a != b for a, b in joined)
    assert set(np.bincount(np.unique(np.array(joined).ravel(), return_inverse=True)[1])) == {6}
    theta = dict(Score.objects.values_list("candidate_id", "theta"))
    for query, ids in judged.candidates.items():
        ranked = sorted(ids, key=lambda each: theta[each])
        assert set(pairs.ravel().tolist()) & set(ids) <= set(ranked[2:8]), query


def test_the_same_seed_draws_the_same_cross_query_pairs_and_never_one_again(judged: Judged) -> None:
    sampler = CrossQuery(CrossQuery.Options(pairs_per_query=2))
    draw = {"budget": 10_000, "seed": 1, "round_number": 1}
    first = sample_cross_pairs(judged.project.pk, sampler, **draw)
    assert np.array_equal(first, sample_cross_pairs(judged.project.pk, sampler, **draw))
    answer(judged, make_judges(judged.project)[0], stored(first, None), np.random.default_rng(0))
    assert len(sample_cross_pairs(judged.project.pk, sampler, **draw)) == 0


def test_the_texts_decide_which_cross_query_pairs_are_drawn(judged: Judged) -> None:
    """What stood in the first query's rows stands in the last one's: other primary keys, the same pairs of texts."""
    sampler = CrossQuery(CrossQuery.Options(pairs_per_query=2))
    draw = {"budget": 40, "seed": 1, "round_number": 1}

    def drawn() -> set[frozenset[tuple[str, float]]]:
        pairs = sample_cross_pairs(judged.project.pk, sampler, **draw)
        rows = Score.objects.values_list("candidate_id", "candidate__query__text", "theta")
        what = {pk: (text, round(theta, 9)) for pk, text, theta in rows}
        return {frozenset((what[a], what[b])) for a, b in pairs.tolist()}

    before = drawn()
    queries = list(judged.project.queries.order_by("id"))
    scores = [list(Score.objects.filter(candidate__query=each).order_by("candidate_id")) for each in queries]
    texts, thetas = [each.text for each in queries], [[score.theta for score in own] for own in scores]
    for query, text, own, values in zip(queries, texts[::-1], scores, thetas[::-1], strict=True):
        query.text = text
        query.save()
        for score, theta in zip(own, values, strict=True):
            score.theta = theta
            score.save()
    assert len(set(texts)) == QUERIES and drawn() == before


def test_a_budget_limits_cross_query_pairs(judged: Judged) -> None:
    pairs = sample_cross_pairs(judged.project.pk, CrossQuery(), budget=12, seed=1, round_number=1)
    assert len(pairs) == 12
