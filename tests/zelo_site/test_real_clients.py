"""Client packages of others against the real web server and ranking server, with nothing changed but address and key.

The packages are heavy and disagree on versions of their own requirements, so they live in an environment of their own:
ZELO_CLIENTS_PYTHON names its Python. docs/serving.md says how to make one.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import CrossEncoder, SentenceTransformer

from labeling.access.api_keys import make_token
from scoring.storage.files import storage
from tests.factories.rows import make_project, make_user
from tests.factories.students.embedders import publish_tiny_student
from tests.processes import real_clients
from tests.processes.serve import rerank_app, running
from trainer.models import Deployment, Reranker
from trainer.publishing.manifests import MANIFEST, file_checksum
from trainer.serving.registry import TRAINED, artefact_folder
from zelo_site import reranking

PYTHON = os.environ.get("ZELO_CLIENTS_PYTHON", "")
pytestmark = [
    pytest.mark.long,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(not PYTHON, reason="ZELO_CLIENTS_PYTHON names no Python with the client packages"),
]
DOCUMENTS = ["a pond with goldfish", "bread from the oven", "water", "carp and goldfish share one pond"]
EMBEDS = "openai_embeddings"


@pytest.fixture(scope="module")
def published_embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published embedding student with random weights."""
    return publish_tiny_student(tmp_path_factory.mktemp("embedder"))


@pytest.fixture
def ranking(tmp_path: Path, settings: Any) -> Iterator[None]:
    settings.STORAGE_URL = f"file://{tmp_path / 'storage'}"
    settings.ZELO_CACHE = tmp_path / "cache"
    settings.ZELO_HOME = tmp_path
    reranking._client.cache_clear()
    reranking.reranking_socket().parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(reranking.reranking_socket()))
        app = rerank_app(fetch=artefact_folder, service_keys=reranking.service_keys)
        with running(app, sockets=[listening]):
            yield
    reranking._client.cache_clear()


def publish(project: Any, folder: Path, name: str) -> Reranker:
    location = f"rerankers/{project.slug}/{name}"
    storage().upload_folder(folder, location)
    manifest = json.loads((folder / MANIFEST).read_text())
    checksum = file_checksum(folder / MANIFEST)
    return Reranker.objects.create(
        project=project, name=name, kind=TRAINED, location=location, checksum=checksum, manifest=manifest
    )


@pytest.mark.parametrize("name", list(real_clients.CLIENTS))
def test_a_client_package_gets_the_scores_of_predict(
    name: str, ranking: None, live_server: Any, published_encoder: Path, published_embedder: Path
) -> None:
    owner = make_user("owner")
    project = make_project(owner=owner)
    version = publish(project, published_embedder if name == EMBEDS else published_encoder, "v1")
    Deployment.objects.create(project=project, name="search", current=version)
    key = make_token(owner, name="k", scopes=["rerank"])
    command = [PYTHON, str(Path(real_clients.__file__)), name, live_server.url, key, f"{project.slug}/search"]
    asked = json.dumps({"query": "goldfish", "documents": DOCUMENTS})
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    if "missing" in found:
        pytest.skip(f"the environment of clients lacks a package: {found['missing']}")
    if name == EMBEDS:
        model = SentenceTransformer(str(published_embedder / "sentence_transformers"))
        vectors = model.encode_document(DOCUMENTS, normalize_embeddings=True)
        expected = (vectors @ model.encode_query("goldfish", normalize_embeddings=True)).tolist()
    else:
        cross = CrossEncoder(str(published_encoder / "merged"))
        expected = cross.predict([("goldfish", each) for each in DOCUMENTS], show_progress_bar=False).tolist()
    best = sorted(range(len(expected)), key=lambda row: -expected[row])[: len(found["scores"])]
    assert [row for row, _ in found["scores"]] == best
    assert [score for _, score in found["scores"]] == pytest.approx([expected[row] for row in best], abs=1e-4)
