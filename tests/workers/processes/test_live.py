"""The whole stack as it runs: servers, workers and reconciler as processes, on homes of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.processes.installation import ROOT, last_line, manage

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


def connect(environment: dict[str, str]) -> psycopg.Connection[Any]:
    """A connection of our own to an installation's embedded database."""
    from zelo_site.processes.services import service_urls

    return psycopg.connect(service_urls(Path(environment["ZELO_HOME"]), environ={}).database_url, autocommit=True)


def rows(connection: psycopg.Connection[Any], sql: str) -> list[tuple[Any, ...]]:
    return connection.execute(sql).fetchall()  # type: ignore[call-overload, no-any-return]


def wait_for_judgments(environment: dict[str, str], count: int) -> int:
    return wait_for(environment, "SELECT count(*) FROM labeling_judgment", count)


def wait_for(environment: dict[str, str], sql: str, count: int, *, patience_s: float = 90.0) -> int:
    """Until that query counts so many or more; returns how many."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            with connect(environment) as connection:
                ((found,),) = rows(connection, sql)
                if found >= count:
                    return int(found)
        except psycopg.Error:
            pass
        time.sleep(0.05)
    raise AssertionError(f"fewer than {count} within {patience_s:.0f} s: {sql}")


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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = manage(environment, "up", "--port", str(port))
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
