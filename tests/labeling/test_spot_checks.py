"""Slots, leases, keys and gold of the comparison screen, on real PostgreSQL: nobody collides and nothing is lost."""

from __future__ import annotations

import itertools
import json
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from labeling.desk_models import Desk, PastLease, Submission
from labeling.gold_checks import is_right, pause_person, set_gold
from labeling.judgments import record_judgments
from labeling.models import Annotator, Judgment, Pair, Project, Query, SpotCheck
from labeling.pairs import store_pairs
from labeling.people import resume_person
from labeling.records import NewJudgment
from labeling.slots import open_slots
from tests.factories import candidate_ids, judge_pair, make_judges, make_project
from tests.labeling.comparing import Json, Screen, make_compared, make_screen, slots_of

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]
Result = TypeVar("Result")
committed = pytest.mark.django_db(transaction=True)


def at_once(*calls: Callable[[], Result]) -> list[Result]:
    """Run the calls in threads of their own, over connections of their own, all starting together."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], Result]) -> Result:
        try:
            start.wait(10)
            return call()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def lapse(*slots: int) -> None:
    """The leases of these slots have run out."""
    SpotCheck.objects.filter(pk__in=slots).update(lease_until="2020-01-01T00:00Z")


def versions(project: Project) -> list[int]:
    return list(Query.objects.filter(project=project).order_by("id").values_list("judged_version", flat=True))


# --- leases ------------------------------------------------------------------------------


@committed
def test_many_people_at_once_never_hold_the_same_slot() -> None:
    project = make_compared(pairs=30)
    screens = [make_screen(project) for _ in range(12)]
    shown = at_once(*(screen.next for screen in screens))
    held = [slot for each in shown for slot in slots_of(each)]
    assert len(held) == len(set(held)) == 24


@committed
def test_many_people_who_work_until_nothing_is_left_answer_every_slot_once() -> None:
    project = make_compared(pairs=20, overlap=2)
    screens = [make_screen(project) for _ in range(4)]

    def work(screen: Screen) -> int:
        shown, done = screen.next(), 0
        while shown["items"]:
            shown = screen.answer(slots_of(shown)[0])
            done += shown["stored"] == "answer"
        return done

    assert sum(at_once(*(lambda screen=screen: work(screen) for screen in screens))) == 40  # type: ignore[misc]
    assert Judgment.objects.count() == 40
    assert not SpotCheck.objects.filter(judgment__isnull=True).exists()
    assert set(Judgment.objects.values_list("pair", flat=True)) == set(Pair.objects.values_list("id", flat=True))


@committed
def test_two_tabs_at_once_still_hold_two_slots() -> None:
    screen = make_screen(make_compared())
    tabs = [Screen(screen.project, screen.user) for _ in range(4)]
    shown = at_once(*(tab.next for tab in tabs))
    assert len({tuple(slots_of(each)) for each in shown}) == 1
    assert SpotCheck.objects.filter(holder=screen.person).count() == 2


def test_the_database_itself_refuses_a_third_slot_before_a_person() -> None:
    project = make_compared()
    screen = make_screen(project)
    screen.next()
    third = SpotCheck.objects.filter(holder__isnull=True).first()
    assert third is not None
    for place in (1, 3):
        with pytest.raises(IntegrityError), transaction.atomic():
            SpotCheck.objects.filter(pk=third.pk).update(
                holder=screen.person, place=place, lease_until="2030-01-01T00:00Z"
            )


def test_pairs_come_in_planned_order_and_the_urgent_ones_first() -> None:
    project = make_compared(pairs=6)
    urgent = SpotCheck.objects.order_by("-id").first()
    assert urgent is not None
    SpotCheck.objects.filter(pk=urgent.pk).update(priority=5)
    planned = list(SpotCheck.objects.order_by("id").values_list("id", flat=True))
    assert slots_of(make_screen(project).next()) == [urgent.pk, planned[0]]


def test_a_pair_with_two_slots_is_answered_by_two_people() -> None:
    project = make_compared(pairs=1, overlap=2)
    first, second, third = (make_screen(project) for _ in range(3))
    assert len(slots_of(first.next())) == len(slots_of(second.next())) == 1
    assert slots_of(third.next()) == []
    first.answer(slots_of(first.next())[0])
    assert first.next()["state"] == "nothing_left"


def test_a_lease_that_ran_out_goes_to_the_next_person() -> None:
    project = make_compared(pairs=1)
    gone, here = make_screen(project), make_screen(project)
    (slot,) = slots_of(gone.next())
    assert slots_of(here.next()) == []
    lapse(slot)
    assert slots_of(here.next()) == [slot]
    assert slots_of(gone.next()) == []


def test_a_lease_that_ran_out_stays_while_nobody_wants_it() -> None:
    screen = make_screen(make_compared(pairs=1))
    (slot,) = slots_of(screen.next())
    lapse(slot)
    assert screen.answer(slot)["stored"] == "answer"


def test_a_heartbeat_extends_what_is_mine_alone() -> None:
    project = make_compared(pairs=3, lease_s=120)
    screen, other = make_screen(project), make_screen(project)
    mine, lost = slots_of(screen.next())
    (theirs,) = slots_of(other.next())
    lapse(mine, lost)
    other.answer(theirs)
    assert slots_of(other.next()) == [mine, lost]
    assert screen.send("heartbeat", slots=[mine, theirs, 10**9]) == {"lease_s": {}}
    assert other.send("heartbeat", slots=[mine, lost]) == {"lease_s": {str(mine): 120.0, str(lost): 120.0}}


def test_sides_are_balanced_for_each_person() -> None:
    project = make_compared(pairs=40)
    screen = make_screen(project)
    shown = screen.next()
    while shown["items"]:
        shown = screen.answer(slots_of(shown)[0])
    swapped = list(Judgment.objects.order_by("id").values_list("swapped", flat=True))
    assert sum(swapped) == 20
    assert all(abs(2 * sum(swapped[:n]) - n) <= 2 for n in range(40))


def test_what_was_answered_elsewhere_is_not_asked() -> None:
    project = make_compared(pairs=2)
    screen = make_screen(project)
    first, second = Pair.objects.order_by("id")
    judge_pair(first, screen.person)
    (slot,) = slots_of(screen.next())
    assert SpotCheck.objects.get(pk=slot).pair == second
    record_judgments([NewJudgment(second.pk, screen.person.pk, False, 0.5)])
    shown = screen.answer(slot)
    assert (shown["stored"], shown["items"]) == ("already", [])


def test_a_pair_seen_again_keeps_its_sides() -> None:
    project = make_compared(pairs=1)
    screen, other = make_screen(project), make_screen(project)
    (item,) = screen.next()["items"]
    for _ in range(6):
        lapse(item["slot"])
        other.next()
        lapse(item["slot"])
        (again,) = screen.next()["items"]
        assert again["left"]["text"] == item["left"]["text"]


# --- keys --------------------------------------------------------------------------------


def test_the_same_key_with_the_same_body_gets_the_same_bytes() -> None:
    screen = make_screen(make_compared())
    slot = slots_of(screen.next())[0]
    message = {"key": str(uuid.uuid4()), "slot": slot, "answer": "tie", "seconds": 2.5}
    first = screen.post("answer", **message)
    screen.answer(slots_of(screen.next())[0])
    again = screen.post("answer", **message)
    assert (again.status_code, again.content) == (200, first.content)
    assert Judgment.objects.count() == 2


def test_the_same_key_with_another_body_is_refused() -> None:
    screen = make_screen(make_compared())
    slot, other = slots_of(screen.next())
    message = {"key": str(uuid.uuid4()), "slot": slot, "answer": "tie"}
    screen.send("answer", **message)
    for changed in ({"answer": "left_clearly"}, {"slot": other}, {"note": "more"}, {"seconds": 3.0}):
        response = screen.post("answer", **{**message, **changed})
        assert (response.status_code, json.loads(response.content)["code"]) == (422, "key_reused")
    assert screen.post("skip", key=message["key"], slot=slot).status_code == 422
    assert screen.post("undo", key=message["key"]).status_code == 422
    assert Judgment.objects.get().preference == 0.5


def test_keys_are_each_persons_own() -> None:
    project = make_compared()
    key = str(uuid.uuid4())
    for screen in (make_screen(project), make_screen(project)):
        assert screen.answer(slots_of(screen.next())[0], key=key)["stored"] == "answer"


@committed
def test_double_submits_at_once_are_one_answer() -> None:
    screen = make_screen(make_compared(pairs=20))
    for slot in slots_of(screen.next()):
        message = {"key": str(uuid.uuid4()), "slot": slot, "answer": "tie"}
        tabs = [Screen(screen.project, screen.user) for _ in range(3)]
        answers = at_once(*(lambda tab=tab, sent=message: tab.post("answer", **sent).content for tab in tabs))  # type: ignore[misc]
        assert len(set(answers)) == 1
    assert Judgment.objects.count() == Submission.objects.count() == 2


@committed
def test_answers_at_once_under_different_keys_are_one_answer() -> None:
    screen = make_screen(make_compared())
    slot = slots_of(screen.next())[0]
    tabs = [Screen(screen.project, screen.user) for _ in range(3)]
    stored = at_once(*(lambda tab=tab: tab.answer(slot)["stored"] for tab in tabs))  # type: ignore[misc]
    assert sorted(stored) == ["already", "already", "answer"]
    assert Judgment.objects.count() == 1


def test_old_submissions_are_forgotten_and_their_answers_stay() -> None:
    screen = make_screen(make_compared())
    slot = slots_of(screen.next())[0]
    key = str(uuid.uuid4())
    screen.answer(slot, key=key)
    Submission.objects.update(created_at="2020-01-01T00:00Z")
    screen.next()
    assert not Submission.objects.exists()
    assert screen.answer(slot, "right_clearly", key=key)["stored"] == "already"
    assert Judgment.objects.count() == 1


# --- late answers ------------------------------------------------------------------------


def make_late() -> tuple[Screen, Screen, Json]:
    """Somebody who let a lease lapse, somebody who took the slot over, and what the first one still sees."""
    project = make_compared(pairs=1)
    late, other = make_screen(project), make_screen(project)
    (item,) = late.next()["items"]
    lapse(item["slot"])
    assert slots_of(other.next()) == [item["slot"]]
    return late, other, item


@pytest.mark.parametrize("other_answers_first", [True, False])
def test_a_late_answer_is_kept_as_one_more_opinion(other_answers_first: bool) -> None:
    late, other, item = make_late()
    if other_answers_first:
        assert other.answer(item["slot"])["stored"] == "answer"
    assert late.answer(item["slot"], "left_clearly")["stored"] == "extra"
    if not other_answers_first:
        assert other.answer(item["slot"])["stored"] == "answer"
    assert Judgment.objects.live().count() == 2
    extra = SpotCheck.objects.get(holder=late.person)
    assert extra.slot is None
    assert extra.judgment is not None
    preferred = extra.pair.a if extra.judgment.preference == 0.95 else extra.pair.b
    assert preferred.document.text == item["left"]["text"]


def test_a_late_answer_goes_into_the_slot_while_it_is_free() -> None:
    late, other, item = make_late()
    other.skip(item["slot"])
    assert late.answer(item["slot"])["stored"] == "answer"
    assert SpotCheck.objects.get().holder == late.person


def test_a_late_answer_comes_once() -> None:
    late, _, item = make_late()
    assert late.answer(item["slot"])["stored"] == "extra"
    assert late.answer(item["slot"], "tie")["stored"] == "already"
    assert Judgment.objects.filter(annotator=late.person).count() == 1


@committed
def test_a_late_answer_and_the_next_holders_at_once_are_both_kept() -> None:
    late, other, item = make_late()
    stored = at_once(*(lambda s=s: s.answer(item["slot"])["stored"] for s in (late, other)))  # type: ignore[misc]
    assert sorted(stored) == ["answer", "extra"]
    assert Judgment.objects.live().count() == 2


# --- undo and skip -----------------------------------------------------------------------


def test_undo_supersedes_raises_the_version_and_shows_the_pair_first() -> None:
    screen = make_screen(make_compared(pairs=6))
    first, second = slots_of(screen.next())
    screen.answer(first)
    before = versions(screen.project)
    undone = screen.undo()
    assert undone["undone"] is True
    assert slots_of(undone) == slots_of(screen.next()) == [first, second]
    assert not Judgment.objects.live().exists()
    assert Judgment.objects.count() == 1
    assert versions(screen.project) == [each + 1 for each in before]
    again = screen.answer(first, "right_clearly")
    assert (again["stored"], again["progress"]["done"]) == ("answer", 1)
    assert Judgment.objects.live().count() == 1


def test_undo_goes_back_answer_by_answer() -> None:
    screen = make_screen(make_compared(pairs=6))
    order = []
    shown = screen.next()
    for _ in range(3):
        order.append(slots_of(shown)[0])
        shown = screen.answer(order[-1])
    assert [slots_of(screen.undo())[0] for _ in range(3)] == order[::-1]
    assert screen.undo()["undone"] is False
    assert SpotCheck.objects.filter(holder=screen.person).count() == 2


def test_undo_of_a_pair_across_queries_raises_the_calibration() -> None:
    project = make_project(queries=2)
    Project.objects.update(gold_every=0)
    one, two = project.queries.order_by("id")
    open_slots(store_pairs([candidate_ids(one)[0]], [candidate_ids(two)[0]], [None]), reason="cross_query")
    screen = make_screen(project)
    (item,) = screen.next()["items"]
    assert item["cross_query"]
    assert {item["left"]["query"], item["right"]["query"]} == {one.text, two.text}
    screen.answer(item["slot"])
    screen.undo()
    assert Project.objects.get().calibration_version == project.calibration_version + 2


def test_a_repeated_undo_is_one_undo() -> None:
    screen = make_screen(make_compared(pairs=6))
    for _ in range(2):
        screen.answer(slots_of(screen.next())[0])
    key = str(uuid.uuid4())
    assert screen.send("undo", key=key) == screen.send("undo", key=key)
    assert Judgment.objects.live().count() == 1


def test_skipped_pairs_are_handed_back_and_not_asked_again() -> None:
    project = make_compared(pairs=3)
    screen, other = make_screen(project), make_screen(project)
    first, second = slots_of(screen.next())
    shown = screen.skip(first)
    assert first not in slots_of(shown)
    assert slots_of(other.next())[0] == first
    screen.answer(second)
    screen.answer(slots_of(screen.next())[0])
    lapse(first)
    assert screen.next()["state"] == "nothing_left"


def test_every_opinion_of_a_skipped_pair_is_for_others() -> None:
    screen = make_screen(make_compared(pairs=1, overlap=3))
    (slot,) = slots_of(screen.next())
    assert screen.skip(slot)["state"] == "nothing_left"


# --- gold --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "gold", "right"),
    [
        (0.95, 0.95, True), (0.75, 0.95, True), (0.5, 0.95, False), (0.25, 0.95, False), (None, 0.95, False),
        (0.5, 0.75, True), (None, 0.75, True), (0.95, 0.55, True), (0.25, 0.55, False), (0.5, 0.5, True),
        (0.75, 0.5, True), (0.95, 0.5, False), (None, 0.5, True), (0.05, 0.25, True), (0.5, 0.25, True),
    ],
)  # fmt: skip
def test_near_the_border_a_tie_is_right_too(given: float | None, gold: float, right: bool) -> None:
    assert is_right(given, gold, 0.25) is right


def make_gold(*, golds: int = 4, ordinary: int = 6, **rules: Any) -> Project:
    """A project whose first pairs are gold, known to be clearly for a, and the rest ordinary."""
    project = make_compared(pairs=golds + ordinary, **{"gold_every": 2, "gold_answers": 4, **rules})
    known = list(SpotCheck.objects.order_by("id").values_list("pair_id", flat=True)[:golds])
    SpotCheck.objects.filter(pair_id__in=known).delete()
    for pair in known:
        set_gold(pair, 0.95, explanation="It names the year.")
    return project


def work(screen: Screen, *, gold_right: bool) -> Json:
    """Answer until nothing comes; gold rightly or wrongly."""
    shown = screen.next()
    while shown["items"]:
        slot = SpotCheck.objects.get(pk=slots_of(shown)[0])
        a_wins = gold_right or slot.reason != "gold"
        shown = screen.answer(slot.pk, "left_clearly" if a_wins != slot.swapped else "right_clearly")
    return shown


def test_every_gold_pair_is_asked_of_everybody_among_the_others() -> None:
    project = make_gold()
    screens = [make_screen(project) for _ in range(3)]
    for screen in screens:
        work(screen, gold_right=True)
        asked = SpotCheck.objects.filter(holder=screen.person, reason="gold")
        assert asked.count() == 4
        assert asked.filter(slot__isnull=True, judgment__isnull=False, gold_preference__isnull=True).count() == 4
    assert SpotCheck.objects.filter(gold_preference__isnull=False).count() == 4
    assert Judgment.objects.count() == 3 * 4 + 6


def test_a_gold_pair_does_not_come_back_after_its_answer() -> None:
    project = make_gold(golds=3, ordinary=1, gold_every=1, gold_answers=10)
    screen = make_screen(project)
    shown = screen.next()
    answered = []
    while shown["items"]:
        slot = SpotCheck.objects.get(pk=slots_of(shown)[0])
        answered.append(slot.pk)
        shown = screen.answer(slot.pk, "right_clearly" if slot.swapped else "left_clearly")
    assert len(answered) == len(set(answered)) == 4


def test_gold_comes_about_every_so_many_pairs() -> None:
    project = make_gold(golds=10, ordinary=35, gold_every=4)
    screen = make_screen(project)
    work(screen, gold_right=True)
    reasons = list(
        SpotCheck.objects.filter(judgment__isnull=False).order_by("judgment_id").values_list("reason", flat=True)
    )
    places = [place for place, reason in enumerate(reasons[:36]) if reason == "gold"]
    assert 6 <= len(places) <= 10
    gaps = {after - before for before, after in itertools.pairwise(places)}
    assert gaps <= {2, 3, 4, 5, 6}


def test_gold_looks_like_any_other_pair() -> None:
    project = make_gold(ordinary=0)
    ordinary = make_screen(make_compared()).next()["items"][0]
    (item, _) = make_screen(project).next()["items"]
    assert item.keys() == ordinary.keys()
    assert "gold" not in json.dumps(item)
    assert "names the year" not in json.dumps(item)


def test_who_fails_gold_is_paused_and_what_lay_before_them_goes_to_others() -> None:
    project = make_gold(ordinary=11)
    screen = make_screen(project)
    shown = work(screen, gold_right=False)
    assert shown["state"] == "paused"
    assert "0 of 4" in shown["message"]
    assert not SpotCheck.objects.filter(place__isnull=False).exists()
    assert screen.next()["state"] == "paused"
    for verb in ("answer", "skip", "undo"):
        response = screen.post(verb, key=str(uuid.uuid4()), slot=1, answer="tie")
        assert (response.status_code, json.loads(response.content)["code"]) == (409, "paused")


def test_who_was_let_go_on_starts_with_a_clean_slate() -> None:
    project = make_gold(golds=8, ordinary=28)
    screen = make_screen(project)
    assert work(screen, gold_right=False)["state"] == "paused"
    assert resume_person(project, screen.user)
    assert work(screen, gold_right=True)["state"] == "nothing_left"
    assert screen.person.paused_at is None


def test_right_answers_to_gold_pause_nobody() -> None:
    screen = make_screen(make_gold())
    assert work(screen, gold_right=True)["state"] == "nothing_left"
    assert screen.person.paused_at is None


def first_gold(screen: Screen) -> SpotCheck:
    """Work until a gold pair lies first."""
    shown = screen.next()
    while (slot := SpotCheck.objects.get(pk=slots_of(shown)[0])).reason != "gold":
        shown = screen.answer(slot.pk, "tie")
    return slot


def sides_of(slot: SpotCheck) -> tuple[str, str]:
    """The right and the wrong clear answer to a gold pair."""
    return ("right_clearly", "left_clearly") if slot.swapped else ("left_clearly", "right_clearly")


def test_hidden_feedback_says_nothing() -> None:
    screen = make_screen(make_gold(gold_feedback="hidden"))
    slot = first_gold(screen)
    assert screen.answer(slot.pk, sides_of(slot)[1])["feedback"] is None


def test_open_feedback_names_the_side_and_the_reason() -> None:
    screen = make_screen(make_gold(gold_feedback="open"))
    slot = first_gold(screen)
    right, wrong = sides_of(slot)
    text = f"Expected: {'B' if slot.swapped else 'A'} is the more relevant. It names the year."
    assert screen.answer(slot.pk, wrong)["feedback"] == {"correct": False, "text": text}
    screen.undo()
    assert screen.answer(slot.pk, right)["feedback"]["correct"] is True


def test_with_open_feedback_the_first_answer_counts() -> None:
    project = make_gold(gold_feedback="open", gold_answers=1, gold_accuracy=1.0, golds=2)
    screen = make_screen(project)
    slot = first_gold(screen)
    right, wrong = sides_of(slot)
    assert screen.answer(slot.pk, wrong)["state"] == "paused"
    resume_person(project, screen.user)
    screen.undo()
    assert screen.answer(slot.pk, right)["state"] == "open"


def test_a_pair_has_one_gold_answer_and_the_last_one_holds() -> None:
    pair = Pair.objects.first() if make_compared(pairs=1) else None
    assert pair is not None
    set_gold(pair.pk, 0.05)
    set_gold(pair.pk, 0.75, explanation="after all")
    gold = SpotCheck.objects.get(gold_preference__isnull=False)
    assert (gold.gold_preference, gold.explanation, gold.reason) == (0.75, "after all", "gold")


def test_a_paused_persons_gold_pair_waits_for_them() -> None:
    screen = make_screen(make_gold(ordinary=3))
    slot = first_gold(screen)
    pause_person(screen.person, "asked to")
    slot.refresh_from_db()
    assert (slot.holder, slot.place) == (screen.person, None)
    resume_person(screen.project, screen.user)
    Desk.objects.update(gold_in=0)
    assert slot.pk in slots_of(screen.next())


# --- what others said --------------------------------------------------------------------


def test_others_answers_are_shown_after_the_submit_and_only_where_allowed() -> None:
    for allowed in (False, True):
        project = make_compared(pairs=1, overlap=2, show_others_after=allowed)
        pair = Pair.objects.order_by("-id").first()
        assert pair is not None
        (judge,) = make_judges(project)
        judge_pair(pair, judge, 0.8, rationale="a says when")
        colleague, screen = make_screen(project), make_screen(project)
        (shown,) = colleague.next()["items"]
        others = colleague.answer(shown["slot"], "tie")["others"]
        (item,) = screen.next()["items"]
        assert "rationale" not in json.dumps(item)
        swapped = SpotCheck.objects.get(pk=item["slot"]).swapped
        others = screen.answer(item["slot"])["others"]
        if not allowed:
            assert others is None
            continue
        assert others == [
            {"who": judge.name, "preference_left": 0.2 if swapped else 0.8, "rationale": "a says when"},
            {"who": "a colleague", "preference_left": 0.5, "rationale": ""},
        ]


# --- planning and cost -------------------------------------------------------------------


def test_slots_are_opened_up_to_the_overlap_and_no_further() -> None:
    project = make_compared(pairs=2)
    pairs = list(Pair.objects.order_by("id").values_list("id", flat=True))
    set_gold(pairs[0], 0.95)
    assert open_slots(pairs, reason="disagreement", overlap=3) == 4
    assert open_slots(pairs, reason="random", overlap=2) == 0
    found = SpotCheck.objects.filter(gold_preference__isnull=True).values_list("pair_id", "slot", "project_id")
    assert sorted(found) == [(pair, slot, project.pk) for pair in pairs for slot in (0, 1, 2)]


def test_cost_of_a_message_is_a_few_statements() -> None:
    screen = make_screen(make_compared(pairs=10))
    slot = slots_of(screen.next())[0]
    with CaptureQueriesContext(
        connection,
    ) as asked:
        screen.next()
    assert len(asked) <= 10
    with CaptureQueriesContext(connection) as asked:
        screen.answer(slot, note="why", seconds=3.0)
    assert len(asked) <= 17


def test_past_leases_are_few() -> None:
    """An answered slot leaves none behind: the table grows with what was not answered."""
    screen = make_screen(make_compared(pairs=6))
    shown = screen.next()
    while shown["items"]:
        shown = screen.answer(slots_of(shown)[0])
    assert not PastLease.objects.exists()
    assert Annotator.objects.people().count() == 1
