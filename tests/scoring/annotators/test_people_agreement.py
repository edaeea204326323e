"""Agreement of people with each other and with judges: the peers' figures, and words where there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from labeling.access.annotators import get_person
from labeling.annotation.context import find_screen_context
from labeling.annotation.gold import gold_record, gold_records, set_gold
from labeling.judgments import record_judgments, supersede_judgments
from labeling.models import Annotator, Judgment, Pair, Project, SpotCheck
from labeling.models.screen import SeenAnswers
from labeling.records import AnswerKind, NewJudgment
from scoring.annotators.adjudication import adjudicate
from scoring.annotators.people import people_figures
from scoring.annotators.people_agreement import Coefficient, PeopleAgreement, Undefined, people_agreement
from tests.factories.rows import make_judges, make_member, make_pair, make_project

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture
def project() -> Project:
    return make_project(queries=1, documents=9)


@pytest.fixture
def pairs(project: Project) -> list[Pair]:
    query = project.queries.get()
    return [make_pair(query, a, b) for a in range(9) for b in range(a + 1, 9)]


def person(project: Project) -> Annotator:
    return get_person(project, make_member(project, "annotator"))


def answers(annotator: Annotator, pairs: list[Pair], values: np.ndarray, *, swapped: bool = False) -> None:
    record_judgments(
        [NewJudgment(pair.pk, annotator.pk, swapped, float(p)) for pair, p in zip(pairs, values, strict=True)]
    )


def test_kappa_of_two_people_and_of_a_judge_is_that_of_their_sides(project: Project, pairs: list[Pair]) -> None:
    rng = np.random.default_rng(5)
    first, second = person(project), person(project)
    (judge,) = make_judges(project)
    x, y, z = (rng.choice([0.05, 0.25, 0.5, 0.75, 0.95], len(pairs)) for _ in range(3))
    for annotator, values in ((first, x), (second, y), (judge, z)):
        answers(annotator, pairs, values)
    found = people_agreement(project)
    sides = {name: np.sign(values - 0.5) for name, values in (("x", x), ("y", y), ("z", z))}
    expected = [("x", "y"), ("x", "z"), ("y", "z")]
    assert [couple.second_is_person for couple in found.couples] == [True, False, False]
    for couple, (one, other) in zip(found.couples, expected, strict=True):
        x, y = (np.append(sides[name], -sides[name]) for name in (one, other))
        assert couple.kappa.value == pytest.approx(cohen_kappa_score(x, y)), "each pair counts half in either direction"
        assert couple.kappa.same == pytest.approx(np.mean(sides[one] == sides[other]))
        assert couple.kappa.low is not None and couple.kappa.low < couple.kappa.value < (couple.kappa.high or 0)
    assert (found.people, found.judges, found.pairs) == (2, 1, 36)
    assert found.among_people.interval.common == found.with_judges.interval.common == 36


def test_perfect_agreement_is_one_at_every_level(project: Project, pairs: list[Pair]) -> None:
    values = np.tile([0.05, 0.95, 0.5], 12)
    for _ in range(2):
        answers(person(project), pairs, values)
    alphas = people_agreement(project).among_people
    for each in (alphas.nominal, alphas.ordinal, alphas.interval):
        assert (each.value, each.low, each.high, each.same) == (1.0, 1.0, 1.0, 1.0)


def test_the_two_orders_of_a_judge_are_averaged(project: Project, pairs: list[Pair]) -> None:
    (judge,) = make_judges(project)
    answers(person(project), pairs, np.tile([0.95, 0.05], 18))
    answers(judge, pairs, np.tile([0.9, 0.3], 18))
    answers(judge, pairs, np.tile([0.8, 0.7], 18), swapped=True)  # means 0.85 and 0.5: for a, and a tie
    (couple,) = people_agreement(project).couples
    assert (couple.kappa.same, couple.kappa.common) == (0.5, 36)


def test_people_who_share_no_pair_have_no_kappa(project: Project, pairs: list[Pair]) -> None:
    answers(person(project), pairs[:18], np.full(18, 0.95))
    answers(person(project), pairs[18:], np.full(18, 0.95))
    found = people_agreement(project)
    kappa = found.couples[0].kappa
    assert (kappa.value, kappa.common, kappa.same, kappa.undefined) == (None, 0, None, Undefined.NO_OVERLAP)
    assert found.among_people.nominal.undefined == Undefined.NO_OVERLAP


def test_few_common_pairs_give_plain_agreement_alone(project: Project, pairs: list[Pair]) -> None:
    for _ in range(2):
        answers(person(project), pairs[:4], np.array([0.95, 0.05, 0.95, 0.05]))
    kappa = people_agreement(project).couples[0].kappa
    assert (kappa.value, kappa.common, kappa.same, kappa.undefined) == (None, 4, 1.0, Undefined.FEW)


def test_agreement_does_not_depend_on_which_document_was_imported_first(project: Project, pairs: list[Pair]) -> None:
    """A pair is stored with the lower key first: candidates that were imported best first have the winner there."""
    rng = np.random.default_rng(2)
    first, second = person(project), person(project)
    x = rng.choice([0.75, 0.95, 0.5, 0.05], len(pairs))
    y = np.where(rng.random(len(pairs)) < 0.7, x, rng.choice([0.95, 0.25], len(pairs)))
    turned = rng.random(len(pairs)) < 0.5
    found = []
    for turn in (np.zeros(len(pairs), dtype=np.bool_), turned):
        for annotator, values in ((first, x), (second, y)):
            answers(annotator, pairs, np.where(turn, 1.0 - values, values))
        found.append(people_agreement(project))
        supersede_judgments(list(Judgment.objects.live().values_list("pk", flat=True)))
    for one, other in zip(*(coefficients(each) for each in found), strict=True):
        assert [one.value, one.low, one.high] == pytest.approx([other.value, other.low, other.high])


def coefficients(found: PeopleAgreement) -> list[Coefficient]:
    among = found.among_people
    return [among.nominal, among.ordinal, among.interval, *(each.kappa for each in found.couples)]


def test_always_a_tie_leaves_kappa_undefined_and_agreement_full(project: Project, pairs: list[Pair]) -> None:
    for _ in range(2):
        answers(person(project), pairs, np.full(36, 0.5))
    found = people_agreement(project)
    assert found.couples[0].kappa.undefined == Undefined.ONE_CATEGORY
    assert found.couples[0].kappa.same == 1.0
    assert found.among_people.interval.undefined == Undefined.ONE_CATEGORY


def test_neither_is_a_label_and_cannot_judge_is_none(project: Project, pairs: list[Pair]) -> None:
    for kind in (AnswerKind.BOTH_IRRELEVANT, AnswerKind.CANNOT_JUDGE):
        annotator = person(project)
        answers(annotator, pairs[:12], np.tile([0.95, 0.05], 6))
        record_judgments([NewJudgment(pair.pk, annotator.pk, False, None, kind=kind) for pair in pairs[12:20]])
    other = person(project)
    answers(other, pairs[:12], np.tile([0.95, 0.05], 6))
    record_judgments(
        [NewJudgment(pair.pk, other.pk, False, None, kind=AnswerKind.BOTH_IRRELEVANT) for pair in pairs[12:20]]
    )
    common = {(each.first, each.second): each.kappa.common for each in people_agreement(project).couples}
    assert sorted(common.values()) == [12, 12, 20]


def test_verdicts_are_nobodys_opinion(project: Project, pairs: list[Pair]) -> None:
    answers(person(project), pairs, np.tile([0.95, 0.05], 18))
    owner = make_member(project, "owner")
    for pair in pairs:
        adjudicate(pair, owner, "1")
    found = people_agreement(project)
    assert (found.people, found.pairs, found.couples) == (1, 36, ())
    assert found.among_people.nominal.undefined == Undefined.NO_OVERLAP
    assert next(each for each in people_figures(project) if each.user_id == owner.pk).with_judges is None


def test_an_answer_given_anew_after_others_were_shown_is_no_opinion(project: Project, pairs: list[Pair]) -> None:
    first, second = person(project), person(project)
    answers(first, pairs, np.tile([0.95, 0.05], 18))
    answers(second, pairs, np.tile([0.95, 0.05], 18))
    told, untold = Judgment.objects.filter(annotator=second).order_by("id")[:2]
    SeenAnswers.objects.create(judgment=told)
    assert people_agreement(project).couples[0].kappa.common == 36  # it was given before
    supersede_judgments([told.pk, untold.pk])
    answers(second, [told.pair, untold.pair], np.array([0.05, 0.05]))
    assert people_agreement(project).couples[0].kappa.common == 35


@pytest.mark.parametrize(("feedback", "right"), [("open", 0), ("hidden", 1)])
def test_gold_counts_the_first_answer_where_people_are_told_and_what_stands_where_not(
    feedback: str, right: int, project: Project, pairs: list[Pair]
) -> None:
    """As the pause for failing gold does, which is shown beside it."""
    Project.objects.update(gold_feedback=feedback)
    project.refresh_from_db()
    one, other = person(project), person(project)
    gold = pairs[0]
    set_gold(gold.pk, 0.95)
    for each in (one, other):
        SpotCheck.objects.create(pair=gold, slot=None, reason="gold", holder=each)
        answers(each, [gold], np.array([0.05]))
    supersede_judgments([Judgment.objects.get(annotator=one).pk])
    answers(one, [gold], np.array([0.95]))
    figures = {each.annotator_id: each.gold for each in people_figures(project)}
    assert {pk: gold and (gold.value, gold.count) for pk, gold in figures.items()} == {
        one.pk: (right, 1), other.pk: (0, 1)
    }  # fmt: skip
    context = find_screen_context(one.user, project.slug)
    assert gold_record(context) == (right, 1)


def test_one_persons_figures_do_not_read_the_gold_of_others(
    project: Project, pairs: list[Pair], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_gold(pairs[0].pk, 0.95)
    one, other = person(project), person(project)
    for each in (one, other):
        SpotCheck.objects.create(pair=pairs[0], slot=None, reason="gold", holder=each)
        answers(each, pairs[:1], np.array([0.95]))
    read: list[int] = []

    def watched(*asked: Any, **options: Any) -> dict[int, tuple[int, int]]:
        found = gold_records(*asked, **options)
        read.extend(found)
        return found

    monkeypatch.setattr("scoring.annotators.people.gold_records", watched)
    (figures,) = people_figures(project, user=one.user)
    assert (figures.annotator_id, figures.gold and figures.gold.count, read) == (one.pk, 1, [one.pk])
    read.clear()
    assert people_figures(project, user=make_member(project)) == [] and read == []


def test_nobody_answered() -> None:
    found = people_agreement(make_project(queries=1))
    assert (found.people, found.couples, found.among_people.nominal.undefined) == (0, (), Undefined.NO_OVERLAP)


def test_one_persons_couples_alone(project: Project, pairs: list[Pair]) -> None:
    people = [person(project) for _ in range(3)]
    for each in people:
        answers(each, pairs, np.tile([0.95, 0.05], 18))
    found = people_agreement(project, only=people[0].pk)
    assert len(found.couples) == 2
    assert all(people[0].name in (each.first, each.second) for each in found.couples)
