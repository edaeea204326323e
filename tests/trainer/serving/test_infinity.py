"""Infinity serves the sequence-classification form as it is, with our scores."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from trainer.serving.loading import load_reranker

pytestmark = pytest.mark.long

DOCUMENTS = ["a pond with goldfish", "bread from the oven", "water"]


@pytest.fixture
def infinity(published_encoder: Path, tmp_path: Path) -> Iterator[str]:
    """Infinity's address; it runs in an environment of its own."""
    python = os.environ.get("ZELO_INFINITY_PYTHON", "")
    if not python:
        pytest.skip("ZELO_INFINITY_PYTHON names no interpreter with infinity-emb")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--model-id", str(published_encoder / "sequence_classification"), "--served-model-name", "tiny"]
    options += ["--engine", "torch", "--device", "cpu", "--dtype", "float32", "--no-bettertransformer"]
    command = [python, "-c", "from infinity_emb.cli import cli; cli()", "v2", *options]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    environment.pop("PYTHONPATH", None)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log, env=environment
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
            try:
                if httpx.get(f"{address}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_infinity_gives_our_scores(infinity: str, published_encoder: Path) -> None:
    body = {"model": "tiny", "query": "goldfish", "documents": DOCUMENTS}
    rows = httpx.post(f"{infinity}/rerank", json=body, timeout=60).json()["results"]
    ours = {each.index: each.score for each in load_reranker(published_encoder).rank("goldfish", DOCUMENTS)}
    assert {row["index"]: row["relevance_score"] for row in rows} == pytest.approx(ours, abs=1e-3)
