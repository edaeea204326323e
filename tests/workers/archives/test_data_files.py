"""Large imports in a worker: all files or none, by the function of small ones; the upload goes with the job."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django import Settings

from labeling.models import AuditEntry, DatasetImport, Project
from scoring.storage.files import storage
from tests.factories.api import Api
from tests.factories.rows import make_project, make_user
from workers.archives.data_files import FOLDER, AlreadyImporting, DataFile, load, order_data_import, waiting_import_ids
from workers.models import Job

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def small_limit(settings: Settings, tmp_path: Path) -> None:
    settings.STORAGE_URL = f"file://{tmp_path}"
    settings.ZELO_IMPORT_INLINE_BYTES = 100


def lines(*names: str) -> bytes:
    rows = [{"query": {"id": name, "query": "?"}, "documents": [{"id": "d", "content": "x"}]} for name in names]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def data(content: bytes, name: str = "texts.jsonl") -> DataFile:
    return DataFile(io.BytesIO(content), name, "auto", {})


def test_a_worker_imports_what_was_ordered_and_removes_the_upload() -> None:
    owner = make_user("ada")
    project = make_project(owner=owner)
    job = order_data_import(project, [data(lines("a", "b")), data(lines("c"), "more.jsonl")], by=owner)
    assert not project.queries.exists()
    assert waiting_import_ids() == [job.pk]
    with pytest.raises(AlreadyImporting, match="another import of project"):
        order_data_import(project, [data(lines("d"))])
    load(job.pk)
    job.refresh_from_db()
    assert (job.state, project.queries.count()) == (Job.State.FINISHED, 3), job.error
    assert list(DatasetImport.objects.order_by("id").values_list("file", flat=True)) == ["texts.jsonl", "more.jsonl"]
    assert [each.actor for each in AuditEntry.objects.filter(action="data.imported")] == [owner, owner]
    assert storage().names(FOLDER) == []


def test_a_bad_file_stores_nothing_of_the_good_one_and_says_why() -> None:
    project = make_project()
    job = order_data_import(project, [data(lines("a")), data(b'{"query": 5}\n', "bad.jsonl")])
    load(job.pk)
    job.refresh_from_db()
    assert job.state == Job.State.FAILED and "bad.jsonl" in job.error
    assert not Project.objects.get(pk=project.pk).queries.exists()


@pytest.mark.parametrize("way", ["page", "rest"])
def test_only_large_uploads_are_ordered(way: str, client: Client) -> None:
    owner = make_user("ada")
    project = make_project(owner=owner)
    client.force_login(owner)
    api = Api(owner)

    def send(content: bytes) -> Any:
        file = SimpleUploadedFile("texts.jsonl", content)
        if way == "page":
            return client.post(f"/p/{project.slug}/import/", {"file": file, "importer": "auto"})
        return api.client.post(f"/api/v1/projects/{project.slug}/imports", {"file": file}, headers=api.headers)

    assert send(lines("a")).status_code == (302 if way == "page" else 200)
    assert (project.queries.count(), Job.objects.filter(stage="import").count()) == (1, 0)
    large = send(lines("b", "c", "d"))
    assert large.status_code == (302 if way == "page" else 202)
    job = Job.objects.get(stage="import")
    assert project.queries.count() == 1
    again = send(lines("b", "c", "d"))
    assert again.status_code == (422 if way == "page" else 409)
    load(job.pk)
    assert project.queries.count() == 4
