"""Hot swaps of a deployment under 16 clients: no request fails, and what a swap costs the others in latency.

The benchmark runs the whole server in its own home and publishes two rerankers from MiniLM with random weights. Copies of
them, each with a manifest of its own, are the versions: every swap loads one that is not in memory yet. Clients ask
/v2/rerank without a pause; each answer must have status 200 and the scores of the version that its header names.

`--soak MINUTES` asks 1.2 times as often as the server can answer instead, and watches statuses, latency and memory: other
statuses than 200 and 429 count as failed. Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # instead of this folder, whose names would shadow packages

from benchmarks.serving_world import random_reranker, served  # noqa: E402

CLIENTS = 16
DOCUMENTS, WORDS = 4, 40
SWAPS, QUICK_SWAPS = 10, 3
SETTLES_S = 1.0  # how long after a swap requests count as asked during it
TOLERANCE = 1e-3
OVERLOAD = 1.2
MOST_IN_FLIGHT = 400


@dataclass(frozen=True)
class Asked:
    """One request: when it began and ended, its status, and whether its scores are those of its version."""

    began: float
    ended: float
    status: int
    is_right: bool

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass
class World:
    """The running server, its versions, and the scores that each version gives the question."""

    address: str
    key: str
    deployment: str
    rerankers: list[tuple[int, str]]
    expected: dict[str, list[float]]
    body: dict[str, Any]
    home: Path
    own: threading.local = field(default_factory=threading.local)

    def client(self) -> Any:
        import httpx

        if not hasattr(self.own, "client"):
            headers = {"authorization": f"Bearer {self.key}"}
            self.own.client = httpx.Client(base_url=self.address, headers=headers, timeout=120)
        return self.own.client

    def ask(self) -> Asked:
        """One ranking request, checked."""
        import httpx

        began = time.monotonic()
        try:
            answer = self.client().post("/v2/rerank", json=self.body)
        except httpx.TransportError:
            return Asked(began, time.monotonic(), 0, False)
        ended = time.monotonic()
        if answer.status_code != 200:
            return Asked(began, ended, answer.status_code, False)
        scores = {row["index"]: row["relevance_score"] for row in answer.json()["results"]}
        expected = self.expected[answer.headers["x-zelo-version"].rpartition("/")[2]]
        right = all(abs(scores[row] - expected[row]) < TOLERANCE for row in range(len(expected)))
        return Asked(began, ended, 200, right)

    def swap(self, reranker_id: int) -> tuple[float, float]:
        """Deploy a version over REST; when that began and ended."""
        began = time.monotonic()
        answer = self.client().post(f"{self.deployment}/deploy", json={"reranker_id": reranker_id})
        answer.raise_for_status()
        return began, time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SWAPS} swaps instead of {SWAPS}")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="overload instead of swaps, for so long")
    options = parser.parse_args()
    count = QUICK_SWAPS if options.quick else SWAPS
    versions = 1 if options.soak else count + 1
    with served("zelo-swap-", lambda home, address: publish_versions(home, address, versions)) as (world, tick):
        wait_for(world, tick)
        found = soak(world, 60 * options.soak) if options.soak else swaps(world, quick=options.quick)
    from trainer.serving.forms.processor import processor

    print(f"processor: {processor()}; {os.cpu_count()} cores")
    print(json.dumps({key: round(value, 3) for key, value in found.items()}))


def swaps(world: World, *, quick: bool) -> dict[str, float]:
    """Ask with all clients, swap again and again, and compare the latencies."""
    stop = threading.Event()
    asked: list[Asked] = []

    def keep_asking() -> None:
        while not stop.is_set():
            asked.append(world.ask())

    threads = [threading.Thread(target=keep_asking) for _ in range(CLIENTS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    time.sleep(3 if quick else 10)
    calm = time.monotonic()
    periods = []
    for number, _ in world.rerankers[1:]:
        periods.append(world.swap(number))
        time.sleep(SETTLES_S + 0.5)
    stop.set()
    for thread in threads:
        thread.join()
    before = [each.seconds for each in asked if began + 1 < each.began and each.ended < calm]
    during = [
        each.seconds
        for each in asked
        if any(each.began < ended + SETTLES_S and each.ended > started for started, ended in periods)
    ]
    failed = sum(not each.is_right for each in asked)
    print(f"{'':>10} {'requests':>9} {'p50':>9} {'p99':>9}")
    for label, seconds in (("before", before), ("during", during)):
        print(f"{label:>10} {len(seconds):>9} {1000 * at(seconds, 0.5):>6.0f} ms {1000 * at(seconds, 0.99):>6.0f} ms")
    longest = max(ended - started for started, ended in periods)
    print(f"{len(periods)} swaps, the longest {longest:.1f} s; {failed} of {len(asked)} requests failed")
    return {
        "failed": failed,
        "requests": len(asked),
        "swaps": len(periods),
        "p99_ms_before": 1000 * at(before, 0.99),
        "p99_ms_during": 1000 * at(during, 0.99),
        "p99_ratio": at(during, 0.99) / at(before, 0.99),
        "longest_swap_s": longest,
    }


def soak(world: World, seconds: float) -> dict[str, float]:
    """Ask 1.2 times as often as all clients together were answered, whatever the answers."""
    capacity = capacity_of(world, seconds=min(20.0, max(5.0, seconds / 20)))
    pid = ranking_pid(world.home)
    memory: list[int] = []
    statuses: Counter[int] = Counter()
    answered: list[float] = []
    waiting = threading.Semaphore(MOST_IN_FLIGHT)
    lock = threading.Lock()
    missed = 0

    def ask() -> None:
        try:
            found = world.ask()
            with lock:
                statuses[found.status if found.is_right or found.status != 200 else -1] += 1
                if found.status == 200:
                    answered.append(found.seconds)
        finally:
            waiting.release()

    began = time.monotonic()
    due, look = began, began
    with ThreadPoolExecutor(MOST_IN_FLIGHT) as pool:
        while (now := time.monotonic()) < began + seconds:
            if now >= look:
                memory.append(resident_mb(pid))
                look += max(1.0, seconds / 60)
            due += 1 / (OVERLOAD * capacity)
            time.sleep(max(0.0, due - time.monotonic()))
            if waiting.acquire(blocking=False):
                pool.submit(ask)
            else:
                missed += 1
    fifth = max(1, len(memory) // 5)
    first, last = sorted(memory[fifth : 2 * fifth] or memory), sorted(memory[-fifth:])
    growth = last[len(last) // 2] / first[len(first) // 2]
    failed = sum(number for status, number in statuses.items() if status not in (200, 429))
    print(f"capacity {capacity:.1f} requests a second; asked {OVERLOAD} times as often for {seconds:.0f} s")
    print("  ".join(f"{status}: {number}" for status, number in sorted(statuses.items())), f" not sent: {missed}")
    print(f"p99 of the answered {1000 * at(answered, 0.99):.0f} ms; memory {memory[0]} to {memory[-1]} MB")
    return {
        "failed": failed,
        "answered": statuses[200],
        "refused_429": statuses[429],
        "not_sent": missed,
        "p99_ms": 1000 * at(answered, 0.99),
        "memory_growth": growth,
        "memory_mb": memory[-1],
    }


def capacity_of(world: World, *, seconds: float) -> float:
    """Requests a second that 16 clients get answered."""
    until = time.monotonic() + seconds

    def keep_asking(_: int) -> int:
        count = 0
        while time.monotonic() < until:
            count += world.ask().status == 200
        return count

    with ThreadPoolExecutor(CLIENTS) as pool:
        return max(0.5, sum(pool.map(keep_asking, range(CLIENTS))) / seconds)


def at(values: Sequence[float], quantile: float) -> float:
    """The quantile of values, 0 of none."""
    return sorted(values)[min(len(values) - 1, int(quantile * len(values)))] if values else 0.0


def ranking_pid(home: Path) -> int:
    """The process id of this home's ranking server: of its processes the largest, because a guard has the same command."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = [(folder / name).read_bytes().split(b"\0") for name in ("cmdline", "environ")]
            if b"serve_rerank" in words[0] and f"ZELO_HOME={home}".encode() in words[1]:
                found.append(int(folder.name))
    if not found:
        raise SystemExit("the ranking server was not found")
    return max(found, key=resident_mb)


def resident_mb(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) >> 10 if found else 0


def wait_for(world: World, tick: Callable[[], None]) -> None:
    """Return at the first right answer."""
    deadline = time.monotonic() + 120
    while not world.ask().is_right:
        if time.monotonic() > deadline:
            raise SystemExit("the server gives no right answer")
        tick()
        time.sleep(0.5)


def publish_versions(home: Path, address: str, versions: int) -> World:
    """Two rerankers with random weights, copied in turn as `versions`; the first is deployed."""
    from django.contrib.auth import get_user_model

    from labeling.access.api_keys import make_token
    from labeling.projects import create_project
    from scoring.storage.files import storage
    from trainer.models import Deployment, Reranker
    from trainer.publishing.manifests import MANIFEST, file_checksum
    from trainer.serving.loading import load_reranker, sigmoid
    from trainer.serving.registry import TRAINED

    owner = get_user_model().objects.create_superuser("owner")
    project = create_project("Swap", owner=owner)
    rng = random.Random(0)
    words = re.findall(r"\w+", __doc__ or "")
    documents = [" ".join(rng.choices(words, k=WORDS)) for _ in range(DOCUMENTS)]
    body = {"model": f"{project.slug}/search", "query": "which version answers", "documents": documents}
    folders = [random_reranker(home / f"model{seed}", seed=seed) for seed in range(min(2, versions))]
    scores = [
        [sigmoid(each) for each in load_reranker(folder).scores(str(body["query"]), documents)] for folder in folders
    ]
    rerankers, expected = [], {}
    for number in range(versions):
        name = f"v{number}"
        copy = home / "copy"
        shutil.copytree(folders[number % 2], copy)
        manifest = json.loads((copy / MANIFEST).read_text())
        manifest["card"] = {**manifest.get("card", {}), "name": name}
        (copy / MANIFEST).write_text(json.dumps(manifest))
        location = f"rerankers/{project.slug}/{name}"
        storage().upload_folder(copy, location)
        made = Reranker.objects.create(
            project=project,
            name=name,
            kind=TRAINED,
            location=location,
            checksum=file_checksum(copy / MANIFEST),
            manifest=manifest,
        )
        shutil.rmtree(copy)
        rerankers.append((made.pk, name))
        expected[name] = scores[number % 2]
    row = Deployment.objects.create(project=project, name="search", current_id=rerankers[0][0])
    key = make_token(owner, name="benchmark", scopes=["rerank", "read", "write"])
    deployment = f"/api/v1/projects/{project.slug}/deployments/{row.pk}"
    return World(address, key, deployment, rerankers, expected, body, home)


if __name__ == "__main__":
    main()
