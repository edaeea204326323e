"""A student that was published although the gate held it back says so wherever it appears."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from labeling.models import Membership, Project
from scoring.models import Snapshot
from tests.factories.frozen import make_frozen, make_scored
from tests.factories.pages import page
from trainer.evaluation.entries import enter_baselines
from trainer.models import Deployment, Reranker, TrainingRun
from workers.jobs.evaluation import evaluate, order_evaluation

pytestmark = pytest.mark.django_db(transaction=True)
BADGE = "published although held back"


@pytest.fixture
def project(owner: Any, settings: Settings, tmp_path: Path) -> Project:
    settings.STORAGE_URL = f"file://{tmp_path}"
    scored = make_scored(queries=9, documents=6)
    Membership.objects.create(project=scored, user=owner, role="owner")
    return scored


@pytest.fixture
def snapshot(project: Project) -> Snapshot:
    return make_frozen(project)


def student(project: Project, snapshot: Snapshot, release: str) -> Reranker:
    gate = {"held_back": True, "comparisons": [], "reasons": []}
    run = TrainingRun.objects.create(
        project=project, snapshot=snapshot, trainer="listwise", state="held_back", gate=gate
    )
    return Reranker.objects.create(
        project=project, training_run=run, name="weak student", kind="trained", checksum="c" * 64, location="x",
        release=release,
    )  # fmt: skip


@pytest.mark.parametrize(("release", "said"), [("published_anyway", True), ("held_back", False)])
def test_trainings_and_deployments_show_the_badge(
    client: Client, project: Project, snapshot: Snapshot, release: str, said: bool
) -> None:
    found = student(project, snapshot, release)
    deployment = Deployment.objects.create(project=project, name="live", current=found)
    for name, *more in (
        ("refine", found.pk), ("training",), ("training-run", found.training_run_id), ("deployments",), ("deployment", deployment.pk),
    ):  # fmt: skip
        html = client.get(reverse(name, args=[project.slug, *more])).content.decode()
        assert (BADGE in html) == said, name


def test_the_leaderboard_says_it_on_page_over_rest_and_in_the_terminal(
    client: Client, project: Project, snapshot: Snapshot
) -> None:
    chosen = [each for each in enter_baselines(project) if each.kind == "bm25"]
    evaluate(order_evaluation(project, snapshot, "test", rerankers=chosen).pk)

    moved = f"{reverse('moved', args=[project.slug])}?from={chosen[0].pk}&to={chosen[0].pk}"
    report = reverse("report", args=[project.slug])

    def told() -> tuple[int, str, bool]:
        cache.clear()  # keeps a report for a while
        out = io.StringIO()
        call_command("evaluate", project.slug, stdout=out)
        rows = client.get(f"/api/v1/projects/{project.slug}/leaderboard?snapshot={snapshot.pk}").json()["rows"]
        release = next(each["release"] for each in rows if each["kind"] == "bm25")
        pages = [client.get(each).content.decode() for each in (moved, report)]
        counts = [text.count(BADGE) for text in (page(client, "proof", project.slug), *pages)]
        assert counts[0] in (0, 2), "the leaderboard, and its part by domain"
        return sum(map(bool, counts)), release, "BM25 (published although it was held back)" in out.getvalue()

    assert told() == (0, "published", False)
    Reranker.objects.filter(kind="bm25").update(release="published_anyway")
    assert told() == (3, "published_anyway", True)
