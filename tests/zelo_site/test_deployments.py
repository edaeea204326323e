"""Deployments over HTTP with a real ranking server: swaps, A/B, shadow, log, import, rollback, from page, REST and command."""

from __future__ import annotations

import io
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client

from labeling.access.api_keys import make_token
from labeling.models import Candidate, Project, Query
from scoring.storage.files import storage
from tests.factories.rows import make_project, make_user
from tests.processes.serve import rerank_app, running
from trainer.models import Deployment, LoggedRequest, Reranker, ShadowResult
from trainer.publishing.manifests import MANIFEST, file_checksum
from trainer.serving.registry import TRAINED, artefact_folder
from workers.deletion.orders import delete
from workers.deletion.targets import DeletionRefused, Target
from zelo_site import reranking

pytestmark = pytest.mark.django_db

METRICS_KEY = "a secret of the scraper, long enough"
DOCUMENTS = ["a pond with goldfish", "bread from the oven", "water"]


@pytest.fixture
def ranking(tmp_path: Path, settings: Any) -> Iterator[None]:
    """The serving process, on a private socket as `serve_rerank` opens it."""
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"
    settings.ZELO_CACHE = tmp_path / "cache"
    settings.ZELO_HOME = tmp_path
    settings.ZELO_METRICS_KEYS = [METRICS_KEY]
    reranking._client.cache_clear()
    reranking.reranking_socket().parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(reranking.reranking_socket()))
        app = rerank_app(fetch=artefact_folder, service_keys=reranking.service_keys)
        with running(app, sockets=[listening]):
            yield
    reranking._client.cache_clear()


@pytest.fixture
def project() -> Project:
    return make_project(owner=make_user("owner"))


def publish(project: Project, folder: Path, name: str) -> Reranker:
    """A published version: the same model, with a manifest of its own."""
    made = folder.parent / f"copy-{project.slug}-{name}"
    shutil.copytree(folder, made)
    manifest = json.loads((made / MANIFEST).read_text())
    manifest["card"] = {**manifest.get("card", {}), "name": name}
    (made / MANIFEST).write_text(json.dumps(manifest))
    location = f"rerankers/{project.slug}/{name}"
    storage().upload_folder(made, location)
    checksum = file_checksum(made / MANIFEST)
    shutil.rmtree(made)
    return Reranker.objects.create(
        project=project, name=name, kind=TRAINED, location=location, checksum=checksum, manifest=manifest
    )


def ask(client: Client, token: str, path: str = "/v2/rerank", **body: Any) -> Any:
    body = {"query": "goldfish", "documents": DOCUMENTS} | body
    return client.post(path, body, content_type="application/json", headers={"authorization": f"Bearer {token}"})


def test_a_deployment_is_swapped_and_rolled_back_over_rest(
    client: Client, ranking: None, project: Project, published_encoder: Path
) -> None:
    first, second = (publish(project, published_encoder, name) for name in ("v1", "v2"))
    owner = project.membership_set.get().user
    token = make_token(owner, name="k", scopes=["rerank", "read", "write"])
    headers = {"authorization": f"Bearer {token}"}
    address = f"/api/v1/projects/{project.slug}/deployments"

    def post(path: str, **body: Any) -> Any:
        return client.post(f"{address}{path}", body, content_type="application/json", headers=headers)

    made = post("", name="search", reranker_id=first.pk)
    assert made.status_code == 201 and made.json()["model"] == f"{project.slug}/search"
    one = f"/{made.json()['id']}"

    def answered_by() -> str:
        answer = ask(client, token, model=f"{project.slug}/search")
        assert answer.status_code == 200 and answer.json()["model"] == f"{project.slug}/search"
        return str(answer["x-zelo-version"])

    assert answered_by() == f"{project.slug}/v1"
    assert post(f"{one}/deploy", reranker_id=second.pk).json()["previous_id"] == first.pk
    assert answered_by() == f"{project.slug}/v2"
    assert post(f"{one}/rollback").json()["current_id"] == first.pk
    assert answered_by() == f"{project.slug}/v1"
    listed = {row["id"]: row for row in client.get("/v1/models", headers=headers).json()["data"]}
    assert listed[f"{project.slug}/search"]["version"] == f"{project.slug}/v1"
    assert client.get("/info?model=search", headers=headers).json()["model_sha"] == first.checksum
    scraped = client.get("/metrics", headers={"authorization": f"Bearer {METRICS_KEY}"}).content.decode()
    assert "zelo_rerank_up 1.0" in scraped and f'model="{project.slug}/search",status="200"' in scraped


def test_a_damaged_version_is_not_deployed(
    client: Client, ranking: None, project: Project, published_encoder: Path
) -> None:
    first, second = (publish(project, published_encoder, name) for name in ("v1", "v2"))
    Reranker.objects.filter(pk=second.pk).update(checksum="0" * 64)
    client.force_login(project.membership_set.get().user)
    Deployment.objects.create(project=project, name="search", current=first)
    row = Deployment.objects.get()
    answer = client.post(f"/p/{project.slug}/deployments/{row.pk}/deploy/", {"version": second.pk}, follow=True)
    assert "could not load" in answer.content.decode()
    row.refresh_from_db()
    assert row.current == first


def test_without_a_ranking_server_versions_change_and_are_loaded_later(
    project: Project, tmp_path: Path, settings: Any
) -> None:
    settings.ZELO_HOME = tmp_path
    reranking._client.cache_clear()
    rows = [
        Reranker.objects.create(project=project, name=name, kind=TRAINED, location="x", checksum="0" * 64)
        for name in ("v1", "v2")
    ]
    out = io.StringIO()
    for arguments in (
        ("--deploy", "v1"),
        ("--deploy", str(rows[1].pk)),
        ("--rollback",),
        ("--variant", "v2", "--variant-share", "10", "--log-share", "5"),
    ):
        call_command("deployment", project.slug, "search", *arguments, stdout=out)
    call_command("deployment", project.slug, stdout=out)
    assert out.getvalue().splitlines()[-1] == (
        f"{project.slug}/search: v1, before v2, variant v2 for 10 % of the keys, 5 % logged for 30 days"
    )
    with pytest.raises(CommandError, match="not a published reranker"):
        call_command("deployment", project.slug, "search", "--deploy", "v3")
    with pytest.raises(CommandError, match="create it with --deploy"):
        call_command("deployment", project.slug, "other", "--rollback")
    call_command("deployment", project.slug, "search", "--delete", stdout=out)
    assert not Deployment.objects.exists()
    reranking._client.cache_clear()


@pytest.mark.django_db(transaction=True)
def test_shadow_and_log_follow_the_answer_and_become_queries(
    client: Client, ranking: None, project: Project, published_encoder: Path
) -> None:
    first, second = (publish(project, published_encoder, name) for name in ("v1", "v2"))
    owner = project.membership_set.get().user
    token = make_token(owner, name="k", scopes=["rerank"])
    client.force_login(owner)
    row = Deployment.objects.create(project=project, name="search", current=first)
    page = f"/p/{project.slug}/deployments/{row.pk}/"
    form = {"shadow": second.pk, "shadow_share": 100, "variant_share": 0, "log_share": 100, "log_days": 3}
    assert client.post(page, form).status_code == 302
    answer = ask(client, token, query="goldfish of emmy@example.org", top_n=2, documents=["", *DOCUMENTS])
    assert answer.status_code == 200
    assert ask(client, token, documents=[]).status_code == 422  # a refused request is not stored
    assert reranking.RECORDER.wait(seconds=30)
    stored = LoggedRequest.objects.get()
    assert stored.query == "goldfish of [email]" and stored.reranker == first and stored.milliseconds > 0
    returned = {row["index"]: row["relevance_score"] for row in answer.json()["results"]}
    assert [each["score"] for each in stored.documents] == [returned.get(row) for row in range(4)]
    result = ShadowResult.objects.get()
    assert (result.tau, result.same_top, result.documents, result.shadow) == (1.0, 1.0, 4, second)
    shown = client.get(page).content.decode()
    assert "goldfish of [email]" in shown and "Import as queries" in shown
    client.post(f"{page}import/")
    query = Query.objects.get(project=project)
    assert query.text == "goldfish of [email]"
    texts = list(
        Candidate.objects.filter(query=query).order_by("first_stage_rank").values_list("document__text", flat=True)
    )
    assert texts == DOCUMENTS  # a blank document is no candidate


@pytest.mark.django_db(transaction=True)
def test_swaps_under_clients_fail_no_request(
    client: Client, ranking: None, project: Project, published_encoder: Path
) -> None:
    versions = [publish(project, published_encoder, name) for name in ("v1", "v2")]
    owner = project.membership_set.get().user
    token = make_token(owner, name="k", scopes=["rerank"])
    Deployment.objects.create(project=project, name="search", current=versions[0])
    stop = threading.Event()
    found: list[tuple[int, str]] = []

    def keep_asking() -> None:
        own = Client()
        while not stop.is_set():
            answer = ask(own, token, model="search")
            found.append((answer.status_code, answer.headers.get("x-zelo-version", "")))
        connection.close()

    threads = [threading.Thread(target=keep_asking) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in (1, 0, 1):
            before = len(found)
            call_command("deployment", project.slug, "search", "--deploy", versions[number].name, stdout=io.StringIO())
            while len(found) < before + 6:
                time.sleep(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in found} == {200}
    assert {version for _, version in found} == {f"{project.slug}/v1", f"{project.slug}/v2"}


def test_a_deployed_reranker_is_not_deleted(project: Project, tmp_path: Path, settings: Any) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"
    made = Reranker.objects.create(project=project, name="v1", kind=TRAINED, location="x", checksum="0" * 64)
    row = Deployment.objects.create(project=project, name="search", current=made)
    with pytest.raises(DeletionRefused, match="answers requests to search"):
        delete(Target("reranker", project, (made.pk,), made.name))
    row.delete()
    delete(Target("reranker", project, (made.pk,), made.name))
    assert not Reranker.objects.exists()


def test_clients_that_cannot_name_a_model_use_its_address(
    client: Client, ranking: None, project: Project, published_encoder: Path
) -> None:
    for name in ("v1", "v2"):
        publish(project, published_encoder, name)
    token = make_token(project.membership_set.get().user, name="k", scopes=["rerank"])
    assert ask(client, token).status_code == 404  # two models, and none is named
    base = f"/models/{project.slug}/v2"
    for path in ("/rerank", "/v1/rerank", "//v2/rerank/"):
        answer = ask(client, token, f"{base}{path}", model="their-own-name")
        assert answer.status_code == 200 and answer["x-zelo-version"] == f"{project.slug}/v2"
    headers = {"authorization": f"Bearer {token}"}
    assert client.get(f"{base}/info", headers=headers).json()["model_id"] == f"{project.slug}/v2"
    assert client.get(f"{base}/health").status_code == 200
    assert client.get(f"{base}/nothing", headers=headers).status_code == 404
    assert ask(client, token, "//v1//rerank", model="v1").status_code == 200
    assert ask(client, token, f"/models/{project.slug}/v3/rerank").status_code == 404
