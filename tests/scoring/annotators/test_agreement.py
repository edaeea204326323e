"""Agreement and judges' figures: what pages and the report say about who judged, on simulated panels."""

from __future__ import annotations

import numpy as np
import pytest

from labeling.access.annotators import get_person
from labeling.annotation.gold import set_gold
from labeling.judgments import record_judgments
from labeling.models import Annotator, GoldAnswer, Pair, Project
from labeling.records import NewJudgment
from scoring.annotators.agreement import judge_figures
from scoring.models import JudgeFit, ProjectFit, Score
from scoring.numerics.measures.metrics import cohen_kappa, kendall
from scoring.numerics.measures.sides import Share, agreement, side, turned
from scoring.project_fits import choose_project_fit
from scoring.quality import judge_strengths
from scoring.rating import rate_stale
from tests.factories.judged import Judged, answer, draw_pairs, grade, make_judged
from tests.factories.rows import (
    answer_each_way,
    judge_pair,
    make_judges,
    make_member,
    make_pair,
    make_project,
    make_user,
)
from workers.monitoring import judge_summary

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


def make_panel(*, sharpness: list[float], shared: bool = False, noise: float = 0.7) -> tuple[Judged, list[Annotator]]:
    """Six queries of ten; each judge has its sharpness; `shared`: the first two make the same errors."""
    rng = np.random.default_rng(8)
    judged = make_judged(queries=6, size=10, rng=rng)
    pairs = draw_pairs(judged, 8, rng)
    judges = make_judges(judged.project, len(sharpness))
    errors = rng.normal(0.0, 2.0, len(pairs))
    for number, (judge, value) in enumerate(zip(judges, sharpness, strict=True)):
        common = errors if shared and number < 2 else None
        answer(judged, judge, pairs, rng, noise=noise, sharpness=value, shared=common, position_bias=0.4 * number)
    rate_stale(judged.project.pk)
    return judged, judges


def mean_tau(judged: Judged) -> float:
    """Kendall's tau of fitted and true strengths, mean over queries."""
    theta = dict(Score.objects.values_list("candidate_id", "theta"))
    of = [[(theta[each], judged.logits[each]) for each in ids] for ids in judged.candidates.values()]
    return float(np.mean([kendall(*zip(*rows, strict=True)) for rows in of]))


# --- sides and shares --------------------------------------------------------------------


def test_a_preference_near_a_half_takes_no_side() -> None:
    assert side(np.array([0.1, 0.46, 0.5, 0.54, 0.9, np.nan])).tolist()[:5] == [-1.0, 0.0, 0.0, 0.0, 1.0]
    assert np.isnan(side(np.array([np.nan]))[0])


def test_agreement_counts_common_pairs_and_a_tie_as_half() -> None:
    found = agreement(np.array([0.9, 0.9, 0.9, np.nan]), np.array([0.8, 0.1, 0.5, 0.9]))
    assert (found.hits, found.count) == (1.5, 3)
    assert found.value == 0.5
    assert Share(0.0, 0).value is None


# --- figures of a project ----------------------------------------------------------------


def test_two_judges_kappa_and_disagreement_are_those_of_their_sides() -> None:
    project = make_project(queries=4, documents=4)
    first, second = make_judges(project, 2)
    rng = np.random.default_rng(0)
    sides: list[tuple[float, float]] = []
    for query in project.queries.all():
        for a, b in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]:
            x, y = rng.choice([0.1, 0.9]), rng.choice([0.1, 0.9])
            judge_pair(make_pair(query, a, b), first, x)
            judge_pair(make_pair(query, a, b), second, y)
            sides.append((x, y))
    rate_stale(project.pk)
    found = judge_figures(project)
    x, y = np.array(sides).T
    assert found.pairs == 24
    assert found.kappas[0].kappa == pytest.approx(cohen_kappa(np.sign(x - 0.5), np.sign(y - 0.5), mirror=turned))
    assert (found.disagreement.hits, found.disagreement.count) == ((x != y).sum(), 24)
    assert found.annotators[0].with_others.hits == (x == y).sum()


def test_order_flips_are_counted_on_pairs_asked_in_both_orders() -> None:
    project = make_project(queries=1, documents=4)
    (judge,) = make_judges(project)
    query = project.queries.get()
    for (a, b), (plain, swapped) in {(0, 1): (0.9, 0.1), (0, 2): (0.9, 0.8), (0, 3): (0.9, 0.5)}.items():
        judge_pair(make_pair(query, a, b), judge, plain)
        judge_pair(make_pair(query, a, b), judge, swapped, swapped=True)
    judge_pair(make_pair(query, 1, 2), judge, 0.7)
    rate_stale(project.pk)
    flips = judge_figures(project).annotators[0].flips
    assert (flips.hits, flips.count) == (1.5, 3)


def test_gold_accuracy_is_of_answers_to_gold_pairs_alone() -> None:
    project = make_project(queries=1, documents=4)
    query = project.queries.get()
    person = get_person(project, make_user())
    for (a, b), (gold, given) in {(0, 1): (0.95, 0.75), (0, 2): (0.05, 0.95), (0, 3): (None, 0.1)}.items():
        pair = make_pair(query, a, b)
        if gold:
            GoldAnswer.objects.create(pair=pair, preference=gold)
        judge_pair(pair, person, given)
    rate_stale(project.pk)
    gold_share = judge_figures(project).annotators[0].gold
    assert (gold_share.hits, gold_share.count) == (1.0, 2)


def test_models_are_compared_with_people_and_people_come_last() -> None:
    project = make_project(queries=1, documents=4)
    query = project.queries.get()
    person = get_person(project, make_user())
    (judge,) = make_judges(project)
    for (a, b), (human, model) in {(0, 1): (0.95, 0.8), (0, 2): (0.95, 0.3), (0, 3): (0.05, 0.2)}.items():
        judge_pair(make_pair(query, a, b), person, human)
        judge_pair(make_pair(query, a, b), judge, model)
    rate_stale(project.pk)
    found = judge_figures(project)
    assert [each.is_person for each in found.annotators] == [False, True]
    assert (found.annotators[0].with_people.hits, found.annotators[0].with_people.count) == (2.0, 3)
    assert found.annotators[1].with_people.count == 0


def test_verdicts_and_answers_given_anew_after_others_were_seen_are_no_opinions() -> None:
    project = make_project(queries=1, documents=4)
    query = project.queries.get()
    user = make_member(project, "owner")
    (judge,) = make_judges(project)
    pairs = [make_pair(query, 0, at) for at in (1, 2, 3)]
    for pair in pairs:
        set_gold(pair.pk, 0.95)
    answer_each_way(judge, user, pairs)
    rate_stale(project.pk)
    found = judge_figures(project)
    model, human = found.annotators
    assert (model.with_people.hits, model.with_people.count) == (0.0, 1)
    assert (human.with_others.count, human.answers) == (1, 1)
    assert (found.disagreement.hits, found.disagreement.count) == (1.0, 1)
    assert (human.gold.hits, human.gold.count) == (0.0, 2)  # as first answered, before the expected was shown


def test_a_project_that_nobody_judged_has_no_figures() -> None:
    found = judge_figures(make_project(queries=1))
    assert (found.annotators, found.kappas, found.alpha, found.pairs) == ((), (), None, 0)
    assert found.disagreement.value is None


# --- measured judges ---------------------------------------------------------------------


def test_sharpness_and_position_bias_are_measured_with_intervals_and_without_anchors() -> None:
    judged, judges = make_panel(sharpness=[1.6, 0.4])
    choose_project_fit(judged.project.pk)
    sharp, blunt = (JudgeFit.objects.get(annotator=judge) for judge in judges)
    assert sharp.sharpness - 3 * sharp.sharpness_stderr > blunt.sharpness + 3 * blunt.sharpness_stderr
    assert abs(sharp.position_bias) < 3 * sharp.position_bias_stderr
    assert blunt.position_bias > 3 * blunt.position_bias_stderr  # it favours what is shown first
    assert (sharp.anchors, sharp.votes) == (0, 6 * 40)
    shown = judge_figures(judged.project).annotators[0].sharpness
    assert shown is not None and shown.low < shown.value < shown.high


def test_judges_that_share_errors_are_named() -> None:
    judged, judges = make_panel(sharpness=[1.0, 1.0, 1.0], shared=True)
    choose_project_fit(judged.project.pk)
    found = judge_figures(judged.project).shared_errors
    told = [f"{each.name} ({each.pk})" for each in judges]  # all have one name
    assert [(each.first, each.second) for each in found] == [(told[0], told[1])]
    assert found[0].correlation > 0.2
    figures = judge_figures(judged.project)
    assert {each.name for each in figures.annotators} == set(told)
    assert {name for each in figures.kappas for name in (each.first, each.second)} == set(told)
    assert {each.name for each in judge_summary.judge_figures(judged.project)} == set(told)


def test_grades_anchor_judges_and_an_adversary_gets_a_negative_sharpness() -> None:
    judged, judges = make_panel(sharpness=[1.0, 1.0, -1.0])
    grade(judged)
    choose_project_fit(judged.project.pk)
    fits = [JudgeFit.objects.get(annotator=judge) for judge in judges]
    assert all(fit.anchors == 6 * 40 for fit in fits)
    assert fits[0].sharpness > 0.5 and fits[1].sharpness > 0.5
    assert fits[2].sharpness + 3 * fits[2].sharpness_stderr < 0.0
    assert all(each.anchored for each in judge_figures(judged.project).annotators)


def test_people_anchor_judges_too() -> None:
    judged, judges = make_panel(sharpness=[1.0, -1.0])
    person = get_person(judged.project, make_user())
    rng = np.random.default_rng(2)
    answer(judged, person, draw_pairs(judged, 4, rng), rng, noise=0.3)
    rate_stale(judged.project.pk)
    choose_project_fit(judged.project.pk)
    assert JudgeFit.objects.get(annotator=judges[1]).sharpness < 0.0
    assert JudgeFit.objects.get(annotator=judges[0]).anchors == 6 * 20
    assert not JudgeFit.objects.filter(annotator=person).exists()


# --- weights in the fit ------------------------------------------------------------------


def test_judges_count_alike_unless_the_project_opts_in() -> None:
    judged, _ = make_panel(sharpness=[1.0, 1.0, -1.0])
    grade(judged)
    choose_project_fit(judged.project.pk)
    assert {(sharpness, weight) for sharpness, _, weight in ProjectFit.objects.get().judge_terms.values()} == {
        (1.0, 1.0)
    }


def test_a_judges_position_bias_is_taken_out_of_its_answers() -> None:
    judged, judges = make_panel(sharpness=[1.0, 1.0, 1.0, 1.0])
    kept = mean_tau(judged)
    assert choose_project_fit(judged.project.pk).changed
    rate_stale(judged.project.pk)
    terms = ProjectFit.objects.get().judge_terms
    assert str(judges[0].pk) not in terms, "it has none"
    assert [bias > 0.1 for _, bias, _ in (terms[str(judge.pk)] for judge in judges[2:])] == [True, True]
    assert mean_tau(judged) > kept
    removed = judge_strengths(judged.project, [query.pk for query in judged.queries])
    Project.objects.update(rater_options={"position_bias": "kept"})
    assert choose_project_fit(judged.project.pk).changed
    rate_stale(judged.project.pk)
    assert ProjectFit.objects.get().judge_terms == {}
    assert mean_tau(judged) == pytest.approx(kept)
    alone = judge_strengths(judged.project, [query.pk for query in judged.queries])
    unbiased, biased = judges[0].pk, judges[3].pk
    assert alone[unbiased] == pytest.approx(removed[unbiased], abs=1e-6)
    assert alone[biased] != pytest.approx(removed[biased], abs=1e-2)


def test_people_without_anchored_weights_lose_no_position_bias() -> None:
    judged, judges = make_panel(sharpness=[1.0, 1.0, 1.0])
    person = get_person(judged.project, make_user())
    rng = np.random.default_rng(2)
    answer(judged, person, draw_pairs(judged, 8, rng), rng, noise=0.3, position_bias=1.0)
    rate_stale(judged.project.pk)
    choose_project_fit(judged.project.pk)
    assert str(judges[2].pk) in ProjectFit.objects.get().judge_terms
    assert str(person.pk) not in ProjectFit.objects.get().judge_terms


def test_anchored_weights_turn_an_adversary_round() -> None:
    judged, _ = make_panel(sharpness=[1.0, 0.5, -1.5])
    plain = mean_tau(judged)
    grade(judged)
    Project.objects.update(rater_options={"judge_weights": "anchored"})
    assert choose_project_fit(judged.project.pk).changed
    rate_stale(judged.project.pk)
    assert mean_tau(judged) > plain + 0.12


def test_opting_in_without_anchors_changes_nothing() -> None:
    judged, _ = make_panel(sharpness=[1.0, 0.5])
    choose_project_fit(judged.project.pk)
    equal = ProjectFit.objects.get().judge_terms
    Project.objects.update(rater_options={"judge_weights": "anchored"})
    choose_project_fit(judged.project.pk)
    assert ProjectFit.objects.get().judge_terms == equal


def test_grades_give_weights_but_never_enter_a_strength() -> None:
    judged, judges = make_panel(sharpness=[1.0, 1.0])
    late = make_judged(queries=1, size=4, rng=np.random.default_rng(0))  # a project of its own, graded, unjudged
    grade(late)
    grade(judged)
    Project.objects.update(rater_options={"judge_weights": "anchored"})
    choose_project_fit(judged.project.pk)
    rate_stale(judged.project.pk)
    before = dict(Score.objects.values_list("candidate_id", "theta"))
    terms = ProjectFit.objects.get().judge_terms
    assert set(terms) == {str(judge.pk) for judge in judges}
    for query in judged.queries:
        query.candidates.update(grade=None)
    pair = Pair.objects.filter(query=judged.queries[0]).first()
    record_judgments([NewJudgment(pair.pk, judges[0].pk, True, 0.5)])
    rate_stale(judged.project.pk)
    others = [each for query in judged.queries[1:] for each in judged.candidates[query.pk]]
    after = dict(Score.objects.values_list("candidate_id", "theta"))
    assert [after[each] for each in others] == [before[each] for each in others]
