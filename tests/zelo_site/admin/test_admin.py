"""The admin's pages: each answers, nothing runs or paints from the page itself, figures are those of the rows."""

from __future__ import annotations

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from labeling.models import AuditEntry, Membership, Project
from scoring.models import Snapshot
from scoring.storage.files import storage
from tests.factories.lessons import rows_file
from tests.factories.world.changes import (
    a_failed_question,
    a_key,
    an_open_distillation,
    an_open_recipe,
    an_open_refinement,
    an_open_teaching,
)
from tests.factories.world.site import World, make_world
from trainer.models import TrainingRun
from workers.models import Attempt, Job, Run, Worker
from workers.monitoring.table_sizes import table_sizes
from zelo_site.admin.site import NAVIGATION, site
from zelo_site.admin.spend import recent_spend, stored_projects

pytestmark = pytest.mark.django_db


@pytest.fixture
def world(settings: Any, tmp_path: Any) -> World:
    settings.STORAGE_URL = f"file://{tmp_path / 'stored'}"
    world = make_world()
    a_key(world)
    a_failed_question(world)
    Worker.objects.create(name="cpu@host:1", queues="judging-cpu", host="host", pid=1)
    world.users["admin"] = User.objects.create_superuser("admin")
    return world


def pages() -> list[str]:
    return [
        *("index", "storage", "plugins", "auth_user_add"),
        *(f"{model._meta.app_label}_{model._meta.model_name}_changelist" for model in site._registry),
    ]


def test_every_page_answers_without_inline_styles_and_scripts(world: World) -> None:
    client = world.client("admin")
    inline = {}
    for name in pages():
        answer = client.get(reverse(f"admin:{name}"))
        bodies = [answer.content.decode()]
        assert answer.status_code == 200, name
        if name.endswith("_changelist"):
            row = next(iter(answer.context["cl"].result_list), None)
            if row is not None:
                address = reverse(f"admin:{name.replace('changelist', 'change')}", args=[row.pk])
                bodies.append(client.get(address).content.decode())
            assert client.get(answer.request["PATH_INFO"], {"q": "search"}).status_code == 200, name
        found = [re.search(r"<style|<script(?![^>]*\bsrc=)|\sstyle=|\son[a-z]+=|javascript:", body) for body in bodies]
        if any(found):
            inline[name] = found
        assert "unsafe" not in answer.headers["Content-Security-Policy"], name
    assert inline == {}


def test_every_list_is_in_the_navigation(world: World) -> None:
    shown = {address for _, items in NAVIGATION for _, address in items}
    assert {name for name in pages() if name != "auth_user_add"} == shown


def test_no_secret_is_shown(world: World) -> None:
    client = world.client("admin")
    for name, field in (("labeling_apitoken", "token_hash"), ("workers_endpointdefinition", "secrets")):
        model_admin = next(
            each for model, each in site._registry.items() if model._meta.label_lower.replace(".", "_") == name
        )
        assert field not in model_admin.fields
        row = model_admin.model.objects.first()
        body = client.get(reverse(f"admin:{name}_change", args=[row.pk])).content.decode()
        assert not getattr(row, field) or getattr(row, field) not in body


def test_an_action_that_cannot_be_undone_asks_first(world: World) -> None:
    client, address = world.client("admin"), reverse("admin:workers_run_changelist")
    sent = {"action": "cancel", "_selected_action": str(world.known["run_id"]), "index": "0"}
    answer = client.post(address, sent)
    assert "Cancel these runs?" in answer.content.decode()
    assert Run.objects.get(pk=world.known["run_id"]).state != Run.State.CANCELLED
    client.post(address, {**sent, "confirmed": "yes"})
    assert Run.objects.get(pk=world.known["run_id"]).state == Run.State.CANCELLED


def test_what_a_verb_refuses_is_shown_with_its_reason(world: World) -> None:
    client, owner = (
        world.client("admin"),
        Membership.objects.get(user=world.users["owner"], project__slug=world.known["slug"]),
    )
    sent = {"action": "make_viewer", "_selected_action": str(owner.pk), "index": "0"}
    answer = client.post(reverse("admin:labeling_membership_changelist"), sent, follow=True)
    assert "this is the last owner" in answer.content.decode()


def test_spend_is_summed_by_day_project_and_endpoint(world: World) -> None:
    run = Run.objects.get(pk=world.known["run_id"])
    for number, cost in enumerate((30_000, 50_000, 70_000)):
        Attempt.objects.create(
            task_id=number, fence=1, run=run, annotator_id=world.known["annotator_id"], outcome="preference",
            input_tokens=10, output_tokens=2, cost_micros=cost, finished_at=timezone.now(),
        )  # fmt: skip
    old = timezone.now() - timedelta(days=40)
    Attempt.objects.filter(cost_micros=70_000).update(finished_at=old)
    cache.clear()
    spend = recent_spend()
    for rows in (spend.days, spend.projects, spend.endpoints):
        assert [(each.calls, each.tokens, each.cost_micros, each.share) for each in rows] == [(2, 24, 80_000, 1.0)]
    assert spend.projects[0].name == run.project.name
    assert "$0.08" in world.client("admin").get(reverse("admin:index")).content.decode()


def test_the_first_page_shows_the_size_of_each_kind_of_rows(world: World) -> None:
    page = world.client("admin").get(reverse("admin:index")).content.decode()
    for label in ("Calls", "Audit log", "Questions and dead letters"):
        assert f'<th scope="row">{label}</th>' in page
    sizes = {each.name: each for each in table_sizes()}
    assert sizes["attempts"].days == 365 and sizes["judgments"].days is None
    assert sizes["audit"].bytes > 0 and sizes["other"].name == "other"


def test_storage_counts_the_files_below_a_snapshot(world: World) -> None:
    project = Project.objects.get(slug=world.known["slug"])
    snapshot = Snapshot.objects.get(pk=world.known["snapshot_id"])
    storage().write_bytes(f"{snapshot.location}/more.parquet", b"x" * 1000)
    storage().write_bytes(f"{snapshot.location}-other/rows.parquet", b"x" * 7)
    cache.clear()
    found = next(each for each in stored_projects() if each.slug == project.slug)
    assert found.snapshot_bytes == 1000 + len(rows_file())
    assert found.documents == project.documents.count() and found.text_bytes > 0
    assert found.answers == 1


def test_strangers_sign_in_and_members_are_refused(world: World) -> None:
    assert Client().get("/admin/").url.startswith(reverse("sign-in"))  # type: ignore[attr-defined]
    assert world.client("owner").get("/admin/").status_code == 403
    viewer = world.users["viewer"].pk
    world.client("admin").post(f"/admin/auth/user/{viewer}/delete/", {"post": "yes"})  # no such address
    assert User.objects.filter(pk=viewer).exists()
    assert world.client("admin").get("/admin/login/").status_code == 404


def test_the_plugins_page_answers(world: World) -> None:
    assert world.client("admin").get(reverse("plugins")).status_code == 200


def cancelled_in_the_admin(world: World, *jobs: Job) -> str:
    """The page that follows after the superuser has cancelled these jobs and agreed to it."""
    sent = {"action": "cancel", "_selected_action": [str(job.pk) for job in jobs], "index": "0"}
    client, address = world.client("admin"), reverse("admin:workers_job_changelist")
    question = client.post(address, sent).content.decode()
    assert "Cancel these jobs?" in question and all(f"Job {job.pk} · {job.stage} · " in question for job in jobs)
    return unescape(client.post(address, {**sent, "confirmed": "yes"}, follow=True).content.decode())


def test_a_job_is_cancelled_by_the_verb_of_its_stage(world: World) -> None:
    for make in (an_open_distillation, an_open_refinement, an_open_recipe, an_open_teaching):
        make(world)
    training = TrainingRun.objects.get(pk=world.known["training_id"])
    Job.objects.create(project=training.project, stage="train", payload={"training_run": training.pk})
    by_stage = {
        "distill": "distillation.cancelled",
        "recipe": "recipe.cancelled",
        "refine": "refinement.cancelled",
        "teaching": "teaching.cancelled",
        "train": "training.cancelled",
    }
    jobs = list(Job.objects.filter(stage__in=by_stage, state=Job.State.OPEN))
    assert {job.stage for job in jobs} == set(by_stage)
    assert "5 changed." in cancelled_in_the_admin(world, *jobs)
    assert set(Job.objects.filter(pk__in=[job.pk for job in jobs]).values_list("state", flat=True)) == {"cancelled"}
    written = AuditEntry.objects.filter(actor=world.users["admin"]).values_list("action", flat=True)
    assert set(by_stage.values()) <= set(written)
    training.refresh_from_db()
    assert training.state == TrainingRun.State.CANCELLED


def test_a_job_that_cannot_be_cancelled_says_why(world: World) -> None:
    run = Run.objects.get(pk=world.known["run_id"])
    of_the_run = Job.objects.create(project=run.project, run=run, stage="pairs")
    candidates = Job.objects.get(pk=world.known["job_id"])
    body = cancelled_in_the_admin(world, of_the_run, candidates)
    assert f"Job {of_the_run.pk} belongs to run {run.pk}. Cancel that run instead." in body
    assert f"Job {candidates.pk} cannot be cancelled: its stage is candidates." in body
    assert set(Job.objects.filter(pk__in=[of_the_run.pk, candidates.pk]).values_list("state", flat=True)) == {"open"}


def test_an_ended_training_job_does_not_cancel_the_training_that_was_resumed(world: World) -> None:
    training = TrainingRun.objects.get(pk=world.known["training_id"])
    payload = {"training_run": training.pk}
    ended = Job.objects.create(project=training.project, stage="train", payload=payload, state=Job.State.FAILED)
    assert "was in that state already" in cancelled_in_the_admin(world, ended)
    training.refresh_from_db()
    assert training.state == TrainingRun.State.PLANNED
