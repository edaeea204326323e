"""Documents that attack the page are texts like any other: nothing runs, nothing is lost, nothing sticks out."""

from __future__ import annotations

import pytest
from django.urls import reverse
from playwright.sync_api import Page

from labeling.annotation.gold import set_gold
from labeling.models import Document, Project
from tests.browser.annotation.comparing import (
    FAST,
    Start,
    make_annotator,
    make_asked,
    open_screen,
    pairs_of,
    press,
    wait_until_saved,
)
from tests.browser.annotation.hostile import HOSTILE

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

WATCH = """() => {
    window.booms = [];
    window.boom = (...given) => { window.booms.push(given); };
    for (const name of ['alert', 'confirm', 'prompt', 'print', 'open']) window[name] = () => { window.booms.push(name); };
}"""
STRAY = """() => [...document.querySelectorAll('#pair *')]
    .filter(each => !['HEADER', 'H1', 'H2', 'SPAN', 'P', 'Q', 'DIV', 'DETAILS', 'SUMMARY', 'DL', 'DT', 'DD', 'MARK',
                      'ARTICLE'].includes(each.tagName)).map(each => each.outerHTML)"""


def overflow(page: Page) -> int:
    found: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return found


def test_the_corpus_is_large_and_of_many_kinds() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) >= 100


@pytest.mark.parametrize("look", ["light", "phone"])
def test_hostile_documents_are_shown_as_texts(look: str, visit: Start) -> None:
    texts = HOSTILE if look == "light" else [text for text in HOSTILE if len(text) > 200]  # what could stick out
    pairs = (len(texts) + 1) // 2
    project = make_asked([], pairs=0, query="<img src=x onerror=boom()> {{ 7|add:7 }} script")
    show_in_twos(project, texts)
    visited = visit(make_annotator(project), look=look)
    visited.page.add_init_script(f"({WATCH})(); {FAST}")
    dialogs: list[str] = []
    visited.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page = open_screen(visited, project)
    address = page.url
    seen: list[str] = []
    for _ in range(pairs):
        page.wait_for_selector("#pair:not([hidden])")
        for side in ("a", "b"):
            seen.append(page.evaluate(f"document.querySelector('#side-{side} .text').textContent"))
        assert page.evaluate(STRAY) == []
        assert overflow(page) <= 0, seen[-2:]
        assert page.locator("[data-answer=tie]").is_visible()
        press(page, "3")
    page.wait_for_selector("#state[data-name=nothing_left]:not([hidden])")
    assert sorted(set(seen)) == sorted(set(texts))
    assert page.evaluate("window.booms") == []
    assert dialogs == []
    assert page.url == address
    assert visited.complaints == []


def show_in_twos(project: Project, texts: list[str]) -> None:
    """One pair for every two texts, each with hostile metadata."""
    from labeling.annotation.assignments import open_assignments
    from labeling.models import Candidate
    from labeling.pairs import store_pairs

    query = project.queries.get()
    texts = texts if len(texts) % 2 == 0 else [*texts, texts[0]]
    documents = Document.objects.bulk_create(
        Document(project=project, external_id=f"h{at}", text=text, metadata={text[:60]: [text[:60]]})
        for at, text in enumerate(texts)
    )
    ids = [each.pk for each in Candidate.objects.bulk_create(Candidate(query=query, document=d) for d in documents)]
    stored = store_pairs(ids[::2], ids[1::2], [query.pk] * (len(ids) // 2))
    open_assignments(stored, reason="random")


@pytest.mark.parametrize("look", ["light", "phone"])
def test_hostile_texts_on_the_pages_around(look: str, visit: Start) -> None:
    long = [text for text in HOSTILE if len(text) > 400][:3]
    project = make_asked([HOSTILE[0], HOSTILE[60], *long], pairs=10, query="<svg onload=boom()> " + "x" * 600)
    Project.objects.filter(pk=project.pk).update(
        instruction="\n\n".join(HOSTILE[:120]), name="<b onclick=boom()>" + "n" * 150
    )
    project.refresh_from_db()
    for pair in pairs_of(project)[:3]:
        set_gold(pair.pk, 0.95, explanation=HOSTILE[30] + "x" * 500)
    user = make_annotator(project)
    visited = visit(user, look=look)
    visited.page.add_init_script(f"({WATCH})(); {FAST}")
    page = open_screen(visited, project)
    for _ in range(3):
        page.keyboard.press("n")
        page.keyboard.insert_text("<img src=x onerror=boom()>" + "y" * 500)
        page.keyboard.press("Control+Enter")
        press(page, "1")
    wait_until_saved(page)
    for name in ("instruction", "my-answers"):
        visited.open(reverse(name, args=[project.slug]))
        assert overflow(page) <= 0, name
        assert page.evaluate("window.booms") == []
    assert visited.complaints == []
