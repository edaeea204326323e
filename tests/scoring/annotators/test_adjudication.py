"""An owner's last word: a judgment like others, marked; repeated, changed, taken back; gold; where it is needed."""

from __future__ import annotations

import functools
import threading
import time
from typing import Any

import pytest
from django.db import connection, transaction

from labeling.access.annotators import get_person
from labeling.annotation.idempotency import lock_screen_state
from labeling.models import GoldAnswer, Judgment, Pair, Project, Role
from labeling.models.screen import ScreenState
from labeling.records import AnswerKind
from scoring.annotators import adjudication
from scoring.annotators.adjudication import (
    ANSWERS,
    BadVerdict,
    DecidedMeanwhile,
    adjudicate,
    make_gold,
    undo_adjudication,
    unset_gold,
)
from scoring.annotators.disagreements import Between, disagreements, neighbours
from scoring.annotators.judge_sharpness import measure_judges
from scoring.models import Adjudication
from scoring.rating import rate_stale
from scoring.spot_checks.plans import plan_spot_checks
from tests.factories.rows import (
    candidate_ids,
    judge_pair,
    make_judges,
    make_member,
    make_pair,
    make_project,
    make_query_with_documents,
)
from tests.processes.threads import at_once

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture
def project() -> Project:
    return make_project(queries=1, documents=5)


@pytest.fixture
def owner(project: Project) -> Any:
    return make_member(project, Role.OWNER)


@pytest.fixture
def pair(project: Project) -> Pair:
    """One judge is for a, a person for b."""
    pair = make_pair(project.queries.get())
    (judge,) = make_judges(project)
    judge_pair(pair, judge, 0.9)
    judge_pair(pair, get_person(project, make_member(project, Role.ANNOTATOR)), 0.05)
    return pair


def live(pair: Pair, user: Any) -> list[float | None]:
    return list(Judgment.objects.live().filter(pair=pair, annotator__user=user).values_list("preference", flat=True))


# --- the last word -----------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "preference"), ANSWERS.items())
def test_each_key_is_an_answer_of_the_owner(answer: str, preference: float | None, pair: Pair, owner: Any) -> None:
    made = adjudicate(pair, owner, answer, note="names the dose")
    judgment = made.adjudication.judgment
    assert (judgment.preference, judgment.by_person, judgment.swapped) == (preference, True, False)
    assert judgment.kind == (AnswerKind.PREFERENCE if preference is not None else AnswerKind.BOTH_IRRELEVANT)
    assert judgment.rationale.text == "names the dose"


def test_it_raises_the_version_that_the_rater_follows(pair: Pair, owner: Any, project: Project) -> None:
    before = project.queries.get().judged_version
    adjudicate(pair, owner, "1")
    assert project.queries.get().judged_version == before + 1


def test_the_same_word_twice_is_one(pair: Pair, owner: Any) -> None:
    first, again = adjudicate(pair, owner, "2"), adjudicate(pair, owner, "2")
    assert (first.changed, again.changed) == (True, False)
    assert first.adjudication == again.adjudication
    assert live(pair, owner) == [0.75]


def test_another_word_replaces_the_first_one(pair: Pair, owner: Any) -> None:
    adjudicate(pair, owner, "2")
    adjudicate(pair, owner, "5")
    assert live(pair, owner) == [0.05]
    assert Adjudication.objects.count() == 1


def test_the_last_word_is_that_of_the_last_owner(pair: Pair, owner: Any, project: Project) -> None:
    other = make_member(project, Role.OWNER)
    adjudicate(pair, owner, "1")
    adjudicate(pair, other, "5")
    assert (live(pair, owner), live(pair, other)) == ([], [0.05])
    assert Adjudication.objects.get().by == other


def test_a_word_that_was_not_seen_is_not_replaced(pair: Pair, owner: Any, project: Project) -> None:
    """Two owners look at an undecided pair; the second one's key meets a verdict that they have not seen."""
    other = make_member(project, Role.OWNER)
    made = adjudicate(pair, other, "1", seen=0)
    with pytest.raises(DecidedMeanwhile, match=f"{other.username} decided this pair in the meantime"):
        adjudicate(pair, owner, "5", seen=0)
    with pytest.raises(DecidedMeanwhile):
        undo_adjudication(pair, seen=0)
    assert live(pair, other) == [0.95]
    assert not adjudicate(pair, other, "1", seen=0).changed  # a second click
    assert adjudicate(pair, owner, "5", seen=made.adjudication.pk).changed
    with pytest.raises(DecidedMeanwhile):
        adjudicate(pair, other, "2", seen=made.adjudication.pk)
    standing = Adjudication.objects.get()
    assert undo_adjudication(pair, seen=standing.pk)
    with pytest.raises(DecidedMeanwhile, match="withdrew the verdict"):
        adjudicate(pair, owner, "2", seen=standing.pk)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("whose", ["own", "the other's"])
@pytest.mark.parametrize("taken_back", [False, True])
def test_deciding_waits_for_what_who_is_touched_by_it_is_answering(
    taken_back: bool, whose: str, pair: Pair, owner: Any, project: Project
) -> None:
    """Replacing or taking back a word brings back what its owner had answered before, as their own screen might."""
    other = make_member(project, Role.OWNER)
    adjudicate(pair, other, "5")
    busy = get_person(project, owner if whose == "own" else other)
    decided = threading.Event()

    def decide() -> None:
        if taken_back:
            undo_adjudication(pair)
        else:
            adjudicate(pair, owner, "1")
        decided.set()
        connection.close()

    waits = not (taken_back and whose == "own")  # who takes another's word back answers nothing
    with transaction.atomic():
        lock_screen_state(busy.pk, gold_every=0)
        thread = threading.Thread(target=decide)
        thread.start()
        assert decided.wait(0.3 if waits else 10.0) is not waits
    thread.join()
    assert (live(pair, owner), live(pair, other)) == ([] if taken_back else [0.95], [])


@pytest.mark.django_db(transaction=True)
def test_owners_who_replace_each_others_words_never_wait_in_a_circle(
    pair: Pair, owner: Any, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each needs both screen states: without an order, each would hold the own one and wait for the other's."""
    other, another = make_member(project, Role.OWNER), make_pair(project.queries.get(), 2, 3)
    adjudicate(pair, other, "5")
    adjudicate(another, owner, "5")
    slowly = adjudication.lock_screen_state

    def lock(person_id: int, *, gold_every: int) -> ScreenState:
        screen = slowly(person_id, gold_every=gold_every)
        time.sleep(0.2)
        return screen

    monkeypatch.setattr(adjudication, "lock_screen_state", lock)
    orders = [(pair, owner), (another, other)]
    at_once(*(functools.partial(adjudicate, decided, user, "1") for decided, user in orders))
    assert (live(pair, owner), live(another, other)) == ([0.95], [0.95])
    assert (live(pair, other), live(another, owner)) == ([], [])


def test_taken_back_what_was_answered_before_stands_again(pair: Pair, owner: Any, project: Project) -> None:
    judge_pair(pair, get_person(project, owner), 0.25)
    adjudicate(pair, owner, "1")
    adjudicate(pair, owner, "2")
    version = project.queries.get().judged_version
    assert undo_adjudication(pair)
    assert live(pair, owner) == [0.25]
    assert project.queries.get().judged_version > version
    assert not undo_adjudication(pair)


def test_an_unknown_answer_is_refused(pair: Pair, owner: Any) -> None:
    with pytest.raises(BadVerdict, match="expected one of 1, 2, 3, 4, 5, 0"):
        adjudicate(pair, owner, "9")
    assert not Adjudication.objects.exists()


def test_a_cross_query_pair_can_be_decided(owner: Any, project: Project) -> None:
    ids = sorted([*candidate_ids(project.queries.get())[:1], *candidate_ids(make_query_with_documents(project))[:1]])
    pair = Pair.objects.create(a_id=ids[0], b_id=ids[1], query=None)
    adjudicate(pair, owner, "3")
    project.refresh_from_db()
    assert (live(pair, owner), project.calibration_version) == ([0.5], 1)


@pytest.mark.django_db(transaction=True)
def test_it_anchors_the_judges(pair: Pair, owner: Any, project: Project) -> None:
    rate_stale(project.pk)
    before = measure_judges(project, model="thurstone", prior_precision=0.1).anchors
    adjudicate(pair, owner, "1")
    assert measure_judges(project, model="thurstone", prior_precision=0.1).anchors == before + 1


@pytest.mark.django_db(transaction=True)
def test_two_owners_at_once_leave_one_word(pair: Pair, owner: Any, project: Project) -> None:
    owners = [owner, make_member(project, Role.OWNER)]
    gate = threading.Barrier(2)

    def decide(user: Any) -> None:
        gate.wait()
        try:
            adjudicate(pair, user, "1")
        finally:
            connection.close()

    threads = [threading.Thread(target=decide, args=[user]) for user in owners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Adjudication.objects.count() == 1
    assert sorted(len(live(pair, user)) for user in owners) == [0, 1]


# --- gold --------------------------------------------------------------------------------


def test_a_decided_pair_becomes_gold_and_gold_follows_the_word(pair: Pair, owner: Any) -> None:
    adjudicate(pair, owner, "1")
    make_gold(pair, explanation="It names the dose.")
    gold = GoldAnswer.objects.get(pair=pair)
    assert (gold.preference, gold.explanation) == (0.95, "It names the dose.")
    adjudicate(pair, owner, "5")
    gold.refresh_from_db()
    assert gold.preference == 0.05
    undo_adjudication(pair)
    assert not unset_gold(pair)


def test_an_undecided_pair_and_neither_are_no_gold(pair: Pair, owner: Any) -> None:
    with pytest.raises(BadVerdict, match="decide the pair first"):
        make_gold(pair)
    adjudicate(pair, owner, "0")
    with pytest.raises(BadVerdict, match="decide the pair first"):
        make_gold(pair)


def test_decided_pairs_are_what_a_gold_plan_takes_first(pair: Pair, owner: Any, project: Project) -> None:
    adjudicate(pair, owner, "4")
    planned = plan_spot_checks(project, reason="gold", pairs=5)
    assert list(planned.plan.gold.values_list("pair_id", "preference")) == [(pair.pk, 0.25)]


# --- where it is needed ------------------------------------------------------------------


def test_the_widest_gap_comes_first_and_decided_pairs_go(pair: Pair, owner: Any, project: Project) -> None:
    other = make_pair(project.queries.get(), 2, 3)
    (judge,) = make_judges(project)
    judge_pair(other, judge, 0.6)
    judge_pair(other, get_person(project, make_member(project, Role.ANNOTATOR)), 0.25)
    first, second = disagreements(project)
    assert (first.pair_id, second.pair_id) == (pair.pk, other.pk)
    assert (first.gap, first.people.mean, first.judges.mean) == (pytest.approx(0.85), 0.05, 0.9)
    assert (first.people.percent, first.judges.percent) == (
        (95, 95, 95),
        (10, 10, 10),
    )  # people are for b, on the right
    adjudicate(pair, owner, "1")
    assert [each.pair_id for each in disagreements(project)] == [other.pk]
    (decided,) = disagreements(project, decided=True)
    assert (decided.pair_id, decided.people.mean, decided.people.count) == (pair.pk, 0.05, 1)


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_pair_decided_against_or_with_ones_own_outlying_answer_stays_listed(
    answer: str, owner: Any, project: Project
) -> None:
    pair = make_pair(project.queries.get(), 1, 2)
    (judge,) = make_judges(project)
    judge_pair(pair, judge, 0.9)
    judge_pair(pair, get_person(project, owner), 0.05)
    (found,) = disagreements(project)
    adjudicate(pair, owner, answer)
    (decided,) = disagreements(project, decided=True)
    assert disagreements(project) == []
    assert (decided.pair_id, decided.gap, decided.people.mean) == (pair.pk, pytest.approx(found.gap), 0.05)


def test_a_decided_pair_without_dispute_is_listed_between_anybody(owner: Any, project: Project) -> None:
    pair = make_pair(project.queries.get())
    judge_pair(pair, make_judges(project)[0], 0.9)
    adjudicate(pair, owner, "1")
    assert [each.pair_id for each in disagreements(project, decided=True)] == [pair.pk]
    assert disagreements(project, between=Between.PEOPLE, decided=True) == []


def test_agreement_is_no_disagreement(project: Project) -> None:
    pair = make_pair(project.queries.get())
    (judge,) = make_judges(project)
    judge_pair(pair, judge, 0.8)
    judge_pair(pair, get_person(project, make_member(project)), 0.75)
    assert disagreements(project, decided=None) == []


def test_people_among_themselves_and_judges_among_themselves(pair: Pair, project: Project) -> None:
    assert disagreements(project, between=Between.PEOPLE) == []
    judge_pair(pair, get_person(project, make_member(project, Role.ANNOTATOR)), 0.75)
    (among_people,) = disagreements(project, between=Between.PEOPLE)
    assert (among_people.gap, among_people.people.count) == (pytest.approx(0.7), 2)
    assert (among_people.people.low, among_people.people.high) == (0.05, 0.75)


def test_other_projects_do_not_show(pair: Pair) -> None:
    assert disagreements(make_project(queries=1)) == []


def test_neighbours_are_those_of_the_list(pair: Pair, project: Project) -> None:
    found = disagreements(project)
    assert neighbours(found, pair.pk) == (None, None)
    assert neighbours(found, 0) == (None, pair.pk)
    assert neighbours([], 0) == (None, None)
