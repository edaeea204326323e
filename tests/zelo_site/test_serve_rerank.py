"""The command that serves rerankers, as a process; and when `up` starts it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.core.management import CommandError, call_command

from labeling.projects import create_project
from trainer.models import Reranker
from trainer.rerankers import TRAINED
from zelo_site.stack import MANAGE, RankingOnDemand


def test_a_folder_is_served_by_itself_and_stops_when_told(published_encoder: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(MANAGE), "serve_rerank", str(published_encoder), "--host", "127.0.0.1"]
    process = subprocess.Popen([*command, "--port", str(port), "--threads", "1"])
    try:
        body = {"query": "goldfish", "documents": ["a pond with goldfish", "bread"]}
        deadline = time.monotonic() + 90
        while True:
            try:
                answer = httpx.post(f"http://127.0.0.1:{port}/v1/rerank", json=body, timeout=30)
                break
            except httpx.TransportError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.5)
        assert {row["index"] for row in answer.json()["results"]} == {0, 1}
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) in (0, -signal.SIGTERM)
    finally:
        process.kill()


def test_what_is_no_reranker_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="is not a folder"):
        call_command("serve_rerank", str(tmp_path / "nothing"))
    with pytest.raises(CommandError, match=r"has no manifest\.json; expected the folder of a published reranker"):
        call_command("serve_rerank", str(tmp_path))


class _Processes:
    def __init__(self) -> None:
        self.started: list[str] = []

    def start(self, child: Any) -> None:
        self.started.append(child.name)


@pytest.mark.django_db
def test_the_process_starts_once_there_is_something_to_serve(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RankingOnDemand, "LOOK_EVERY_S", 0.0)
    processes: Any = _Processes()
    ranking = RankingOnDemand()
    ranking.look()
    ranking.processes = processes
    ranking.look()
    project = create_project("Fish", owner=None)
    Reranker.objects.create(project=project, name="BM25", kind="bm25")
    ranking.look()
    assert processes.started == []
    Reranker.objects.create(project=project, name="student", kind=TRAINED, location="x", checksum="0" * 64)
    elsewhere = RankingOnDemand()
    elsewhere.processes = processes
    settings.ZELO_RERANK_URL = "http://other:8100"
    elsewhere.look()
    assert processes.started == []
    settings.ZELO_RERANK_URL = ""
    ranking.look()
    ranking.look()
    assert processes.started == ["serve_rerank"]
