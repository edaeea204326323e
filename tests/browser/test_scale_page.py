"""What scores rest on, in a real browser: every look, a phone's width, the way from the spine, the button."""

from __future__ import annotations

import math

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from playwright.sync_api import expect

from labeling.models import Project
from scoring.models import Calibration, JudgeFit, ProjectFit, QueryFit
from tests.browser.checks import Start, faults_in_looks
from tests.factories.pages import (
    candidates_of,
    judge,
    make_judge,
    make_pair,
    make_project,
    make_query,
    make_run,
    make_user,
    score,
)
from workers.models import Run

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
TEXTS = [
    "do goldfish grow",
    "what is the most popular food in switzerland",
    "why does a heart enzyme rise after a marathon, and for how long does it stay up in people who trained for it",
    "causes of military suicide",
    "unbroken" * 30,
]


@pytest.fixture
def owner() -> User:
    return make_user("ada", is_superuser=True)


@pytest.fixture
def project(owner: User) -> Project:
    """Fourteen rated queries with biases, two islands, a calibration on grades, two judges who share errors."""
    project = make_project(owner)
    judges = [make_judge(project, name="bm25", plugin="bm25"), make_judge(project, name="query-likelihood")]
    for number in range(14):
        query = make_query(project, text=TEXTS[number % 5])
        documents = candidates_of(query)
        for a, b in ((0, 1), (1, 2)):
            pair = make_pair(documents[a], documents[b])
            for each in judges:
                judge(pair, each, 0.8 if number % 4 else 0.3)
        score(query, [1.0, 0.0, -1.0])
        QueryFit.objects.filter(query=query).update(
            bias=0.9 * math.sin(number), bias_stderr=0.12 + 0.01 * number, bias_island=int(number == 13)
        )
    for each, sharpness in zip(judges, (0.84, 0.74), strict=True):
        JudgeFit.objects.create(
            annotator=each, sharpness=sharpness, sharpness_stderr=0.03, position_bias=-0.02,
            position_bias_stderr=0.02, dispersion=1.7, weight=0.51, votes=28,
        )  # fmt: skip
    correlations = [[judges[0].pk, judges[1].pk, 0.94]]
    losses = [[0.0057, 0.5193], [0.0114, 0.5191], [0.0228, 0.519], [0.0456, 0.5192]]
    ProjectFit.objects.create(
        project=project, rater="thurstone", prior_precision=0.0228, cross_validated=True, dispersion=1.31,
        losses=losses, pairs=17_200, correlations=correlations,
    )  # fmt: skip
    Calibration.objects.create(
        project=project, version=0, method="isotonic", answers=4300, ece=0.0104, islands=3, parameters=known()
    )
    make_run(project, state="finished").judges.set(judges)
    return project


def known() -> dict[str, object]:
    """What a calibration of this project says beside its columns."""
    counts = [2900, 640, 310, 190, 120, 80, 46, 9, 1, 0]
    bins = [
        [at / 10, (at + 1) / 10, at / 10 + 0.04, min(1.0, at / 10 + 0.05 + 0.02 * (at % 3)), number]
        for at, number in enumerate(counts)
    ]
    islands = [{"queries": 13, "names": [f"q-{n}" for n in range(10)]}, {"queries": 1, "names": ["lonely" * 20]}]
    return {
        "source": "grades", "brier": 0.0962, "queries": 43, "reason": "", "reliability": bins, "pairs": 129,
        "judgments": 387, "islands": islands, "unlinked": 1, "unlinked_names": ["q-14"],
    }  # fmt: skip


def test_the_scale_and_the_judges_figures_are_clean_in_every_look(visit: Start, owner: User, project: Project) -> None:
    visited = visit(owner)
    for name, address in (("scale", "scale"), ("agreement", "scorecard")):
        page = visited.open(reverse(address, args=[project.slug]))
        if name == "agreement":
            page.wait_for_selector("#h-kappa")
            page.locator("#agreement").scroll_into_view_if_needed()
        assert faults_in_looks(visited, name) == {}
    assert visited.complaints == []


def test_the_spine_leads_to_the_scale_and_a_button_orders_pairs(visit: Start, owner: User, project: Project) -> None:
    visited = visit(owner)
    page = visited.open(reverse("project", args=[project.slug]))
    page.get_by_role("link", name="Calibrate").click()
    page.get_by_role("heading", name="Scale and calibration").wait_for()
    page.get_by_role("button", name="Judge 42 pairs").click()
    expect(page.locator(".notice.success")).to_contain_text("Judging of cross-query pairs started")
    assert Run.objects.filter(sampler="cross-query").count() == 1
    assert visited.complaints == []
