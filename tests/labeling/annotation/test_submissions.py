"""Messages of the comparison screen: sent twice, sent late, taken back, skipped; nothing is lost or doubled."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from django.db import connection

from labeling.access.handles import assignment_of
from labeling.annotation import idempotency
from labeling.annotation.assignments import open_assignments
from labeling.annotation.context import find_screen_context
from labeling.models import Judgment, Project, Query, Role, SpotCheck
from labeling.models.screen import Submission
from labeling.pairs import store_pairs
from tests.factories.comparing import (
    Json,
    Screen,
    committed,
    lapse,
    make_compared,
    make_screen,
    slots_of,
)
from tests.factories.rows import candidate_ids, make_member, make_project
from tests.processes.threads import at_once

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


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
    assert screen.post("undo", key=message["key"], slot=slot).status_code == 422
    assert Judgment.objects.get().preference == 0.5


def test_a_submission_keeps_no_texts_and_says_the_same_again() -> None:
    screen = make_screen(make_compared(pairs=4))
    shown = screen.next()
    message = {"key": str(uuid.uuid4()), "slot": slots_of(shown)[0], "answer": "tie"}
    first = screen.post("answer", **message)
    kept = Submission.objects.get().response
    texts = [json.loads(first.content)["items"][at][side]["text"] for at in (0, 1) for side in ("left", "right")]
    assert all(texts)
    assert not [text for text in texts if text in kept]
    for slot in slots_of(json.loads(first.content)):
        screen.skip(slot)  # somebody else may have it by now, in the other order
        SpotCheck.objects.filter(pk=assignment_of(slot)).update(swapped=True)
    assert screen.post("answer", **message).content == first.content


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


def versions(project: Project) -> list[int]:
    return list(Query.objects.filter(project=project).order_by("id").values_list("judged_version", flat=True))


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
    assert screen.post("undo", key=str(uuid.uuid4()), slot=order[0]).status_code == 409
    assert SpotCheck.objects.filter(holder=screen.person).count() == 2


def test_undo_of_a_pair_across_queries_raises_the_calibration() -> None:
    project = make_project(queries=2)
    Project.objects.update(gold_every=0)
    one, two = project.queries.order_by("id")
    open_assignments(store_pairs([candidate_ids(one)[0]], [candidate_ids(two)[0]], [None]), reason="cross_query")
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
    message = {"key": str(uuid.uuid4()), "slot": screen.last}
    assert screen.send("undo", **message) == screen.send("undo", **message)
    assert Judgment.objects.live().count() == 1


def test_undo_takes_back_the_answer_that_it_names_and_no_other() -> None:
    """Two tabs: one undoes what it saw last, while the other has answered since."""
    screen = make_screen(make_compared(pairs=6))
    first, second = slots_of(screen.next())
    assert screen.answer(first)["last"] == first
    assert screen.answer(second)["last"] == second
    refused = screen.post("undo", key=str(uuid.uuid4()), slot=first)
    assert (refused.status_code, json.loads(refused.content)["code"]) == (409, "not_last")
    assert "nothing was undone" in json.loads(refused.content)["error"]
    assert Judgment.objects.live().count() == 2
    assert screen.undo(second)["last"] == screen.next()["last"] == first
    assert screen.post("undo", key=str(uuid.uuid4()), slot=second).status_code == 409
    assert Judgment.objects.live().count() == 1
    assert screen.post("undo", key=str(uuid.uuid4())).status_code == 422


def test_a_late_answer_is_taken_back_by_the_slot_that_was_shown() -> None:
    late, _, item = make_late()
    late.answer(item["slot"])
    assert late.undo(item["slot"])["undone"] is True
    assert not Judgment.objects.live().filter(annotator=late.person).exists()


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


@pytest.mark.django_db(transaction=True)
def test_a_message_that_the_database_ended_for_a_deadlock_is_begun_anew() -> None:
    project = make_project(queries=1, documents=3)
    context = find_screen_context(make_member(project, Role.ANNOTATOR), project.slug)
    begun = []

    def act(screen: Any, paused: str) -> dict[str, Any]:
        begun.append(screen.person_id)
        if len(begun) < 3:
            with connection.cursor() as cursor:
                cursor.execute("DO $$ BEGIN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'; END $$")
        return {"items": []}

    assert idempotency.answer_once(context, uuid.uuid4(), "skip", {}, act) == '{"items":[]}'
    assert len(begun) == 3
