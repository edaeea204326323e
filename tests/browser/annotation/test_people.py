"""The owner's day in a real browser: invite, plan, see what people answered, agree or not, decide by key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect

from labeling.access.annotators import get_person
from labeling.access.members import invite
from labeling.annotation.gold import set_gold
from labeling.models import Annotator, GoldAnswer, Judgment, Membership, Project, SpotCheck
from scoring.annotators.adjudication import adjudicate
from scoring.models import Adjudication
from scoring.spot_checks.plans import plan_spot_checks
from tests.browser.annotation.comparing import FAST, press, wait_until_saved
from tests.browser.checks import Start, faults_in_looks
from tests.browser.conftest import LOOKS
from tests.factories.pages import (
    candidates_of,
    judge,
    make_judge,
    make_pair,
    make_project,
    make_query,
    make_user,
    score,
)

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
TEXT = "Troponin rises after long endurance exercise and falls again within two days in healthy runners"


@pytest.fixture
def owner() -> User:
    return make_user("ada", first_name="Ada", last_name="Lovelace")


@pytest.fixture
def project(owner: User) -> Project:
    """Eight documents, every pair answered by two judges who differ on some; nobody else is there."""
    project = make_project(owner)
    query = make_query(project, size=8, text="how long does troponin stay up after a marathon", words=TEXT)
    judges = [make_judge(project, name="gpt-4.1 · reasoned", plugin="openai-http"), make_judge(project)]
    rng = np.random.default_rng(3)
    documents = candidates_of(query)
    for at, first in enumerate(documents):
        for second in documents[at + 1 :]:
            pair = make_pair(first, second)
            for annotator in judges:
                judge(
                    pair, annotator, float(rng.choice([0.2, 0.7, 0.9])), rationale="A names the two days; B does not."
                )
    score(query, [1.0 - 0.2 * at for at in range(8)])
    return project


@pytest.fixture
def answered(project: Project, owner: User) -> Project:
    """Two annotators and somebody paused have answered; one pair is decided, one gold, one plan and link open."""
    people = [make_user(f"{name.lower()}", first_name=name) for name in ("Grace", "Emmy", "Barbara")]
    for user in people:
        Membership.objects.create(
            project=project, user=user, role="annotator", quota=100 if user == people[0] else None
        )
    plan_spot_checks(project, reason="random", pairs=24, overlap=2, seed=1, by=owner)
    rng = np.random.default_rng(4)
    for user in people[:2]:
        person = get_person(project, user)
        for check in SpotCheck.objects.filter(project=project, slot=people.index(user)).order_by("id")[:20]:
            judge(
                check.pair, person, float(rng.choice([0.05, 0.75, 0.95])), rationale="It says how long, in plain words."
            )
            judgment = Judgment.objects.get(pair=check.pair, annotator=person)
            SpotCheck.objects.filter(pk=check.pk).update(holder=person, judgment=judgment, seconds=rng.uniform(6, 14))
    paused = get_person(project, people[2])
    Annotator.objects.filter(pk=paused.pk).update(
        paused_at="2026-01-02T03:04:05Z",
        pause_reason="2 of 5 answers to pairs whose answer is known were as expected (40%); this project asks for 70%",
    )
    first, second = SpotCheck.objects.filter(project=project, slot=0).order_by("-id")[:2]
    adjudicate(first.pair, owner, "2")
    set_gold(second.pair_id, 0.95, explanation="Only one of the two says for how long.")
    invite(project, role="viewer")
    return project


def addresses(project: Project) -> dict[str, str]:
    pair = Judgment.objects.filter(annotator__project=project, by_person=True, adjudication=None).first()
    decided = Adjudication.objects.first()
    return {
        "people": reverse("people", args=[project.slug]),
        "people-agreement": reverse("people-agreement", args=[project.slug]),
        "disagreements": reverse("disagreements", args=[project.slug]),
        "decided": reverse("disagreements", args=[project.slug]) + "?show=decided",
        **({"adjudicate": reverse("adjudicate", args=[project.slug, pair.pair_id])} if pair else {}),
        **({"adjudicated": reverse("adjudicate", args=[project.slug, decided.pair_id])} if decided else {}),
        "profile": reverse("profile"),
    }


def looked_at(visited: Any, project: Project, looks: Iterable[str], state: str = "") -> dict[str, Any]:
    """Faults of every page about people, by page."""
    faults: dict[str, Any] = {}
    for page, address in addresses(project).items():
        visited.open(address)
        if page == "people":
            visited.page.wait_for_selector("#preview :not(.grey)")
        faults |= faults_in_looks(visited, page + state, looks)
    return faults


def test_the_pages_about_people_are_clean_in_every_look(visit: Start, owner: User, answered: Project) -> None:
    visited = visit(owner)
    assert not looked_at(visited, answered, LOOKS)
    assert not visited.complaints


def test_the_pages_say_what_to_do_while_they_are_empty(visit: Start, owner: User, project: Project) -> None:
    visited = visit(owner)
    assert not looked_at(visited, project, ["light"], "-empty")
    assert not visited.complaints


# --- the owner's day ---------------------------------------------------------------------


def test_an_owners_day(visit: Start, owner: User, project: Project) -> None:
    """Invite, plan, let the newcomer answer through their screen, look at agreement, decide by key, take it back."""
    ada = visit(owner)
    page = ada.open(reverse("people", args=[project.slug]))
    page.get_by_role("button", name="Create link").click()
    link = page.locator("#new-link").inner_text()
    page.get_by_label("judges disagree").check()
    page.get_by_label("Pairs", exact=True).fill("12")
    expect(page.locator("#preview")).to_contain_text("12 answers")
    page.get_by_role("button", name="Plan checks", exact=True).click()
    expect(page.get_by_text("Planned 12 pairs.")).to_be_visible()

    newcomer = visit()
    newcomer.page.add_init_script(FAST)
    screen = newcomer.open(link.removeprefix(newcomer.address))
    screen.get_by_label("Your name").fill("Grace Hopper")
    screen.get_by_role("button", name="Join project").click()
    answer_all(screen, 12)
    assert Judgment.objects.live().filter(annotator__name="Grace Hopper").count() == 12
    assert screen.goto(newcomer.address + reverse("disagreements", args=[project.slug])).status == 403

    page = ada.open(reverse("people", args=[project.slug]))
    expect(page.get_by_role("row", name="Grace Hopper")).to_contain_text("12")
    expect(page.get_by_role("row", name="judges disagree")).to_contain_text("12 of 12")
    page.get_by_role("link", name="agreement", exact=True).click()
    expect(page.get_by_role("row", name="Grace Hopper and MiniLM")).to_contain_text("12")

    page.get_by_role("link", name="disagreements", exact=True).click()
    page.wait_for_url("**/disagreements/**")  # with its scripts, which hear the key
    page.keyboard.press("j")
    expect(page.get_by_text("Grace Hopper")).to_be_visible()
    first = page.url
    page.keyboard.press("j")
    page.wait_for_url(lambda url: url != first)
    page.keyboard.press("k")
    page.wait_for_url(lambda url: url.split("?")[0] == first.split("?")[0])
    page.keyboard.press("g")
    page.keyboard.press("1")
    expect(page.get_by_text("Decided: A, clearly.")).to_be_visible()
    page.keyboard.press("5")
    expect(page.get_by_text("Decided: B, clearly.")).to_be_visible()
    assert sorted(Adjudication.objects.values_list("judgment__preference", flat=True)) == [0.05, 0.95]
    assert GoldAnswer.objects.filter(preference=0.95).count() == 1
    page.keyboard.press("u")
    expect(page.get_by_text("Verdict undone.")).to_be_visible()
    assert [each.judgment.preference for each in Adjudication.objects.select_related("judgment")] == [0.95]
    assert not ada.complaints


def answer_all(screen: Any, pairs: int) -> None:
    """Read the instruction and answer every pair with a key, waiting for each to be stored."""
    if "/instruction/" not in screen.url:
        screen.wait_for_selector("#state-link:not([hidden]), #pair:not([hidden])")
        if screen.locator("#state-link").is_visible():
            screen.locator("#state-link").click()
    screen.locator("form.confirm button, .confirm button").first.click()
    screen.wait_for_selector("#pair:not([hidden])")
    for number in range(pairs):
        press(screen, "1" if number % 3 else "5")
    wait_until_saved(screen)


def test_a_link_is_copied(visit: Start, owner: User, project: Project) -> None:
    visited = visit(owner, permissions=["clipboard-read", "clipboard-write"])
    page = visited.open(reverse("people", args=[project.slug]))
    page.get_by_role("button", name="Create link").click()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#new-link").inner_text()


def test_a_lost_link_is_replaced_and_the_person_signs_in_by_name(visit: Start, owner: User, project: Project) -> None:
    owners = visit(owner).open(reverse("people", args=[project.slug]))
    invitations = owners.locator("section", has=owners.locator("#h-invitations"))
    invitations.get_by_label("Name").fill("Grace Hopper")
    invitations.get_by_role("button", name="Create link").click()
    lost = owners.locator("#new-link").inner_text()
    invitations.get_by_role("row", name="Grace Hopper").get_by_role("button", name="link lost").click()
    found = owners.locator("#new-link").inner_text()
    guest = visit()
    path = lambda link: link.removeprefix(guest.address)  # noqa: E731
    expect(guest.open(path(lost)).locator("h1")).to_have_text("Invalid link")
    guest.open(path(found)).get_by_role("button", name="Join project").click()
    owners.reload()
    expect(owners.get_by_role("row", name="Grace Hopper")).to_contain_text("annotator")
    owners.get_by_label("Change Grace Hopper").click()
    owners.get_by_role("button", name="New sign-in link").click()
    second = visit()
    second.open(path(owners.locator("#new-link").inner_text())).get_by_role("button", name="Sign in").click()
    page = second.open(reverse("profile"))
    password = "long enough and mine"
    page.get_by_label("New password", exact=True).fill(password)
    page.get_by_label("New password confirmation").fill(password)
    page.locator("form", has=page.get_by_label("New password", exact=True)).get_by_role("button").click()
    third = visit()
    page = third.open(reverse("sign-in"))
    page.locator("#username").fill("grace-hopper")
    page.locator("#password").fill(password)
    page.locator("main").get_by_role("button", name="Sign in").click()
    expect(page.locator("header")).to_contain_text("Grace Hopper")
