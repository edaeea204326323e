"""Distilled runs on the page, by REST and by command, and the figures of a pairwise training."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from labeling.models import Project
from scoring.models import Snapshot
from tests.factories.rows import make_judges, make_project, make_user
from tests.factories.students.stored import pairwise_run, stored_student
from trainer.models import TrainingRun
from workers.jobs.distillation import STAGE
from workers.models import Job, Run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


@pytest.fixture(autouse=True)
def own_storage(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"
    monkeypatch.setenv("ZELO_MODELS", "*")


@pytest.fixture
def project() -> Project:
    return make_project(owner=make_user("owner"), queries=4, documents=5)


@pytest.fixture
def owner(project: Project, client: Client) -> Iterator[Client]:
    client.force_login(get_user_model().objects.get(username="owner"))
    yield client


def text_of(response: Any) -> str:
    return " ".join(response.content.decode().split())


def test_the_page_orders_cancels_and_resumes_a_distilled_run(project: Project, owner: Client) -> None:
    address = reverse("distill", args=[project.slug])
    assert "Start a run with them first" in text_of(owner.get(address))
    judges = make_judges(project, 2)
    assert judges[0].name in text_of(owner.get(address))
    nobody = owner.post(address, {})
    assert nobody.status_code == 422 and "Choose at least one judge." in text_of(nobody)
    odd = owner.post(address, {"judge": [judges[0].pk], "distill-degree": "7"})
    assert odd.status_code == 422 and not Job.objects.filter(stage=STAGE).exists()

    sent = {"judge": [each.pk for each in judges], "distill-panel_pairs": "2"}
    assert owner.post(address, sent).status_code == 302
    job = Job.objects.get(stage=STAGE)
    assert job.payload["judges"] == [each.pk for each in judges]
    assert Run.objects.get().pair_budget == 8
    shown = text_of(owner.get(address))
    assert "The panel judges the first part." in shown and "0 panel calls instead of 120" in shown
    assert "Start distilled run" not in shown, "one at a time"

    move = reverse("move-distillation", args=[project.slug, job.pk, "cancel"])
    owner.post(move)
    job.refresh_from_db()
    assert (job.state, Run.objects.get().state) == ("cancelled", "cancelled")
    assert "already cancelled" in text_of(owner.post(move, follow=True))
    owner.post(reverse("move-distillation", args=[project.slug, job.pk, "resume"]))
    resumed = Job.objects.get(stage=STAGE, state="open")
    owner.post(reverse("move-distillation", args=[project.slug, resumed.pk, "cancel"]))
    page_ = owner.get(reverse("distill", args=[project.slug])).content.decode()
    assert f"distill/{resumed.pk}/resume" in page_ and f"distill/{job.pk}/resume" not in page_, "once each"
    assert owner.post(reverse("move-distillation", args=[project.slug, job.pk, "jump"])).status_code == 404


def test_rest_and_command_share_the_order(project: Project, owner: Client) -> None:
    url = f"/api/v1/projects/{project.slug}/distillations"
    body = {"judges": [{"plugin": "test-longer"}], "options": {"panel_pairs": 2, "degree": 3}}
    refused = owner.post(url, json.dumps(body), "application/json")
    assert refused.status_code == 422 and "degree" in refused.json()["detail"]
    body["options"] = {"panel_pairs": 2}
    found = owner.post(url, json.dumps(body), "application/json")
    assert found.status_code == 201
    shown = found.json()
    assert (shown["stage"], shown["panel_calls"], shown["paper_calls"]) == ("panel", 0, 4 * 3 * 10)
    assert set(shown["runs"]) == {"panel"} and shown["options"]["review_pairs"] == 60
    number = shown["distillation_id"]
    assert owner.get(url).json()[0] == owner.get(f"/api/v1/distillations/{number}").json() == shown
    assert owner.post(f"/api/v1/distillations/{number}/resume").status_code == 409

    out = io.StringIO()
    call_command("distill", project.slug, "--status", stdout=out)
    assert (
        f"distilled run {number}: open at panel" in out.getvalue() and "0 panel calls instead of 120" in out.getvalue()
    )
    with pytest.raises(CommandError, match="unfinished; wait for its end"):
        call_command("distill", project.slug, "--judges", "test-longer", stdout=out)
    call_command("distill", project.slug, "--cancel", str(number), stdout=out)
    assert Job.objects.get(pk=number).state == "cancelled"
    assert owner.post(f"/api/v1/distillations/{number}/cancel").status_code == 409
    call_command("distill", project.slug, "--resume", str(number), stdout=out)
    assert owner.post(f"/api/v1/distillations/{number + 10_000}/cancel").status_code == 404
    for arguments, told in (
        (["nowhere"], "no project has the slug"),
        ([project.slug, "--options", "{"], "is not JSON"),
        ([project.slug, "--judges", "no-such-judge"], "no judge is named"),
        ([project.slug, "--resume", "99999"], "has no distilled run 99999"),
    ):
        with pytest.raises(CommandError, match=told):
            call_command("distill", *arguments, stdout=out)


def test_the_training_page_shows_the_held_out_pairs_and_the_judge(
    project: Project, owner: Client, tmp_path: Path
) -> None:
    run = pairwise_run(project, _snapshot(project), "finished")
    figures = {
        "split": "test", "pairs": 48, "queries": 8, "log_loss": 0.512, "low": 0.47, "high": 0.55, "panel_entropy": 0.401,
        "accuracy": 0.83, "clear": 20, "ece": 0.041, "position_bias": -0.012, "flips": 0.1, "cycles": 0.02, "triples": 300,
    }  # fmt: skip
    progress = {"step": 20, "steps": 20, "log_loss": [[0, 0.69], [20, 0.52]], "best": {"step": 20, "log_loss": 0.52}}
    gate = {"held_back": False, "comparisons": [], "reasons": [], "pairs": figures}
    TrainingRun.objects.filter(pk=run.pk).update(gate=gate, progress=progress)
    student = stored_student(run, tmp_path)
    shown = text_of(owner.get(reverse("training-run", args=[project.slug, run.pk])))
    for part in (
        "Held-out pairs",
        "0.512",
        "0.401",
        "83",
        "−0.012",
        student.checksum,
        "Log-loss on the dev pairs",
        "Start judging",
    ):
        assert part in shown, part
    assert "Try reranker" not in shown
    assert owner.get(reverse("training", args=[project.slug])).status_code == 200
    TrainingRun.objects.filter(pk=run.pk).update(gate={**gate, "held_back": True, "reasons": ["pairs_at_chance"]})
    student.release = "held_back"
    student.save()
    held_back = text_of(owner.get(reverse("training-run", args=[project.slug, run.pk])))
    assert "no better than chance, so it is not published" in held_back and "Publish anyway" in held_back
    lost = {
        "split": "test", "reference": "log_loss", "rival": "base", "queries": 8, "student": 0.512, "other": 0.498, "difference": 0.014,
        "low": 0.004, "high": 0.024, "p_value": 0.01, "worse": True,
    }  # fmt: skip
    to_base = {**gate, "held_back": True, "comparisons": [lost], "reasons": ["good_base"]}
    TrainingRun.objects.filter(pk=run.pk).update(gate=to_base)
    worse = text_of(owner.get(reverse("training-run", args=[project.slug, run.pk])))
    assert "judges held-out pairs worse than a baseline by more than chance" in worse and "NDCG" not in worse
    for part in (
        "untrained base",
        "0.498",
        "+0.014",
        "+0.004 … +0.024",
        "The base already judges these pairs as well.",
    ):
        assert part in worse, part


def _snapshot(project: Project) -> Snapshot:
    snapshot = Snapshot.objects.create(name="frozen", location="snapshots/none", checksum="0" * 64, rows=1)
    snapshot.projects.add(project)
    return snapshot
