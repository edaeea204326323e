"""A snapshot's file that is gone or damaged: pages, REST, commands and jobs name it and the remedies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from labeling.models import Membership
from scoring.storage.files import storage
from tests.factories.frozen import make_frozen, make_scored
from trainer.evaluation.entries import BASE, enter_baselines
from trainer.models import Evaluation
from workers.jobs.evaluation import evaluate, order_evaluation
from workers.jobs.training import start_training, train, waiting_training_ids
from workers.models import Job

pytestmark = pytest.mark.django_db(transaction=True)


def truncate(path: str) -> None:
    content = storage().read_bytes(path)
    storage().write_bytes(path, content[: len(content) // 2])


def flip_a_byte(path: str) -> None:
    """Damage that the format does not notice: a byte inside the first column's data."""
    content = bytearray(storage().read_bytes(path))
    content[40] ^= 1
    storage().write_bytes(path, bytes(content))


DAMAGES: list[Callable[[str], None]] = [lambda path: storage().remove(path), truncate, flip_a_byte]
damaged = pytest.mark.parametrize("damage", DAMAGES, ids=["missing", "truncated", "flipped"])


@damaged
def test_what_needs_the_file_says_so_and_the_rest_goes_on(
    settings: Settings, tmp_path: Path, owner: Any, damage: Callable[[str], None]
) -> None:
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
    first, second = (each.pk for each in chosen[:2])
    query = Evaluation.objects.filter(reranker=first).first().metrics["values"]["query_ids"][0]
    moved = f"{reverse('moved', args=[project.slug])}?from={first}&to={second}&snapshot={snapshot.pk}&query={query}"
    addresses = [*pages, f"{pages[0]}?measures=ndcg@5", f"{rest}/leaderboard?measures=ndcg@5", f"{rest}/report", moved]
    assert {client.get(each).status_code for each in addresses} == {200}
    assert "NDCG" in client.get(moved).content.decode()

    damage(rows)

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
    with pytest.raises(CommandError, match="restore it from a backup"):
        call_command("snapshot", project.slug, mix=[str(later.pk), str(snapshot.pk)])
    download = client.get(f"/api/v1/snapshots/{snapshot.pk}/rows")
    assert download.status_code in (404, 409) and "freeze a new snapshot" in download.json()["detail"]


@damaged
def test_a_training_and_an_evaluation_end_with_the_files_name(
    settings: Settings, tmp_path: Path, damage: Callable[[str], None]
) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'stored'}"
    project = make_scored(queries=12, documents=6)
    snapshot = make_frozen(project)
    start_training(project, snapshot, trainer="pointwise")
    chosen = [each for each in enter_baselines(project) if each.kind != BASE]
    order_evaluation(project, snapshot, rerankers=chosen)
    damage(f"{snapshot.location}/rows.parquet")

    for job in waiting_training_ids():
        train(job)
    evaluate(Job.objects.get(stage="evaluate").pk)

    for job in Job.objects.all():
        assert job.state == Job.State.FAILED
        assert f"{snapshot.location}/rows.parquet" in job.error and "restore it from a backup" in job.error
        assert not job.error.startswith(("ChecksumMismatch", "StoredFileMissing")), "a sentence for people"
