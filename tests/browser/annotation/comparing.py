"""Helpers of the browser tests of the comparison screen: a project with pairs to ask, and hands that press its keys."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import Page

from labeling.access.annotators import get_person
from labeling.annotation.assignments import open_assignments
from labeling.annotation.instruction import confirm_read, instruction_hash
from labeling.models import Candidate, Document, Judgment, Membership, Pair, Project, Query, Role
from labeling.pairs import store_pairs
from tests.browser.conftest import Visit
from tests.factories.pages import make_project, make_user

Start = Callable[..., Visit]
TOO_SOON_MS = 330
ASKED = "how do I keep only the last N lines I saw?"
A = """A sequence that may be given a bounded length: once it is full, what is added at one end pushes something out at \
the other. Reading a file into it keeps only the last N lines, which is how one gets at the tail of a log.

Adding and removing cost the same at either end, however long it is."""
B = """Cuts a string into a list of its lines. The line breaks are left out of the list unless one asks to keep them. \
A string without any text gives an empty list, and a line break at the very end does not make one more line."""


def make_asked(texts: list[str], *, pairs: int, query: str = ASKED, **rules: Any) -> Project:
    """A project whose candidates hold `texts`, with `pairs` of its pairs open for people; no gold unless told."""
    project = make_project(name="Answers about Python")
    Project.objects.filter(pk=project.pk).update(**{"gold_every": 0, **rules})
    asked = Query.objects.create(project=project, external_id="q", text=query)
    documents = Document.objects.bulk_create(
        Document(project=project, external_id=f"d{at}", text=text, metadata={"source": "manual", "year": 2024})
        for at, text in enumerate(texts)
    )
    candidates = Candidate.objects.bulk_create(Candidate(query=asked, document=document) for document in documents)
    both = list(itertools.islice(itertools.combinations([candidate.pk for candidate in candidates], 2), pairs))
    stored = store_pairs([a for a, _ in both], [b for _, b in both], [asked.pk] * len(both))
    open_assignments(stored, reason="random")
    project.refresh_from_db()
    return project


def pairs_of(project: Project) -> list[Pair]:
    return list(Pair.objects.filter(query__project=project).order_by("id"))


def make_annotator(project: Project, name: str = "", *, quota: int | None = None) -> User:
    """A member who compares and has read the instruction."""
    user = make_user(name)
    Membership.objects.create(project=project, user=user, role=Role.ANNOTATOR, quota=quota)
    confirm_read(project, user, seen=instruction_hash(project))
    return user


def live_answers(project: Project, user: User) -> list[Judgment]:
    return list(Judgment.objects.live().filter(annotator=get_person(project, user)).order_by("id"))


def open_screen(visited: Visit, project: Project) -> Page:
    page = visited.open(reverse("compare", args=[project.slug]))
    page.wait_for_selector("#pair:not([hidden])")
    return page


def slot_shown(page: Page) -> str | None:
    """The slot of the pair on the screen; None while none is."""
    found: str | None = page.evaluate("document.querySelector('#pair:not([hidden])')?.dataset.slot ?? null")
    return found


# For tests of many pairs: to the page, time passes twenty times as fast.
HURRY = 20
FAST = (
    f"const now = performance.now.bind(performance); performance.now = () => {HURRY} * now(); window.hurry = {HURRY};"
)


def read(page: Page) -> None:
    """Look at a pair long enough that a press is meant for it."""
    page.wait_for_timeout(TOO_SOON_MS / page.evaluate("window.hurry ?? 1"))


def press(page: Page, key: str) -> None:
    """Press a key after a moment of reading, and wait until another pair, or none, is shown."""
    page.wait_for_selector("#pair:not([hidden]), #state:not([hidden]):not([data-name=loading])")
    before = slot_shown(page)
    read(page)
    page.keyboard.press(key)
    # Not wait_for_function: it evaluates strings, which the page's security policy forbids.
    page.wait_for_selector(f"#pair[hidden], #pair:not([data-slot='{before}'])", state="attached")


def wait_until_saved(page: Page) -> None:
    page.wait_for_selector("#saved[data-look=saved]")
