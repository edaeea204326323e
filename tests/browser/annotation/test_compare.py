"""An annotator's day in a real browser: link, instruction, pairs by keyboard, lost connection, closed tab, gold, pause."""

from __future__ import annotations

import re

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse
from playwright.sync_api import APIResponse, Page, Route, expect

from labeling.access.annotators import get_person
from labeling.access.links import make_link
from labeling.annotation.gold import pause_person, set_gold
from labeling.models import Project
from tests.browser.annotation.comparing import (
    FAST,
    A,
    B,
    Start,
    live_answers,
    make_annotator,
    make_asked,
    open_screen,
    pairs_of,
    press,
    read,
    slot_shown,
    wait_until_saved,
)
from zelo_site.models import Preferences

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def project() -> Project:
    return make_asked([A, B, "Reads all lines.", "Writes lines to a file.", "A ring of fixed size."], pairs=8)


@pytest.fixture
def person(project: Project) -> User:
    return make_annotator(project, "grace")


def test_a_whole_day(visit: Start) -> None:
    project = make_asked([f"{A if at % 2 else B} ({at})" for at in range(9)], pairs=34, instruction="Prefer the exact.")
    visited = visit()
    visited.page.add_init_script(FAST)
    page = visited.open(reverse("enter", args=[make_link(project=project, role="annotator")]))
    page.get_by_label("Your name").fill("Grace")
    page.get_by_role("button", name="Join project").click()
    expect(page.locator("#state-title")).to_have_text("Read the instruction first")
    user = User.objects.get(first_name="Grace")
    page.get_by_role("link", name="Read instruction").click()
    expect(page.get_by_text("Prefer the exact.")).to_be_visible()
    page.get_by_role("button", name="Confirm and start").click()
    page.wait_for_selector("#pair:not([hidden])")

    for at in range(30):
        press(page, "12345"[at % 5] if at % 6 else "0")
    wait_until_saved(page)
    assert len(live_answers(project, user)) == 30
    expect(page.locator("#done")).to_have_text("30 done")

    at_thirty = slot_shown(page)
    press(page, "u")
    wait_until_saved(page)
    assert len(live_answers(project, user)) == 29
    page.keyboard.press("n")
    page.keyboard.type("a second look")
    page.keyboard.press("Control+Enter")
    press(page, "3")
    wait_until_saved(page)
    assert slot_shown(page) == at_thirty
    assert live_answers(project, user)[-1].preference == 0.5
    assert live_answers(project, user)[-1].rationale.text == "a second look"

    press(page, "s")
    wait_until_saved(page)
    assert len(live_answers(project, user)) == 30

    read(page)
    page.keyboard.press("x")
    page.keyboard.press("1")
    wait_until_saved(page)
    assert live_answers(project, user)[-1].kind == "cannot_judge"
    assert live_answers(project, user)[-1].rationale.text == "language"

    page.get_by_role("link", name="My answers").click()
    expect(page.locator(".own-answers li")).to_have_count(25)
    expect(page.locator(".own-answers li").first).to_contain_text("I do not read this language")

    page.goto(visited.address + reverse("profile"))
    page.get_by_label("Language").select_option("de")
    page.get_by_role("button", name="Change language").click()
    page.goto(visited.address + reverse("compare", args=[project.slug]))
    expect(page.locator("[data-answer=left_clearly]")).to_have_text("1A, deutlich")
    assert Preferences.objects.get(user=user).language == "de"

    press(page, "1")
    press(page, "1")
    read(page)
    page.keyboard.press("1")
    expect(page.locator("#state-title")).to_have_text("Es gibt nichts mehr zu vergleichen")
    assert visited.complaints == []


def test_next_pair_is_there_before_the_server_answers(visit: Start, project: Project, person: User) -> None:
    page = open_screen(visit(person), project)
    read(page)
    held: list[Route] = []
    page.route("**/compare/answer/", lambda route: held.append(route))  # not let through while we look
    page.evaluate(
        """() => {
            const pair = document.getElementById('pair');
            document.addEventListener('keydown', () => { window.pressedAt = performance.now(); }, { capture: true });
            new MutationObserver(() => {
                requestAnimationFrame(() => {
                    window.shownAt ??= performance.now();
                    document.documentElement.dataset.shown = 'yes';
                });
            }).observe(pair, { attributes: true, attributeFilter: ['data-slot'] });
        }"""
    )
    first = slot_shown(page)
    page.keyboard.press("1")
    page.wait_for_selector("html[data-shown]")
    assert slot_shown(page) not in (first, None)
    expect(page.locator("#saved")).to_have_text("sending …")
    assert live_answers(project, person) == []
    print(f"\nnext pair painted {page.evaluate('window.shownAt - window.pressedAt'):.0f} ms after the key")
    held[0].continue_()
    wait_until_saved(page)
    assert len(live_answers(project, person)) == 1


def test_answers_of_a_lost_connection_are_sent_when_it_is_back(visit: Start, project: Project, person: User) -> None:
    page = open_screen(visit(person), project)
    read(page)
    page.context.set_offline(True)
    press(page, "1")
    expect(page.locator("#saved")).to_have_text("offline: 1 unsent answer")
    press(page, "5")
    expect(page.locator("#saved")).to_have_text("offline: 2 unsent answers")
    expect(page.locator("#state-title")).to_have_text("No connection")
    assert live_answers(project, person) == []
    page.context.set_offline(False)
    wait_until_saved(page)
    page.wait_for_selector("#pair:not([hidden])")
    left = [
        1 - (answer.preference or 0) if answer.swapped else answer.preference
        for answer in live_answers(project, person)
    ]
    assert left == pytest.approx([0.95, 0.05])


def test_undo_without_a_connection_takes_back_what_was_not_sent(visit: Start, project: Project, person: User) -> None:
    page = open_screen(visit(person), project)
    first = slot_shown(page)
    page.context.set_offline(True)
    press(page, "1")
    press(page, "u")
    assert slot_shown(page) == first
    press(page, "5")
    page.context.set_offline(False)
    wait_until_saved(page)
    [answer] = live_answers(project, person)
    assert (1 - (answer.preference or 0) if answer.swapped else answer.preference) == pytest.approx(0.05)


def test_answers_of_a_closed_tab_are_sent_by_the_next(visit: Start, project: Project, person: User) -> None:
    visited = visit(person)
    page = open_screen(visited, project)
    page.context.set_offline(True)
    press(page, "1")
    page.close()
    assert live_answers(project, person) == []
    visited.page = page.context.new_page()
    page.context.set_offline(False)
    page = open_screen(visited, project)
    wait_until_saved(page)
    assert len(live_answers(project, person)) == 1


def test_second_tab_shows_the_same_pair_and_moves_on_with_the_first(
    visit: Start, project: Project, person: User
) -> None:
    visited = visit(person)
    first = open_screen(visited, project)
    visited.page = first.context.new_page()
    second = open_screen(visited, project)
    assert slot_shown(first) == slot_shown(second)
    press(first, "1")
    wait_until_saved(first)
    second.wait_for_selector(f"#pair[data-slot='{slot_shown(first)}']")
    wait_until_saved(second)
    assert len(live_answers(project, person)) == 1


def test_going_back_in_the_browser_shows_the_pair_that_is_next(visit: Start, project: Project, person: User) -> None:
    page = open_screen(visit(person), project)
    press(page, "1")
    wait_until_saved(page)
    at = slot_shown(page)
    page.get_by_role("link", name="Instruction").click()
    page.go_back()
    page.wait_for_selector("#pair:not([hidden])")
    assert slot_shown(page) == at


def test_double_press_is_one_answer(visit: Start, project: Project, person: User) -> None:
    page = open_screen(visit(person), project)
    read(page)
    page.keyboard.press("1")
    page.keyboard.press("1")
    page.locator("[data-answer=left_clearly]").dblclick(no_wait_after=True)
    wait_until_saved(page)
    assert len(live_answers(project, person)) == 1


def test_answer_that_reached_the_server_unheard_is_one_answer(visit: Start, project: Project, person: User) -> None:
    page = open_screen(visit(person), project)
    lost: list[APIResponse] = []

    def lose_the_response(route: Route) -> None:
        if not lost:
            lost.append(route.fetch())
            route.abort()
        else:
            route.continue_()

    page.route("**/compare/answer/", lose_the_response)
    press(page, "1")
    wait_until_saved(page)
    expect(page.locator("#done")).to_have_text("1 done")
    assert len(lost) == 1
    assert len(live_answers(project, person)) == 1


def test_failed_gold_pauses_with_the_reason(visit: Start) -> None:
    project = make_asked([A, B, "Reads lines."], pairs=3, gold_every=1, gold_answers=2, gold_feedback="open")
    person = make_annotator(project)
    for pair in pairs_of(project):
        set_gold(pair.pk, 0.95, explanation="The first one says it.")
    page = open_screen(visit(person), project)
    in_order = [A, B, "Reads lines."]
    while slot_shown(page) is not None:
        left, right = (page.locator(f"#side-{side} .text").text_content() or "" for side in "ab")
        press(page, "5" if in_order.index(left) < in_order.index(right) else "1")  # always the wrong side
        wait_until_saved(page)
    expect(page.locator("#feedback")).to_contain_text("This pair has a known answer. Expected:")
    expect(page.locator("#state-title")).to_have_text("You are paused")
    expect(page.locator("#state-text")).to_contain_text("0 of 2 answers")
    expect(page.locator("#answers")).to_be_hidden()


def test_signed_out_keeps_answers_until_one_is_back(visit: Start, project: Project, person: User) -> None:
    visited = visit(person)
    page = open_screen(visited, project)
    session = next(each for each in page.context.cookies() if each["name"] == "sessionid")
    page.context.clear_cookies(name="sessionid")
    press(page, "1")
    expect(page.locator("#state-title")).to_have_text("You are signed out")
    expect(page.locator("#state-text")).to_contain_text("This browser has 1 unsent answer")
    assert page.get_by_role("link", name="Sign in").get_attribute("href") == (
        f"{reverse('sign-in')}?next={reverse('compare', args=[project.slug])}"
    )
    assert live_answers(project, person) == []
    page.context.add_cookies([{"name": "sessionid", "value": str(session.get("value")), "url": visited.address}])
    open_screen(visited, project)
    wait_until_saved(page)
    assert len(live_answers(project, person)) == 1


def test_answers_are_never_sent_as_somebody_elses(visit: Start, project: Project, person: User) -> None:
    other = make_annotator(project, "ada")
    visited = visit(person)
    page = open_screen(visited, project)
    client = Client()
    client.force_login(other)
    client.get(reverse("compare", args=[project.slug]))
    page.context.add_cookies(
        [
            {"name": name, "value": client.cookies[name].value, "url": visited.address}
            for name in ("sessionid", "csrftoken")
        ]
    )
    read(page)
    page.keyboard.press("1")
    expect(page.locator("#state-title")).to_have_text("You are signed out")
    assert live_answers(project, other) == live_answers(project, person) == []


def test_browser_that_keeps_nothing_says_so(visit: Start, project: Project, person: User) -> None:
    visited = visit(person)
    visited.page.add_init_script(
        "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }"
    )
    page = open_screen(visited, project)
    read(page)
    page.context.set_offline(True)
    page.keyboard.press("1")
    expect(page.locator("#problem")).to_contain_text("This browser cannot keep your answers")
    page.context.set_offline(False)
    wait_until_saved(page)
    assert len(live_answers(project, person)) == 1


def test_answer_that_the_server_refuses_is_put_aside(visit: Start, project: Project, person: User) -> None:
    page = open_screen(visit(person), project)
    page.route(
        "**/compare/answer/",
        lambda route: route.fulfill(status=422, json={"error": "no such step", "code": "bad_answer"}),
    )
    press(page, "1")
    expect(page.locator("#problem")).to_contain_text("no such step")
    expect(page.locator("#pair")).to_be_visible()


def test_quota_ends_the_day(visit: Start, project: Project) -> None:
    page = open_screen(visit(make_annotator(project, quota=2)), project)
    expect(page.locator("#done")).to_have_text("0 of 2")
    press(page, "1")
    press(page, "1")
    expect(page.locator("#state-title")).to_have_text("You are done")
    expect(page.locator("#done")).to_have_text("2 of 2")
    expect(page.locator("#track")).to_have_attribute("aria-valuenow", "100")
    page.get_by_role("button", name="undo last").click()
    page.wait_for_selector("#pair:not([hidden])")
    expect(page.locator("#done")).to_have_text("1 of 2")


def test_nothing_is_taken_back_while_paused(visit: Start, project: Project, person: User) -> None:
    page = open_screen(visit(person), project)
    press(page, "1")
    wait_until_saved(page)
    pause_person(get_person(project, person), "a look at your answers")
    read(page)
    page.keyboard.press("1")
    expect(page.locator("#state-text")).to_contain_text("a look at your answers. Ask a project owner")
    wait_until_saved(page)
    page.keyboard.press("u")
    expect(page.locator("#state-title")).to_have_text("You are paused")
    assert len(live_answers(project, person)) == 2


def test_answers_from_before_a_pause_arrive_after_it(visit: Start, project: Project, person: User) -> None:
    page = open_screen(visit(person), project)
    page.context.set_offline(True)
    press(page, "1")
    press(page, "5")
    expect(page.locator("#saved")).to_have_text("offline: 2 unsent answers")
    pause_person(get_person(project, person), "a look at your answers")
    page.context.set_offline(False)
    wait_until_saved(page)
    expect(page.locator("#state-title")).to_have_text("You are paused")
    assert len(live_answers(project, person)) == 2


def test_undo_that_meets_a_pause_holds_up_no_answer_behind_it(visit: Start, project: Project, person: User) -> None:
    page = open_screen(visit(person), project)
    press(page, "1")
    wait_until_saved(page)
    [first] = live_answers(project, person)
    page.context.set_offline(True)
    for key in ("u", "5", "1"):
        press(page, key)
    pause_person(get_person(project, person), "a look at your answers")
    page.context.set_offline(False)
    expect(page.locator("#state-title")).to_have_text("You are paused")
    wait_until_saved(page)
    before, _behind = live_answers(project, person)
    assert (before.pk, before.preference) == (first.pk, first.preference), "it stands: nothing was taken back"
    assert page.evaluate("localStorage.length") == 0


def test_undo_of_an_older_answer_than_the_last_takes_nothing_back(visit: Start, project: Project, person: User) -> None:
    """A phone that shows what was so before the laptop went on."""
    laptop = open_screen(visit(person), project)
    press(laptop, "1")
    wait_until_saved(laptop)
    phone = open_screen(visit(person, look="phone"), project)
    press(laptop, "5")
    wait_until_saved(laptop)
    phone.keyboard.press("u")
    expect(phone.locator("#problem")).to_contain_text("This is no longer your last answer")
    phone.wait_for_selector(f"#pair[data-slot='{slot_shown(laptop)}']")
    assert len(live_answers(project, person)) == 2
    phone.keyboard.press("u")
    expect(phone.locator("#done")).to_have_text("1 done")
    assert len(live_answers(project, person)) == 1


def test_correction_behind_an_undo_that_was_refused_is_told_to_be_lost(
    visit: Start, project: Project, person: User
) -> None:
    """Offline an undo and a corrected answer were pressed; meanwhile the person went on at another machine."""
    phone = open_screen(visit(person, look="phone"), project)
    press(phone, "1")
    wait_until_saved(phone)
    [first] = live_answers(project, person)
    phone.context.set_offline(True)
    for key in ("u", "5"):
        press(phone, key)
    laptop = open_screen(visit(person), project)
    press(laptop, "5")
    wait_until_saved(laptop)
    phone.context.set_offline(False)
    expect(phone.locator("#problem")).to_contain_text("Your first answer counts; the second one was not saved")
    wait_until_saved(phone)
    assert live_answers(project, person)[0] == first
    read(phone)
    phone.keyboard.press("3")
    expect(phone.locator("#problem")).to_be_hidden()


def test_heartbeat_extends_the_time_of_who_is_there(visit: Start, project: Project, person: User) -> None:
    visited = visit(person)
    visited.page.clock.install()
    page = open_screen(visited, project)
    expect(page.locator("#left")).to_have_text(re.compile(r"Reserved for (5:00|4:5\d)"))
    page.clock.run_for(50_000)
    expect(page.locator("#left")).to_have_text(re.compile(r"Reserved for 4:0\d"))
    page.mouse.move(200, 300)
    with page.expect_response("**/compare/heartbeat/"):
        page.clock.run_for(15_000)
    page.clock.run_for(1_000)
    expect(page.locator("#left")).to_have_text(re.compile(r"Reserved for (5:00|4:5\d)"))


def test_keys_can_be_switched_off_and_buttons_stay(visit: Start, project: Project, person: User) -> None:
    page = open_screen(visit(person), project)
    page.keyboard.press("?")
    page.get_by_label("Keyboard shortcuts").uncheck()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()
    read(page)
    first = slot_shown(page)
    page.keyboard.press("1")
    page.wait_for_timeout(50)
    assert slot_shown(page) == first
    page.locator("[data-answer=right_clearly]").focus()
    page.keyboard.press("Enter")
    wait_until_saved(page)
    assert slot_shown(page) != first


def test_next_pair_is_announced(visit: Start, project: Project, person: User) -> None:
    page = open_screen(visit(person), project)
    press(page, "3")
    expect(page.locator("#announcer")).to_contain_text("Next pair. Which document answers this better?")
    expect(page.get_by_role("region", name="Text of document A")).to_be_visible()
    expect(page.get_by_role("group", name="Five steps from A to B")).to_be_visible()


def marks(page: Page, side: str) -> list[str]:
    return page.locator(f"#side-{side} mark").all_text_contents()


def test_words_of_the_query_are_marked_by_their_stems(visit: Start) -> None:
    project = make_asked(
        ["Keeping only the last of many. Nothing else.", "ONE LINE; underlined? not."],
        pairs=1,
        query="how do I keep only the last lines?",
    )
    page = open_screen(visit(make_annotator(project)), project)
    assert sorted([*marks(page, "a"), *marks(page, "b")]) == ["Keeping only the last", "LINE"]
