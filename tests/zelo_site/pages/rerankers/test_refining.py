"""Refinements of a student on its page, by REST and by command."""

from __future__ import annotations

import html
import io
import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from scoring.models import Snapshot
from scoring.storage.files import storage
from tests.factories.lessons import rows_file
from tests.factories.rows import make_judges, make_project, make_user
from trainer.models import Reranker, TrainingRun
from workers.jobs.refinement.job import STAGE
from workers.models import Job

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


def make_student() -> Reranker:
    """A student whose snapshot has eight training queries and five dev queries; it has no artefact."""
    project = make_project(owner=make_user("owner"), queries=4, documents=5)
    splits = {"train": {"rows": 40, "queries": 8}, "dev": {"rows": 25, "queries": 5}}
    checksum = storage().write_bytes("snapshots/none/rows.parquet", rows_file(8))
    snapshot = Snapshot.objects.create(
        name="frozen", location="snapshots/none", checksum=checksum, rows=65, manifest={"splits": splits}
    )
    snapshot.projects.add(project)
    run = TrainingRun.objects.create(project=project, snapshot=snapshot, trainer="embedding", state="finished")
    return Reranker.objects.create(
        project=project, training_run=run, name="student", kind="trained", location="rerankers/none", checksum="1" * 64
    )


def text_of(response: Any) -> str:
    return " ".join(response.content.decode().split())


def test_page_rest_and_command_share_the_order(client: Client) -> None:
    student = make_student()
    project = student.project
    client.force_login(get_user_model().objects.get(username="owner"))
    address = reverse("refine", args=[project.slug, student.pk])
    assert address in text_of(client.get(reverse("rerankers", args=[project.slug])))
    assert "No refinements yet." in text_of(client.get(address))
    judges = make_judges(project, 2)
    shown = text_of(client.get(address))
    assert "With these defaults 40 panel calls" in shown, "four queries have no more pairs than 40"
    nobody = client.post(address, {})
    assert nobody.status_code == 422 and "the refinement has no panel; choose at least one judge" in text_of(nobody)
    sent = {"judge": [each.pk for each in judges], "refine-pairs": "3"}
    assert client.post(address, sent).status_code == 302
    job = Job.objects.get(stage=STAGE)
    assert (job.payload["options"]["pairs"], job.payload["reranker"]) == (3, student.pk)
    shown = text_of(client.get(address))
    assert "The student ranks the training queries." in shown and "Start refinement" not in shown, "one at a time"

    out = io.StringIO()
    call_command("refine", project.slug, "--status", stdout=out)
    assert f"refinement {job.pk} of 'student': open at mine; 0 pairs" in out.getvalue()
    with pytest.raises(CommandError, match="unfinished; wait for its end"):
        call_command("refine", project.slug, "student", "--judges", str(judges[0].pk), stdout=out)
    with pytest.raises(CommandError, match="has no student nobody"):
        call_command("refine", project.slug, "nobody", stdout=out)
    call_command("refine", project.slug, "--cancel", str(job.pk), stdout=out)
    assert Job.objects.get(pk=job.pk).state == "cancelled"
    move = reverse("move-refinement", args=[project.slug, job.pk, "cancel"])
    assert "already cancelled" in text_of(client.post(move, follow=True))
    client.post(reverse("move-refinement", args=[project.slug, job.pk, "resume"]))
    assert Job.objects.get(pk=job.pk).state == "open"
    assert client.post(reverse("move-refinement", args=[project.slug, job.pk, "jump"])).status_code == 404

    single = f"/api/v1/refinements/{job.pk}"
    assert client.post(f"{single}/resume").status_code == 409
    assert client.post(f"{single}/cancel").json()["state"] == "cancelled"
    assert client.post(f"{single}/cancel").status_code == 409
    url = f"/api/v1/projects/{project.slug}/rerankers/{student.pk}/refinements"
    bad = client.post(url, json.dumps({"options": {"ask": "nobody"}}), "application/json")
    assert bad.status_code == 422 and "ask" in bad.json()["detail"]
    made = client.post(url, json.dumps({"judges": [{"plugin": "test-longer"}]}), "application/json")
    assert made.status_code == 201 and (made.json()["stage"], made.json()["reranker_id"]) == ("mine", student.pk)
    listed = client.get(f"/api/v1/projects/{project.slug}/refinements").json()
    assert listed[0] == client.get(f"/api/v1/refinements/{made.json()['refinement_id']}").json() == made.json()


def test_a_damaged_file_of_the_snapshot_is_named_on_page_rest_and_command(client: Client) -> None:
    student = make_student()
    project = student.project
    client.force_login(get_user_model().objects.get(username="owner"))
    judge = make_judges(project, 1)[0]
    storage().write_bytes("snapshots/none/rows.parquet", rows_file(8)[:-20])
    page = client.post(reverse("refine", args=[project.slug, student.pk]), {"judge": [judge.pk]})
    rest = client.post(
        f"/api/v1/projects/{project.slug}/rerankers/{student.pk}/refinements",
        {"judges": [{"plugin": judge.plugin, "options": judge.options}]},
        content_type="application/json",
    )
    assert (page.status_code, rest.status_code) == (409, 409), rest.content
    with pytest.raises(CommandError) as command:
        call_command("refine", project.slug, "student", "--judges", str(judge.pk))
    for said in (html.unescape(text_of(page)), rest.json()["detail"], str(command.value)):
        assert "of snapshot 'frozen' was changed or damaged in the storage; restore it from a backup" in said
    assert not Job.objects.filter(stage=STAGE).exists()
