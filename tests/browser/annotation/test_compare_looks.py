"""How the comparison screen looks and reads: light, dark, phone; long, short and crossed; every state axe-clean."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Page, Route, expect

from labeling.annotation.instruction import confirm_read, instruction_hash
from labeling.models import Membership, Project, Role
from tests.browser.annotation.comparing import (
    ASKED,
    FAST,
    A,
    B,
    Start,
    live_answers,
    make_annotator,
    make_asked,
    open_screen,
    press,
    read,
    wait_until_saved,
)
from tests.browser.checks import faults_in_looks, serious_faults
from tests.browser.conftest import Visit
from tests.factories.pages import make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

METADATA = {"source": "the manual", "year": 2024, "sections": ["collections", "files"]}
NAMES = {1: "compare", 2: "compare-short", 3: "compare-long", 4: "compare-crossed", 5: "compare-lopsided"}
STATES = ("nothing_left", "quota_reached", "paused", "instruction")
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"look": "light"},
    "dark": {"look": "dark"},
    "phone": {"look": "phone"},
    "german": {"look": "phone", "locale": "de-DE"},
    "contrast": {"look": "dark", "contrast": "more", "reduced_motion": "reduce"},
}


def item(slot: int, query: str, left: str, right: str, *, other_query: str = "") -> dict[str, Any]:
    """A pair as the server sends it."""
    sides = ((query, left), (other_query or query, right))
    documents = [{"query": q, "text": text, "metadata": METADATA, "words": len(text.split())} for q, text in sides]
    return {
        "slot": slot, "cross_query": bool(other_query), "left": documents[0], "right": documents[1], "lease_s": 252.0,
        "note": "",
    }  # fmt: skip


ITEMS = [
    item(1, ASKED, A, B),
    item(2, "yes or no", "yes", "no"),
    item(3, " ".join([ASKED] * 9), "\n\n".join([A] * 9), "x" * 4000 + " " + " ".join([B] * 30)),
    item(4, ASKED, A, B, other_query="what is left out of the list of a string's lines, and how can it be kept?"),
    item(5, "empty on one side", "", "word " * 3000),
]


class Scripted:
    """Stands in for the endpoints, for states that are hard to bring about one after the other."""

    def __init__(self) -> None:
        self.items, self.done, self.state = list(ITEMS), 38, "open"
        self.tells: dict[str, Any] = {}

    def __call__(self, route: Route) -> None:
        message = json.loads(route.request.post_data or "{}")
        told: dict[str, Any] = {}
        if "slot" in message:
            self.items = [each for each in self.items if each["slot"] != message["slot"]]
            self.done += 1
            told = {"stored": "answer", "feedback": None, "others": None, **self.tells}
        is_open = self.state == "open"
        progress = {"done": self.done, "quota": 100, "left": 100 - self.done, "seconds_per_pair": 11.2, "today": 38}
        told |= {"items": self.items[:2] if is_open else [], "progress": progress, "state": self.state}
        route.fulfill(json=told | {"message": "", "retry_after_s": 20})


def open_scripted(visited: Visit, project: Project, script: Scripted) -> Page:
    visited.page.route("**/compare/*/", script)
    return open_screen(visited, project)


def check(visited: Visit, name: str) -> None:
    visited.picture(name)
    wide = visited.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{name} is wider than the screen"
    assert serious_faults(visited) == [], name


@pytest.fixture
def project() -> Project:
    return make_asked([A, B, "Reads all lines."], pairs=3)


@pytest.fixture
def person(project: Project) -> User:
    return make_annotator(project, "grace")


@pytest.mark.parametrize("look", list(LOOKS))
def test_every_pair_and_dialog_is_clean(look: str, visit: Start, project: Project, person: User) -> None:
    script = Scripted()
    visited = visit(person, **LOOKS[look])
    visited.page.add_init_script(FAST)
    page = open_scripted(visited, project, script)
    script.tells = {
        "feedback": {"correct": False, "text": "Expected: A is the more relevant. B lists all lines."},
        "others": [
            {"who": "gpt-4.1 · reasoned", "preference_left": 0.8, "rationale": "names the bounded length, the tail of a file"},
            {"who": "a colleague", "preference_left": 0.5, "rationale": ""},
        ],
    }  # fmt: skip
    for each in ITEMS:
        check(visited, f"{NAMES[each['slot']]}-{look}")
        if each["slot"] == 4:
            for key, dialog in (("m", ""), ("x", "#reasons"), ("n", "#note"), ("?", "#help")):
                read(page)
                page.keyboard.press(key)
                check(visited, f"compare-{dialog[1:] or 'metadata'}-{look}")
                if dialog:
                    page.keyboard.press("Escape")
                    expect(page.locator(dialog)).to_be_hidden()
        press(page, "2")
    assert visited.complaints == []


def test_every_state_is_clean_and_says_what_to_do(visit: Start, project: Project, person: User) -> None:
    script = Scripted()
    visited = visit(person)
    visited.page.route("**/compare/*/", script)
    titles = set()
    for script.state in STATES:
        page = visited.open(reverse("compare", args=[project.slug]))
        page.wait_for_selector(f"#state[data-name={script.state}]")
        titles.add(page.locator("#state-title").text_content())
        assert faults_in_looks(visited, f"compare-{script.state}") == {}
    assert len(titles) == len(STATES)
    assert visited.complaints == []


def test_where_nothing_was_planned_owners_are_led_to_plan_and_others_are_told_who_does(visit: Start) -> None:
    project = make_asked([A, B], pairs=0)
    owner = make_user("lovelace")
    Membership.objects.create(project=project, user=owner, role=Role.OWNER)
    confirm_read(project, owner, seen=instruction_hash(project))
    for user, link in ((owner, "Plan spot checks"), (make_annotator(project, "ada"), "")):
        visited = visit(user)
        page = visited.open(reverse("compare", args=[project.slug]))
        expect(page.locator("#state-title")).to_have_text("No pairs yet")
        expect(page.locator("#state-link")).to_have_text(link)
        expect(page.get_by_role("link", name=project.name)).to_have_count(1 if user == owner else 0)
        assert faults_in_looks(visited, f"compare-unplanned-{user.username}", ["light", "phone"]) == {}
    assert visited.complaints == []


def test_who_skipped_everything_is_not_told_that_nothing_was_planned(visit: Start) -> None:
    project = make_asked([A, B], pairs=1)
    visited = visit(make_annotator(project, "ada"))
    page = open_screen(visited, project)
    read(page)
    page.keyboard.press("s")
    expect(page.locator("#state-title")).to_have_text("Nothing left to compare")
    expect(page.locator("#state-text")).to_have_text("No pair is available for you at the moment.")
    expect(page.locator("#state-link")).to_be_hidden()


def test_pages_around_are_clean(visit: Start, project: Project, person: User) -> None:
    visited = visit(person)
    for name in ("my-answers", "instruction"):
        visited.open(reverse(name, args=[project.slug]))
        assert faults_in_looks(visited, name) == {}
    page = open_screen(visited, project)
    press(page, "1")
    press(page, "4")
    wait_until_saved(page)
    visited.open(reverse("my-answers", args=[project.slug]))
    assert faults_in_looks(visited, "my-answers-two") == {}
    assert visited.complaints == []


def test_fingers_reach_every_answer_on_a_phone(visit: Start, project: Project, person: User) -> None:
    visited = visit(person, look="phone", has_touch=True, is_mobile=True)
    page = open_screen(visited, project)
    visited.picture("compare-touch")
    assert page.evaluate("document.documentElement.scrollHeight - window.innerHeight") <= 0
    for button in page.locator(".answers button:visible").all():
        box = button.bounding_box()
        assert box is not None
        assert min(box["width"], box["height"]) >= 24
        assert box["y"] >= 844 / 2
        assert box["y"] + box["height"] <= 844
    read(page)
    page.get_by_role("button", name="A, clearly").tap()
    wait_until_saved(page)
    assert len(live_answers(project, person)) == 1


def test_keys_stay_where_they_are_from_pair_to_pair(visit: Start, project: Project, person: User) -> None:
    page = open_scripted(visit(person), project, Scripted())
    places = []
    for _ in range(4):
        box = page.locator("[data-answer=tie]").bounding_box()
        assert box is not None
        places.append(box["y"])
        press(page, "2")
    assert places[0] == places[1]  # the short pair takes no less room than the one before
    assert places[2] == places[3]  # nor a short one than a long one


def test_long_documents_scroll_in_place_by_keyboard(visit: Start, project: Project, person: User) -> None:
    script = Scripted()
    script.items = script.items[2:]
    page = open_scripted(visit(person), project, script)
    page.keyboard.press("ArrowDown")
    page.keyboard.press("PageDown")
    assert page.evaluate("[...document.querySelectorAll('.side .text')].map(each => each.scrollTop > 300)") == [
        True,
        True,
    ]
    assert page.evaluate("window.scrollY") == 0
    press(page, "1")
    assert page.evaluate("[...document.querySelectorAll('.side .text')].map(each => each.scrollTop)") == [0, 0]


def test_a_long_query_is_reached_and_shows_where_the_focus_is(visit: Start, project: Project, person: User) -> None:
    script = Scripted()
    script.items = script.items[2:]
    page = open_scripted(visit(person, look="phone"), project, script)
    query = page.locator("#query")
    assert query.evaluate("each => [each.tabIndex, each.scrollHeight > each.clientHeight]") == [0, True]
    while not query.evaluate("each => each === document.activeElement"):
        page.keyboard.press("Tab")
    assert query.evaluate("each => getComputedStyle(each).outlineStyle") == "solid"


def test_screen_stays_usable_at_four_times_the_size(visit: Start, project: Project, person: User) -> None:
    visited = visit(person, viewport={"width": 320, "height": 256})
    page = open_screen(visited, project)
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0
    page.locator("[data-answer=right_clearly]").scroll_into_view_if_needed()
    read(page)
    page.locator("[data-answer=right_clearly]").click()
    wait_until_saved(page)
    assert len(live_answers(project, person)) == 1
