"""A snapshot's file that is gone: pages, REST, commands and jobs name it and the remedies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from labeling.models import Membership
from scoring.storage.files import StoredFileMissing, storage
from tests.factories.frozen import make_frozen, make_scored
from trainer.evaluation.entries import BASE, enter_baselines
from workers.jobs.evaluation import evaluate, order_evaluation
from workers.jobs.training import start_training, train, waiting_training_ids
from workers.models import Job

pytestmark = pytest.mark.django_db(transaction=True)


def test_what_needs_the_file_says_so_and_the_rest_goes_on(settings: Settings, tmp_path: Path, owner: Any) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'stored'}"
    project = make_scored(queries=12, documents=6)
    Membership.objects.create(project=project, user=owner, role="owner")
    snapshot = make_frozen(project)
    chosen = [each for each in enter_baselines(project) if each.kind != BASE]
    evaluate(order_evaluation(project, snapshot, rerankers=chosen).pk)
    client = Client()
    client.force_login(owner)
    rows = f"{snapshot.location}/rows.parquet"
    pages = [reverse(name, args=[project.slug]) for name in ("proof", "report", "snapshots", "project")]
    rest = f"/api/v1/projects/{project.slug}"
    addresses = [*pages, f"{pages[0]}?measures=ndcg@5", f"{rest}/leaderboard?measures=ndcg@5", f"{rest}/report"]
    assert {client.get(each).status_code for each in addresses} == {200}

    storage().remove(rows)

    answers = {each: client.get(each) for each in addresses}
    assert {answer.status_code for answer in answers.values()} == {200, 409}
    assert answers[pages[3]].status_code == 200
    for address, answer in answers.items():
        if answer.status_code == 409:
            told = answer.json()["detail"] if address.startswith("/api/") else answer.content.decode()
            assert rows in told and "freeze a new snapshot" in told
    later = make_frozen(project)
    with pytest.raises(CommandError, match="restore it from a backup"):
        call_command("report", project.slug, snapshot=str(later.pk), before=str(snapshot.pk))
    with pytest.raises(CommandError, match="restore it from a backup"):
        call_command("evaluate", project.slug, snapshot=str(snapshot.pk), measures="ndcg@5")
    with pytest.raises(StoredFileMissing, match="is missing from the storage"):
        storage().read_bytes(rows)


def test_a_training_and_an_evaluation_end_with_the_files_name(settings: Settings, tmp_path: Path) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'stored'}"
    project = make_scored(queries=12, documents=6)
    snapshot = make_frozen(project)
    start_training(project, snapshot, trainer="pointwise")
    chosen = [each for each in enter_baselines(project) if each.kind != BASE]
    order_evaluation(project, snapshot, rerankers=chosen)
    storage().remove(f"{snapshot.location}/rows.parquet")

    for job in waiting_training_ids():
        train(job)
    evaluate(Job.objects.get(stage="evaluate").pk)

    for job in Job.objects.all():
        assert job.state == Job.State.FAILED
        assert f"{snapshot.location}/rows.parquet" in job.error
