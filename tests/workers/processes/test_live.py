"""The whole stack as it runs: servers, workers and reconciler as processes, on homes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes.installation import ROOT, free_port, last_line, manage, wait_for

QUERIES, DOCUMENTS = 12, 30


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A few queries over made-up texts, in which the query's word grows rarer from document to document."""
    path = tmp_path / "queries.jsonl"
    with path.open("w") as file:
        for query in range(QUERIES):
            documents = [
                {"id": f"q{query}d{place}", "content": " ".join([f"topic{query}"] * (place % 7) + ["filler"] * place)}
                for place in range(1, DOCUMENTS + 1)
            ]
            file.write(json.dumps({"query": {"id": f"q{query}", "query": f"topic{query}"}, "documents": documents}))
            file.write("\n")
    return path


def wait_for_judgments(environment: dict[str, str], count: int) -> int:
    return wait_for(environment, "SELECT count(*) FROM labeling_judgment", count)


@pytest.fixture
def killed_afterwards() -> Iterator[list[subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


@pytest.mark.long
def test_server_without_calls_in_flight_stops_within_five_seconds(
    environment: dict[str, str], killed_afterwards: list[subprocess.Popen[str]]
) -> None:
    server = manage(environment, "up", "--port", str(free_port()))
    killed_afterwards.append(server)
    # In a fresh checkout the rating worker compiles its kernels first.
    labels = "SELECT count(DISTINCT split_part(name, '@', 1)) FROM workers_worker"
    wait_for(environment, labels, 5, patience_s=240.0)
    began = time.monotonic()
    server.terminate()
    server.wait(30)
    assert time.monotonic() - began < 5.0
    assert server.returncode == 0


@pytest.mark.long
def test_supervisor_killed_in_the_middle_loses_and_doubles_nothing(
    environment: dict[str, str], dataset: Path, killed_afterwards: list[subprocess.Popen[str]]
) -> None:
    order = ["run", str(dataset), "--judges", "bm25", "query-likelihood", "--seed", "7", "--name", "Live"]
    first = manage(environment, *order)
    killed_afterwards.append(first)
    before = wait_for_judgments(environment, 1)
    first.kill()
    first.wait(30)

    second = manage(environment, *order, "--project", "live")
    killed_afterwards.append(second)
    last_line(second, 150.0)

    check = subprocess.run(
        [sys.executable, "-c", BOOKS], env=environment, cwd=ROOT, text=True, capture_output=True, check=False
    )
    assert check.returncode == 0, check.stderr
    found = json.loads(check.stdout.splitlines()[-1])
    assert found["unfinished"] == 0
    assert found["behind"] == 0
    assert found["runs"] == ["finished", "finished"]
    # Expected: each pair of the one design that was drawn, by each of the two judges, once.
    assert found["pairs"] == QUERIES * DOCUMENTS * 4
    assert found["judgments"] == found["distinct"] == 2 * found["pairs"] > before


BOOKS = """
import json
from zelo_site.environment import prepare_environment
prepare_environment()
import django
django.setup()
from django.db.models import F
from labeling.models import Judgment, Pair, Query
from workers.models import JudgingTask, Run
from zelo_site.processes.stack import database
with database():
    print(json.dumps({
        "pairs": Pair.objects.count(),
        "judgments": Judgment.objects.count(),
        "distinct": Judgment.objects.values("pair", "annotator").distinct().count(),
        "unfinished": JudgingTask.objects.count(),
        "behind": Query.objects.exclude(fit__judged_version=F("judged_version")).count(),
        "runs": sorted(Run.objects.values_list("state", flat=True)),
    }))
"""


@pytest.mark.long
def test_scores_follow_judgments_within_seconds_even_without_a_broker(environment: dict[str, str]) -> None:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "benchmarks" / "live.py"), "--quick", "--seconds", "4"],
        env=environment, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    figures = json.loads(last_line(process, 150.0).strip().splitlines()[-1])
    assert figures["unseen"] == 0
    assert figures["probes"] > 5
    assert figures["p95_ms"] < 5_000
    assert figures["probes_broker_down"] > 0
    assert figures["p95_broker_down_ms"] < 30_000
