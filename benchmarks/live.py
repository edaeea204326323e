"""The time from a stored judgment to its score in the API, with the broker up and with it down.

Runs the real stack in its own home: PostgreSQL, Valkey, web server, rating worker, reconciler. One writer stores about 50
judgments a second for queries that are already judged; readers pick a commit, poll the API until the query's fit includes
it, and record the time. Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # instead of this folder, whose names would shadow packages
HOST = "127.0.0.1"
READERS = 3
POLL_S = 0.02


@dataclass
class Commits:
    """The last stored judgment, for readers to pick up: its query, the version it made, when it was committed."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    last: tuple[int, int, float] | None = None

    def put(self, query: int, version: int, at: float) -> None:
        with self.changed:
            self.last = (query, version, at)
            self.changed.notify_all()

    def next(self, stop: threading.Event) -> tuple[int, int, float] | None:
        """The next commit from now on; None when it is over."""
        with self.changed:
            before = self.last
            while self.last is before and not stop.is_set():
                self.changed.wait(0.2)
            return None if stop.is_set() else self.last


@dataclass(frozen=True)
class Measured:
    """Latencies in seconds, sorted; how many judgments were stored in how many seconds; probes without an end."""

    latencies: list[float]
    stored: int
    seconds: float
    unseen: int

    def percentile_ms(self, share: float) -> float:
        if not self.latencies:
            return float("nan")
        return 1000.0 * self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller project and shorter phases, under 45 s")
    parser.add_argument("--seconds", type=float, default=0.0, help="length of each phase (default 40, quick 8)")
    parser.add_argument("--per-second", type=float, default=50.0, help="judgments a second")
    arguments = parser.parse_args()
    seconds = arguments.seconds or (8.0 if arguments.quick else 40.0)
    queries, documents = (15, 60) if arguments.quick else (43, 100)
    with running_stack() as (address, stop_broker):
        project, token = seed(queries, documents)
        warm_up(project, address, token)
        phases = {"broker up": measure(project, address, token, seconds, arguments.per_second)}
        stop_broker()
        phases["broker down"] = measure(project, address, token, 1.5 * seconds, arguments.per_second)
    print(f"{queries} queries x {documents} candidates, {4 * documents} pairs each")
    print(f"{'phase':<12} {'judgments/s':>12} {'probes':>7} {'p50 ms':>8} {'p95 ms':>8} {'max ms':>8} {'unseen':>7}")
    for name, found in phases.items():
        print(
            f"{name:<12} {found.stored / found.seconds:>12.1f} {len(found.latencies):>7} "
            f"{found.percentile_ms(0.5):>8.0f} {found.percentile_ms(0.95):>8.0f} {found.percentile_ms(1.0):>8.0f} "
            f"{found.unseen:>7}"
        )
    up, down = phases["broker up"], phases["broker down"]
    print(
        json.dumps(
            {
                "benchmark": "live",
                "queries": queries,
                "candidates": documents,
                "judgments_per_s": round(up.stored / up.seconds, 1),
                "p50_ms": round(up.percentile_ms(0.5), 1),
                "p95_ms": round(up.percentile_ms(0.95), 1),
                "p95_broker_down_ms": round(down.percentile_ms(0.95), 1),
                "probes": len(up.latencies),
                "probes_broker_down": len(down.latencies),
                "unseen": up.unseen + down.unseen,
            }
        )
    )


@contextlib.contextmanager
def running_stack() -> Iterator[tuple[str, Any]]:
    """The stack without judges in a new home; yields the web server's address and how to stop the broker."""
    home = Path(tempfile.mkdtemp(prefix="zelo-live-"))
    home.chmod(0o711)  # PostgreSQL of root's runs as another user
    for name in ("DATABASE_URL", "BROKER_URL"):
        os.environ.pop(name, None)
    os.environ.update(ZELO_HOME=str(home), ZELO_LOG_LEVEL="ERROR")
    from zelo_site.environment import prepare_environment

    prepare_environment()
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connections

    from zelo_site.services import ServiceSupervisor
    from zelo_site.stack import web_process, worker_processes
    from zelo_site.supervisor import ProcessSupervisor

    try:
        with ServiceSupervisor(home) as services:
            call_command("migrate", verbosity=0)
            port = free_port()
            children = [web_process(HOST, port), *(c for c in worker_processes() if not c.name.startswith("judging"))]
            with ProcessSupervisor(children, home=home, report=lambda line: print(line, file=sys.stderr)):
                yield (
                    f"http://{HOST}:{port}/api/v1",
                    lambda: os.kill(services.process_ids()["Valkey"], signal.SIGKILL),
                )
                connections.close_all()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def seed(queries: int, documents: int) -> tuple[Any, str]:
    """A project in which two judges have answered a design of degree 8, and a key to its API."""
    import numpy as np
    from django.contrib.auth import get_user_model

    from labeling.annotators import get_judge
    from labeling.judgments import record_judgments
    from labeling.models import Candidate, Document, Pair, Query
    from labeling.pairs import store_pairs
    from labeling.projects import create_project
    from labeling.records import NewJudgment
    from labeling.tokens import make_token
    from scoring.numerics.design import random_cycles

    rng = np.random.default_rng(0)
    user = get_user_model().objects.create_superuser("owner")
    project = create_project("Live", owner=user)
    judges = [get_judge(project, name) for name in ("bm25", "query-likelihood")]
    texts = Document.objects.bulk_create(
        Document(project=project, external_id=f"d{n}", text=f"text {n}") for n in range(documents)
    )
    for number in range(queries):
        query = Query.objects.create(project=project, external_id=f"q{number}", text=f"query {number}")
        rows = Candidate.objects.bulk_create(Candidate(query=query, document=text) for text in texts)
        ids = np.array([row.pk for row in rows])
        theta, pairs = rng.normal(size=documents), random_cycles(documents, 8, rng)
        preference = 1.0 / (1.0 + np.exp(theta[pairs[:, 1]] - theta[pairs[:, 0]]))
        named = store_pairs(ids[pairs[:, 0]].tolist(), ids[pairs[:, 1]].tolist(), [query.pk] * len(pairs))
        record_judgments(
            [
                NewJudgment(pair, judge.pk, False, float(p))
                for pair, p in zip(named, preference, strict=True)
                for judge in judges
            ]
        )
    assert Pair.objects.filter(query__project=project).count() == queries * 4 * documents
    return project, make_token(user, name="benchmark")


def ask(address: str, token: str, query: int) -> int:
    """The version up to which the API's scores of a query were fitted."""
    request = urllib.request.Request(f"{address}/queries/{query}/scores", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(json.load(answer)["fitted_version"])


def warm_up(project: Any, address: str, token: str, *, patience_s: float = 120.0) -> None:
    """Wait until all processes answer and what was seeded is rated."""
    from workers.hints import leave_hint

    leave_hint("rate", project.pk)
    deadline = time.monotonic() + patience_s
    for query in project.queries.order_by("id").values_list("id", flat=True):
        while True:
            with contextlib.suppress(urllib.error.URLError, OSError):
                if ask(address, token, query):
                    break
            if time.monotonic() > deadline:
                raise TimeoutError(f"query {query} was not rated within {patience_s:.0f} s")
            time.sleep(0.1)


def measure(project: Any, address: str, token: str, seconds: float, per_second: float) -> Measured:
    """Write for `seconds` and read meanwhile; then wait for the last probes."""
    commits, stop = Commits(), threading.Event()
    latencies: list[float] = []
    unseen: list[int] = []

    def read() -> None:
        while (commit := commits.next(stop)) is not None:
            query, version, at = commit
            while ask(address, token, query) < version:
                if time.monotonic() - at > 30.0:
                    unseen.append(query)
                    return
                time.sleep(POLL_S)
            latencies.append(time.monotonic() - at)

    readers = [threading.Thread(target=read, daemon=True) for _ in range(READERS)]
    for reader in readers:
        reader.start()
    began = time.monotonic()
    stored = write(project, commits, seconds, per_second)
    took = time.monotonic() - began
    stop.set()
    for reader in readers:
        reader.join(40.0)
    return Measured(sorted(latencies), stored, took, len(unseen))


def write(project: Any, commits: Commits, seconds: float, per_second: float) -> int:
    """Store one judgment after another, each its own transaction, at a steady pace."""
    import random

    from labeling.annotators import get_judge
    from labeling.judgments import record_judgments
    from labeling.models import Pair, Query
    from labeling.records import NewJudgment

    judge = get_judge(project, "bm25", {"k1": 0.5 + random.random()})
    pairs = list(Pair.objects.filter(query__project=project).values_list("id", "query_id"))
    random.Random(0).shuffle(pairs)
    began = time.monotonic()
    for stored, (pair, query) in enumerate(pairs):
        due = began + stored / per_second
        if due > began + seconds:
            return stored
        time.sleep(max(0.0, due - time.monotonic()))
        record_judgments([NewJudgment(pair, judge.pk, False, random.random())])
        at = time.monotonic()
        commits.put(query, Query.objects.values_list("judged_version", flat=True).get(pk=query), at)
    return len(pairs)


if __name__ == "__main__":
    main()
