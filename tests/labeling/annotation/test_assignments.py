"""Slots and leases of the comparison screen, on real PostgreSQL: nobody collides, and what it costs."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from labeling.access.handles import assignment_of, handle_of
from labeling.annotation.assignments import open_assignments
from labeling.annotation.gold import set_gold
from labeling.judgments import record_judgments
from labeling.models import Annotator, Judgment, Pair, SpotCheck
from labeling.models.screen import PastLease
from labeling.records import NewJudgment
from tests.factories.comparing import Screen, committed, lapse, make_compared, make_screen, slots_of
from tests.factories.rows import judge_pair
from tests.processes.threads import at_once

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


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
    assert slots_of(make_screen(project).next()) == [handle_of(urgent.pk), handle_of(planned[0])]


def test_an_urgent_slot_that_comes_free_behind_a_person_is_asked_next() -> None:
    """Other claims go on from where the person is."""
    project = make_compared(pairs=9)
    screen, other = make_screen(project), make_screen(project)
    behind, urgent = slots_of(other.next())
    first, second = slots_of(screen.next())
    third = slots_of(screen.answer(first))[1]
    for slot in (behind, urgent):
        other.skip(slot)
    fourth = slots_of(screen.answer(second))[1]
    in_order = [assignment_of(slot) for slot in (behind, urgent, first, second, third, fourth)]
    assert in_order == sorted(in_order)
    SpotCheck.objects.filter(pk=assignment_of(urgent)).update(priority=1)
    assert slots_of(screen.answer(third)) == [fourth, urgent]


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
    assert SpotCheck.objects.get(pk=assignment_of(slot)).pair == second
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


# --- planning and cost -------------------------------------------------------------------


def test_slots_are_opened_up_to_the_overlap_and_no_further() -> None:
    project = make_compared(pairs=2)
    pairs = list(Pair.objects.order_by("id").values_list("id", flat=True))
    set_gold(pairs[0], 0.95)
    assert open_assignments(pairs, reason="disagreement", overlap=3) == 4
    assert open_assignments(pairs, reason="random", overlap=2) == 0
    found = SpotCheck.objects.values_list("pair_id", "slot", "project_id")
    assert sorted(found) == [(pair, slot, project.pk) for pair in pairs for slot in (0, 1, 2)]


def test_cost_of_a_message_is_a_few_statements() -> None:
    screen = make_screen(make_compared(pairs=10))
    slot = slots_of(screen.next())[0]
    with CaptureQueriesContext(connection) as asked:
        screen.next()
    assert len(asked) <= 11
    with CaptureQueriesContext(connection) as asked:
        screen.answer(slot, note="why", seconds=3.0)
    assert len(asked) <= 17


def test_an_answer_costs_the_same_however_many_the_person_gave() -> None:
    """With every pair open for a second opinion as well, which is not this person's to give."""
    answered = 3000
    project = make_compared(pairs=answered + 20, overlap=2)
    screen = make_screen(project)
    pairs = SpotCheck.objects.filter(slot=0).order_by("id").values_list("pair_id", flat=True)
    record_judgments([NewJudgment(pair, screen.person.pk, False, 0.95) for pair in pairs[:answered]])
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE labeling_spotcheck SET judgment_id = answer.id, holder_id = answer.annotator_id "
            "FROM labeling_judgment answer WHERE answer.pair_id = labeling_spotcheck.pair_id AND slot = 0"
        )
        cursor.execute("UPDATE labeling_judgment SET created_at = '2020-01-01'")
        cursor.execute("ANALYZE labeling_judgment, labeling_spotcheck")
    shown = screen.answer(slots_of(screen.next())[0])  # the first one after a look from the start
    before = rows_read()
    shown = screen.answer(slots_of(shown)[0])
    assert shown["progress"]["done"] == answered + 2
    assert rows_read() - before < answered / 10


def rows_read() -> int:
    """Rows of slots and answers that were looked at in this transaction."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables "
            "WHERE relname IN ('labeling_judgment', 'labeling_spotcheck')"
        )
        return int(cursor.fetchone()[0])


def test_what_comes_free_behind_one_is_found_at_the_end() -> None:
    project = make_compared(pairs=5)
    other, screen = make_screen(project), make_screen(project)
    first, second = slots_of(other.next())
    shown = screen.next()
    lapse(first, second)
    answered = []
    while shown["items"]:
        answered.append(slots_of(shown)[0])
        shown = screen.answer(answered[-1])
    assert answered[-2:] == [first, second]
    assert len(answered) == 5


def test_past_leases_are_few() -> None:
    """An answered slot leaves none behind: the table grows with what was not answered."""
    screen = make_screen(make_compared(pairs=6))
    shown = screen.next()
    while shown["items"]:
        shown = screen.answer(slots_of(shown)[0])
    assert not PastLease.objects.exists()
    assert Annotator.objects.people().count() == 1
