"""The figures of panel and people in a real browser: contradictions, replacement of people, scale, report."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect

from labeling.access.annotators import get_person
from labeling.models import Pair, Project
from labeling.records import AnswerKind
from scoring.calibration.calibrate import calibrate_project
from scoring.project_fits import choose_project_fit
from scoring.rating import rate_stale
from tests.browser.checks import Start, faults_in_looks
from tests.factories.pages import judge, make_judge
from tests.factories.rows import judge_pair, make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def answered(project: Project) -> Project:
    """A third judge that closes circles, and three people, who find some pairs irrelevant."""
    third = make_judge(project, name="Qwen/Qwen3-Reranker-8B-Instruct-AWQ-" + "long" * 20, plugin="openai-http")
    people = [get_person(project, make_user(f"person{number}")) for number in range(3)]
    pairs = list(Pair.objects.filter(query__project=project).select_related("a", "b").order_by("id"))
    places = {pk: place for place, pk in enumerate(sorted({pk for pair in pairs for pk in (pair.a_id, pair.b_id)}))}
    for number, pair in enumerate(pairs):
        apart = places[pair.b_id] - places[pair.a_id]
        judge(pair, third, 0.0 if apart == 2 else 0.8)
        for person in people:
            if places[pair.a_id] > 7:
                judge_pair(pair, person, None, kind=AnswerKind.BOTH_IRRELEVANT)
            else:
                judge_pair(pair, person, 0.95 if (number + person.pk) % 5 else 0.25)
    rate_stale(project.pk)
    choose_project_fit(project.pk)
    rate_stale(project.pk)
    calibrate_project(project.pk)
    return project


def test_the_pages_are_clean_in_every_look(visit: Start, owner: User, answered: Project) -> None:
    visited = visit(owner)
    faults: dict[str, Any] = {}
    for name in ("scorecard", "agreement", "people-agreement", "scale", "report"):
        page = visited.open(reverse(name, args=[answered.slug]))
        if name in ("scorecard", "agreement"):
            expect(page.get_by_role("heading", name="Contradictions")).to_be_visible()
            expect(page.locator(".circles li").first).to_be_visible()
        faults |= faults_in_looks(visited, f"panel-{name}")
    assert not faults
    assert not visited.complaints
