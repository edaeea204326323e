"""The comparison screen over HTTP: who may, what is shown and what is not, and what a message may hold."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from django.test import Client

from labeling.access.api_keys import make_token
from labeling.access.handles import assignment_of
from labeling.models import Document, Judgment, Membership, Project, Rationale, Role, SpotCheck
from tests.factories.comparing import Screen, make_compared, make_screen, slots_of
from tests.factories.rows import make_member, make_project, make_user

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]
VERBS = ("next", "answer", "undo", "skip", "heartbeat")


def test_an_answer_brings_the_next_pair_with_it() -> None:
    screen = make_screen(make_compared(pairs=4))
    shown = screen.next()
    first, second = slots_of(shown)
    assert shown["state"] == "open"
    after = screen.answer(first, seconds=8.0)
    assert after["stored"] == "answer"
    assert slots_of(after)[0] == second
    assert len(after["items"]) == 2
    assert after["progress"] == {"done": 1, "quota": None, "left": None, "seconds_per_pair": 8.0, "today": 1}


def test_a_second_tab_sees_the_same_pairs() -> None:
    screen = make_screen(make_compared())
    assert slots_of(screen.next()) == slots_of(screen.next())


@pytest.mark.parametrize("verb", VERBS)
def test_who_may_compare(verb: str) -> None:
    project = make_compared()
    address = f"/p/{project.slug}/compare/{verb}/"

    def refusal(client: Client) -> tuple[int, str]:
        response = client.post(address, "{}", content_type="application/json")
        return response.status_code, json.loads(response.content).get("code", "")

    assert refusal(Client()) == (401, "signed_out")
    assert refusal(Screen(project, make_user()).client) == (404, "not_found")
    assert refusal(Screen(project, make_member(project, Role.VIEWER)).client) == (403, "viewer")
    assert refusal(Screen(project, make_user(is_active=False)).client) == (401, "signed_out")
    assert Screen(project, make_user()).client.get(address).status_code == 405
    for role in (Role.OWNER, Role.ANNOTATOR):
        assert refusal(Screen(project, make_member(project, role)).client)[0] in {200, 422}


def test_owners_and_annotators_are_shown_pairs() -> None:
    project = make_compared()
    for role in (Role.OWNER, Role.ANNOTATOR):
        assert len(make_screen(project, role=role).next()["items"]) == 2


def test_instruction_comes_before_the_first_pair() -> None:
    project = make_compared()
    shown = Screen(project, make_member(project, Role.ANNOTATOR)).next()
    assert (shown["state"], shown["items"]) == ("instruction", [])


def test_a_browser_needs_the_csrf_token_and_a_program_its_key() -> None:
    project = make_compared()
    user = make_screen(project).user
    address = f"/p/{project.slug}/compare/next/"
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(user)
    refused = browser.post(address, "{}", content_type="application/json")
    assert (refused.status_code, json.loads(refused.content)["code"]) == (403, "csrf")
    program = Client(enforce_csrf_checks=True)

    def status(token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return program.post(address, "{}", content_type="application/json", headers=headers).status_code

    assert status(make_token(user, name="w", scopes=["write"])) == 200
    assert status(make_token(user, name="r", scopes=["read"])) == 403
    assert status("zelo_nonsense") == 401


# --- what is shown -----------------------------------------------------------------------


def test_no_hint_leaves_the_server_before_the_answer() -> None:
    project = make_compared(pairs=1)
    for document in Document.objects.filter(project=project):
        document.metadata = {
            "title": "Kept", "doc_id": 7, "bm25Score": 3.2, "nested": {"rank": 1, "year": 1999}, "Source": "x",
            "aka": document.external_id, "all": [document.external_id, "other"],
        }  # fmt: skip
        document.save()
    Project.objects.filter(pk=project.pk).update(hidden_metadata=["source"])
    (item,) = make_screen(project).next()["items"]
    assert set(item) == {"slot", "cross_query", "left", "right", "lease_s", "note"}
    for side in ("left", "right"):
        assert set(item[side]) == {"query", "text", "metadata", "words"}
        assert item[side]["metadata"] == {"title": "Kept", "nested": {"year": 1999}, "all": ["other"]}
    assert item[side]["words"] == len(item[side]["text"].split())


# --- what a message may hold -------------------------------------------------------------

GOOD: dict[str, Any] = {"answer": "tie", "note": "", "reason": "", "seconds": 1.5}


@pytest.mark.parametrize(
    "bad",
    [
        {"answer": "banana"}, {"answer": 0.95}, {"answer": None}, {"answer": ["tie"]}, {"answer": "cannot_judge"},
        {"answer": "cannot_judge", "reason": "tired"}, {"reason": "language"}, {"note": 3}, {"note": "x" * 4001},
        {"note": "a\x00b"}, {"note": "\ud800"}, {"seconds": -1}, {"seconds": "8"}, {"seconds": True}, {"key": "1"},
        {"key": None}, {"slot": "1"}, {"slot": True}, {"slot": -1}, {"slot": 2**70}, {"slot": None},
    ],
)  # fmt: skip
def test_what_means_nothing_is_refused_and_stores_nothing(bad: dict[str, Any]) -> None:
    screen = make_screen(make_compared())
    slot = slots_of(screen.next())[0]
    response = screen.post("answer", **{"key": str(uuid.uuid4()), "slot": slot, **GOOD, **bad})
    assert (response.status_code, json.loads(response.content)["code"]) == (422, "bad_answer")
    assert not Judgment.objects.exists()
    screen.answer(slot, "tie")


@pytest.mark.parametrize("body", [b"[1]", b"nonsense", b'{"seconds": NaN}', b'{"a": 1, "a": 2}', b"\xff", b"[" * 500])
def test_what_is_no_message_is_refused(body: bytes) -> None:
    screen = make_screen(make_compared())
    response = screen.client.post(f"/p/{screen.project.slug}/compare/answer/", body, content_type="application/json")
    assert response.status_code == 422


@pytest.mark.parametrize("verb", ["skip", "answer"])
def test_slots_of_other_projects_and_of_other_people_are_nobodys(verb: str) -> None:
    elsewhere = make_screen(make_compared())
    theirs = slots_of(elsewhere.next())[0]
    project = make_compared()
    colleagues = slots_of(make_screen(project).next())[0]
    screen = make_screen(project)
    for slot in (theirs, colleagues, 10**9):
        response = screen.post(verb, key=str(uuid.uuid4()), slot=slot, answer="tie")
        assert (response.status_code, json.loads(response.content)["code"]) == (404, "not_yours")
    assert not Judgment.objects.exists()
    assert SpotCheck.objects.get(pk=assignment_of(theirs)).holder == elsewhere.person


@pytest.mark.parametrize(
    ("choice", "preference"),
    [("left_clearly", 0.95), ("left_slightly", 0.75), ("tie", 0.5), ("right_slightly", 0.25), ("right_clearly", 0.05)],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_strengths_are_turned_round_where_the_sides_are(choice: str, preference: float, swapped: bool) -> None:
    screen = make_screen(make_compared(pairs=1))
    (item,) = screen.next()["items"]
    SpotCheck.objects.filter(pk=assignment_of(item["slot"])).update(swapped=swapped)
    screen.answer(item["slot"], choice)
    judgment = Judgment.objects.get()
    assert judgment.preference == (round(1 - preference, 2) if swapped else preference)
    assert (judgment.swapped, judgment.kind, judgment.by_person) == (swapped, "preference", True)


def test_left_is_the_document_that_the_preference_speaks_of() -> None:
    screen = make_screen(make_compared(pairs=1))
    (item,) = screen.next()["items"]
    screen.answer(item["slot"], "left_clearly")
    judgment = Judgment.objects.get()
    preferred = judgment.pair.a if judgment.preference == 0.95 else judgment.pair.b
    assert preferred.document.text == item["left"]["text"]


def test_neither_and_cannot_judge_are_answers_without_a_preference() -> None:
    screen = make_screen(make_compared())
    first, second = slots_of(screen.next())
    screen.answer(first, "neither", note="both about football")
    screen.answer(second, "cannot_judge", reason="language", note="Finnish")
    assert list(Judgment.objects.order_by("id").values_list("kind", "preference")) == [
        ("both_irrelevant", None),
        ("cannot_judge", None),
    ]
    texts = Rationale.objects.order_by("judgment_id").values_list("text", flat=True)
    assert list(texts) == ["both about football", "language: Finnish"]


def test_quota_ends_the_work() -> None:
    screen = make_screen(make_compared(pairs=6), quota=3)
    shown = screen.next()
    for left in (2, 1, 0):
        shown = screen.answer(slots_of(shown)[0])
        assert shown["progress"]["left"] == left
        assert len(shown["items"]) == min(2, left)
    assert shown["state"] == "quota_reached"
    Membership.objects.filter(user=screen.user).update(quota=4)
    assert len(screen.next()["items"]) == 1


def test_nothing_left_says_when_to_ask_again() -> None:
    project = make_project(queries=1)
    shown = make_screen(project).next()
    assert (shown["state"], shown["items"], shown["retry_after_s"]) == ("nothing_left", [], 20)


def test_a_project_without_slots_is_told_from_one_whose_pairs_are_not_for_this_person() -> None:
    """Nothing is planned, everything was skipped, everything lies before others: only in the first an owner must plan."""
    assert make_screen(make_project(queries=1)).next()["unplanned"]
    project = make_compared(pairs=2)
    skips, other, waits = (make_screen(project) for _ in range(3))
    for slot in slots_of(skips.next()):
        shown = skips.skip(slot)
    assert (shown["state"], shown["progress"]["done"], shown["unplanned"]) == ("nothing_left", 0, False)
    assert len(other.next()["items"]) == 2 and not other.next()["unplanned"]
    shown = waits.next()
    assert (shown["state"], shown["unplanned"]) == ("nothing_left", False)
