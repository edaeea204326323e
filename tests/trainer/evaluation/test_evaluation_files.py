"""The evaluations that stand beside a published reranker: written, healed after a crash, and shown on its page."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from labeling.models import Membership, Project, Role
from scoring.models import Snapshot
from scoring.storage.files import Storage, storage
from tests.factories.frozen import make_frozen, make_scored
from tests.factories.rows import make_user
from tests.factories.students.artefacts import store
from trainer.evaluation import evaluation_files
from trainer.evaluation.leaderboard import Leaderboard, leaderboard
from trainer.evaluation.metrics import Reference
from trainer.models import Evaluation
from trainer.publishing.manifests import EVALUATION, ManifestBroken, verify
from workers.jobs.evaluation import evaluate, order_evaluation

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _own_storage(tmp_path: Path, settings: Any) -> None:
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"
    settings.ZELO_CACHE = tmp_path / "cache"


@pytest.mark.django_db(transaction=True)
def test_what_it_was_found_to_be_worth_stands_beside_it_and_on_the_page(
    client: Client, published_encoder: Path
) -> None:
    owner = make_user("owner")
    project = make_scored(queries=6, documents=6)
    Membership.objects.create(project=project, user=owner, role=Role.OWNER)
    snapshot = make_frozen(project)
    reranker = store(published_encoder, project)
    for split in ("test", "dev", "test"):
        evaluate(order_evaluation(project, snapshot, split, rerankers=[reranker]).pk)
    folder = storage().local_folder(reranker.location)
    told = json.loads((folder / EVALUATION).read_text())["evaluations"]
    assert sorted((each["split"], each["reference"]) for each in told) == [
        ("dev", "elo"), ("dev", "grades"), ("test", "elo"), ("test", "grades"),
    ]  # fmt: skip
    stored = Evaluation.objects.get(reranker=reranker, split="test", reference="grades")
    own = next(each for each in told if (each["split"], each["reference"]) == ("test", "grades"))
    kept = stored.metrics["all"]["ndcg@10"]
    # The words of the two queries are unknown to the tiny model, so that it may rank them alike.
    unknown = {"low": None, "high": None, "no_interval": "no spread between queries"}
    assert own["metrics"]["ndcg@10"] == {**kept, **({"no_interval": None} if kept["low"] < kept["high"] else unknown)}
    assert (own["queries"], own["snapshot_sha256"]) == (2, snapshot.checksum)
    assert verify(folder)["files"].keys() == reranker.manifest["files"].keys()
    assert EVALUATION in (folder / "merged" / "README.md").read_text()
    (folder / "merged" / EVALUATION).write_text("{}")
    with pytest.raises(ManifestBroken, match="not in the manifest"):
        verify(folder)
    client.force_login(owner)
    html = client.get(f"/p/{project.slug}/rerankers/").content.decode()
    assert "frozen · test · against human grades" in html
    assert f"{stored.metrics['all']['ndcg@10']['estimate']:.3f}" in html
    assert "frozen · dev" not in html


@pytest.mark.django_db(transaction=True)
def test_figures_that_cannot_be_written_beside_it_cost_no_evaluation(
    published_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_scored(queries=6, documents=6)
    snapshot = make_frozen(project)
    reranker = store(published_encoder, project)

    def refused(self: Storage, path: str, data: bytes) -> str:
        raise PermissionError(f"{path} is not ours")

    with monkeypatch.context() as refusing:
        refusing.setattr(Storage, "write_bytes", refused)
        job = order_evaluation(project, snapshot, "dev", rerankers=[reranker])
        evaluate(job.pk)
    job.refresh_from_db()
    assert (job.state, job.error) == ("finished", "")
    assert "evaluation.json is not written" in job.message
    assert Evaluation.objects.filter(reranker=reranker).exists()
    evaluate(order_evaluation(project, snapshot, "test", rerankers=[reranker]).pk)
    told = json.loads(storage().read_bytes(f"{reranker.location}/{EVALUATION}"))["evaluations"]
    assert {each["split"] for each in told} == {"dev", "test"}, "the next proof writes what that one could not"


def write_half_and_die(path: str) -> None:
    """A process that is killed while it writes."""
    child = os.fork()
    if child == 0:
        with storage().writing(path) as stream:
            stream.write(b"half")
            os._exit(0)
    os.waitpid(child, 0)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("left", [b"", b"no JSON", b'{"format": 1, "evaluations": 7}'])
def test_what_a_killed_proof_left_is_healed_by_the_next(published_encoder: Path, left: bytes) -> None:
    project = make_scored(queries=6, documents=6)
    snapshot = make_frozen(project)
    reranker = store(published_encoder, project)
    path = f"{reranker.location}/{EVALUATION}"
    storage().write_bytes(path, left)
    write_half_and_die(path)
    folder = storage().local_folder(reranker.location)
    with pytest.raises(ManifestBroken, match="unfinished"):
        verify(folder)
    evaluate(order_evaluation(project, snapshot, rerankers=[reranker]).pk)
    assert {each["reference"] for each in json.loads((folder / EVALUATION).read_text())["evaluations"]} == {
        "elo",
        "grades",
    }
    assert verify(folder)["files"].keys() == reranker.manifest["files"].keys()


@pytest.mark.django_db(transaction=True)
def test_a_proof_computes_the_boards_of_its_own_split_and_those_that_a_file_lacks(
    published_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_scored(queries=6, documents=6)
    snapshots = [make_frozen(project), make_frozen(project, seed=5)]
    reranker = store(published_encoder, project)
    path = f"{reranker.location}/{EVALUATION}"
    computed: list[tuple[int, str]] = []

    def counted(project: Project, snapshot: Snapshot, split: str, reference: Reference) -> Leaderboard:
        computed.append((snapshot.pk, split))
        return leaderboard(project, snapshot, split, reference)

    def prove(snapshot: Snapshot, split: str) -> set[tuple[int, str]]:
        computed.clear()
        evaluate(order_evaluation(project, snapshot, split, rerankers=[reranker]).pk)
        return set(computed)

    monkeypatch.setattr(evaluation_files, "leaderboard", counted)
    first, second = snapshots
    assert prove(first, "test") == {(first.pk, "test")}
    assert prove(first, "dev") == {(first.pk, "dev")}
    assert prove(second, "test") == {(second.pk, "test")}
    whole = json.loads(storage().read_bytes(path))
    assert len(whole["evaluations"]) == 6
    whole["evaluations"][0]["evaluated_at"] = "2020-01-01T00:00:00+00:00"  # a writer died after the evaluation
    storage().write_bytes(path, json.dumps(whole).encode())
    assert prove(second, "test") == {(second.pk, "test"), (first.pk, "dev")}
    storage().write_bytes(path, b"half")
    assert prove(second, "test") == {(second.pk, "test"), (first.pk, "dev"), (first.pk, "test")}
    assert len(json.loads(storage().read_bytes(path))["evaluations"]) == 6
