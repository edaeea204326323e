"""Planning spot checks: which pairs each reason draws, slots, gold, what is left, and two plans at once."""

from __future__ import annotations

import threading

import pytest
from django.db import connection, transaction

from labeling.access.annotators import get_person
from labeling.models import Candidate, Document, GoldAnswer, Pair, Project, SpotCheck
from scoring.models import SpotCheckPlan
from scoring.rating import rate_stale
from scoring.spot_checks.draws import BadPlan, NothingToAsk, draw_pairs
from scoring.spot_checks.plans import (
    ASSUMED_SECONDS,
    ask_person,
    open_pairs,
    plan_progress,
    plan_spot_checks,
    preview_spot_checks,
    seconds_a_pair,
    withdraw_plan,
)
from tests.factories.comparing import lapse, make_screen, slots_of
from tests.factories.rows import (
    judge_pair,
    make_judges,
    make_pair,
    make_project,
    make_query_with_documents,
    make_user,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture
def project() -> Project:
    """Two queries of six. Two judges: on the first query they differ by 0.8 on one pair and by 0.1 on another."""
    project = make_project(queries=2, documents=6)
    query = project.queries.order_by("id").first()
    first, second = make_judges(project, 2)
    for (a, b), (x, y) in {(0, 1): (0.9, 0.1), (0, 2): (0.6, 0.7), (0, 3): (0.8, 0.8)}.items():
        judge_pair(make_pair(query, a, b), first, x)
        judge_pair(make_pair(query, a, b), second, y)
    judge_pair(make_pair(query, 1, 2), first, 0.9)
    return project


def asked(project: Project) -> list[Pair]:
    """The pairs with a slot, in the order in which they were planned."""
    seen: dict[int, Pair] = {}
    for check in SpotCheck.objects.filter(project=project).select_related("pair").order_by("id"):
        seen.setdefault(check.pair_id, check.pair)
    return list(seen.values())


def rated(project: Project) -> None:
    """Answers on every query, and scores of them."""
    (judge,) = make_judges(project)
    for query in project.queries.all():
        for a, b in [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (0, 5)]:
            judge_pair(make_pair(query, a, b), judge, 0.7)
    rate_stale(project.pk)


# --- what each reason draws --------------------------------------------------------------


def test_disagreement_draws_what_two_judges_differ_on_most_first(project: Project) -> None:
    planned = plan_spot_checks(project, reason="disagreement", pairs=10)
    query = project.queries.order_by("id").first()
    assert asked(project) == [make_pair(query, 0, 1), make_pair(query, 0, 2)]
    assert (planned.pairs, planned.wanted, planned.slots) == (2, 10, 2)


def test_two_orders_of_a_judge_are_one_opinion(project: Project) -> None:
    pair = make_pair(project.queries.order_by("id").first(), 3, 4)
    (judge,) = make_judges(project)
    judge_pair(pair, judge, 0.95)
    judge_pair(pair, judge, 0.05, swapped=True)
    plan_spot_checks(project, reason="disagreement", pairs=10)
    assert pair not in asked(project)


def test_random_draws_judged_pairs_first_and_then_new_ones(project: Project) -> None:
    drawn = draw_pairs(project, reason="random", pairs=12, seed=3)
    judged = {(pair.a_id, pair.b_id) for pair in Pair.objects.filter(a__query__project=project)}
    assert {(each.a, each.b) for each in drawn[:4]} == judged
    assert len({(each.a, each.b) for each in drawn}) == 12
    assert all(each.a < each.b for each in drawn)


def test_the_same_seed_draws_the_same_and_another_seed_others() -> None:
    project = make_project(queries=3, documents=12)
    first, again, other = (draw_pairs(project, reason="random", pairs=8, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert set(first) != set(other)
    assert Pair.objects.count() == 0, "drawing writes nothing"


@pytest.mark.django_db(transaction=True)
def test_uncertain_and_cross_query_draw_once_there_are_scores() -> None:
    project = make_project(queries=3, documents=6)
    rated(project)
    uncertain = plan_spot_checks(project, reason="uncertain", pairs=6)
    pairs = asked(project)
    assert len(pairs) == uncertain.pairs == 6
    assert len({pair.query_id for pair in pairs}) == 3
    assert not [pair for pair in pairs if pair.judgments.exists()]
    across = plan_spot_checks(project, reason="cross_query", pairs=3, overlap=2)
    assert (across.pairs, across.slots) == (3, 6)
    assert all(check.pair.query_id is None for check in across.plan.checks.select_related("pair"))


def test_gold_comes_from_grades_that_differ_clearly() -> None:
    project = make_project()
    query = make_query_with_documents(project, 4, grades=[3, 2, 1, 0])
    planned = plan_spot_checks(project, reason="gold", pairs=50)
    grades = dict(Candidate.objects.values_list("id", "grade"))
    found = {
        (abs(grades[check.pair.a_id] - grades[check.pair.b_id]), check.preference)
        for check in planned.plan.gold.select_related("pair")
    }
    assert found == {(2, 0.95), (3, 0.95)}  # a is the earlier and better graded one here
    assert planned.pairs == planned.slots == 3
    gold = GoldAnswer.objects.get(pair=make_pair(query, 0, 3))
    assert gold.explanation == "", "an explanation would show it as an example"
    assert not SpotCheck.objects.exists()


def test_a_lower_grade_of_a_makes_b_the_expected_answer() -> None:
    project = make_project()
    make_query_with_documents(project, 2, grades=[0, 1])
    assert [each.gold for each in draw_pairs(project, reason="gold", pairs=1)] == [pytest.approx(0.05)]


# --- plans -------------------------------------------------------------------------------


def test_a_pair_gets_as_many_slots_as_people_shall_judge_it(project: Project) -> None:
    planned = plan_spot_checks(project, reason="random", pairs=3, overlap=2)
    slots = sorted(planned.plan.checks.values_list("pair_id", "slot"))
    assert len(slots) == 6
    assert [slot for _, slot in slots] == [0, 1, 0, 1, 0, 1]


def test_no_pair_is_planned_twice(project: Project) -> None:
    for _ in range(3):
        plan_spot_checks(project, reason="random", pairs=4, overlap=2)
    assert SpotCheck.objects.count() == 24
    assert len(asked(project)) == 12


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ({"reason": "whim", "pairs": 1}, "expected one of random, disagreement"),
        ({"reason": "random", "pairs": 0}, "expected 1 to 20,000"),
        ({"reason": "random", "pairs": 20_001}, "expected 1 to 20,000"),
        ({"reason": "random", "pairs": 1, "overlap": 0}, "expected 1 to 20"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(order: dict[str, object], message: str) -> None:
    with pytest.raises(BadPlan, match=message):
        plan_spot_checks(make_project(), **order)  # type: ignore[arg-type]


@pytest.mark.parametrize("reason", SpotCheck.Reason.values)
def test_nothing_to_ask_says_what_would_help(reason: str) -> None:
    with pytest.raises(NothingToAsk, match=r"start a run|run two or more judges|import"):
        plan_spot_checks(make_project(queries=1, documents=1), reason=reason, pairs=5)
    assert not SpotCheckPlan.objects.exists()


def test_a_preview_writes_nothing_and_counts_what_a_plan_would_ask(project: Project) -> None:
    preview = preview_spot_checks(project, reason="disagreement", pairs=10, overlap=3)
    assert (preview.pairs, preview.wanted, preview.slots, preview.measured) == (2, 10, 6, False)
    assert preview.hours == pytest.approx(6 * ASSUMED_SECONDS / 3600)
    assert not SpotCheck.objects.exists()


def test_progress_counts_asked_answered_and_left(project: Project) -> None:
    planned = plan_spot_checks(project, reason="random", pairs=4, overlap=2, by=make_user())
    answer(project, planned.plan.checks.first())
    (progress,) = plan_progress(project)
    assert (progress.asked, progress.answered, progress.left) == (8, 1, 7)
    assert seconds_a_pair(project) == 9.0
    assert preview_spot_checks(project, reason="random", pairs=1).measured


def answer(project: Project, check: SpotCheck | None) -> None:
    """One answer in a slot, as `labeling.annotation.actions` leaves it."""
    assert check is not None
    person = get_person(project, make_user())
    judge_pair(check.pair, person, 0.75)
    judgment = check.pair.judgments.get(annotator=person)
    SpotCheck.objects.filter(pk=check.pk).update(holder=person, judgment=judgment, seconds=9.0)


def test_a_withdrawn_plan_leaves_what_was_answered(project: Project) -> None:
    planned = plan_spot_checks(project, reason="random", pairs=4)
    answer(project, planned.plan.checks.first())
    assert withdraw_plan(planned.plan) == 3
    (progress,) = plan_progress(project)
    assert (progress.asked, progress.answered, progress.left) == (1, 1, 0)
    assert progress.plan.withdrawn_at is not None


def test_a_withdrawn_plan_leaves_what_people_have_in_hand_to_them_alone(project: Project) -> None:
    """Held ones stay before their holders, a late answer is accepted, and nobody else is asked either."""
    Project.objects.filter(pk=project.pk).update(gold_every=0)
    planned = plan_spot_checks(project, reason="random", pairs=6)
    holder, gone, newcomer = (make_screen(project) for _ in range(3))
    held, skipped = slots_of(holder.next())
    late, other_late = slots_of(gone.next())
    lapse(late, other_late)
    assert withdraw_plan(planned.plan) == 4
    assert slots_of(holder.next()) == [held, skipped]
    assert newcomer.next()["state"] == gone.next()["state"] == "nothing_left"
    (progress,) = plan_progress(project)
    assert (progress.asked, progress.left, progress.under_way, progress.can_be_withdrawn) == (2, 2, 2, False)
    assert [holder.answer(held)["stored"], gone.answer(late)["stored"]] == ["answer", "answer"]
    holder.skip(skipped)
    assert newcomer.next()["state"] == "nothing_left"
    (progress,) = plan_progress(project)
    assert (progress.asked, progress.answered, progress.left) == (2, 2, 0)


@pytest.mark.django_db(transaction=True)
def test_withdrawing_waits_for_nobody_and_takes_nothing_out_of_a_hand(project: Project) -> None:
    planned = plan_spot_checks(project, reason="random", pairs=3)
    taken = planned.plan.checks.order_by("id").first()
    assert taken is not None
    is_taken, may_go = threading.Event(), threading.Event()

    def take() -> None:
        with transaction.atomic():
            SpotCheck.objects.select_for_update(no_key=True).get(pk=taken.pk)
            is_taken.set()
            may_go.wait(10)
        connection.close()

    thread = threading.Thread(target=take)
    thread.start()
    is_taken.wait(10)
    assert withdraw_plan(planned.plan) == 2
    may_go.set()
    thread.join()
    (progress,) = plan_progress(project)
    assert (progress.open, progress.can_be_withdrawn) == (1, True)
    assert withdraw_plan(planned.plan) == 1
    assert not SpotCheck.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_two_plans_at_once_open_no_slot_twice(project: Project) -> None:
    gate = threading.Barrier(2)
    slots: list[int] = []

    def plan() -> None:
        gate.wait()
        try:
            slots.append(plan_spot_checks(project, reason="disagreement", pairs=10, overlap=2).slots)
        except NothingToAsk:
            slots.append(0)
        finally:
            connection.close()

    threads = [threading.Thread(target=plan) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(slots) == SpotCheck.objects.count() == 4


def test_cross_project_pairs_are_never_drawn(project: Project) -> None:
    other = make_project(queries=2, documents=6)
    plan_spot_checks(project, reason="random", pairs=20)
    own = set(Candidate.objects.filter(query__project=other).values_list("id", flat=True))
    assert not [pair for pair in asked(project) if pair.a_id in own or pair.b_id in own]


def test_one_more_person_is_asked_about_a_pair_once_at_a_time(project: Project) -> None:
    pair = make_pair(project.queries.order_by("id")[1])
    assert ask_person(project, pair).slots == 1
    with pytest.raises(NothingToAsk):
        ask_person(project, pair)
    person = get_person(project, make_user())
    answer = judge_pair(pair, person).ids[0]
    SpotCheck.objects.filter(pair=pair).update(judgment=answer, holder=person)
    assert ask_person(project, pair).slots == 1
    assert SpotCheck.objects.filter(pair=pair).count() == 2


def test_pairs_of_one_text_are_answered_by_themselves(project: Project) -> None:
    pair = make_pair(project.queries.order_by("id")[1])
    Document.objects.filter(pk=pair.b.document_id).update(text=f"  {pair.a.document.text} ")
    with pytest.raises(NothingToAsk):
        open_pairs(project, [(pair.a_id, pair.b_id, pair.query_id)], reason="uncertain")
    assert not SpotCheck.objects.filter(pair=pair).exists()
