"""Claim and finish by 4, 16 and 64 worker processes on one database: questions a second, and what they wait for.

The processes are forked after Django is set up, load no model, and pass batches of 50 through `queue.claim` and `queue.finish`, half of
them for either judge. Beside them one connection looks at `pg_stat_activity` 20 times a second: connections, and the shares of the
working ones that wait for a lock, for the write-ahead log, or for nothing (they compute). Afterwards the stored judgments must equal
the finished tasks. The last line is one JSON object. `--quick`: fewer rows and shorter phases.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # instead of this folder, whose names would shadow packages

from benchmarks import queue as single  # noqa: E402

LOOK_S = 0.05
_ACTIVITY = """
SELECT CASE WHEN state = 'idle' THEN 'client' WHEN wait_event_type = 'Lock' THEN 'lock'
            WHEN wait_event_type = 'LWLock' THEN 'inner lock'
            WHEN wait_event_type = 'IO' OR wait_event = 'CommitDelay' THEN 'disk'
            WHEN wait_event_type = 'Client' THEN 'client' ELSE 'computes' END, count(*)
FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() GROUP BY 1
"""


@dataclass(frozen=True)
class Measured:
    """One number of processes: questions a second, batches' times in ms, and shares of the looks at connections."""

    processes: int
    per_s: float
    claim_ms: float
    claim_p95_ms: float
    finish_ms: float
    connections: int
    lock: float
    inner_lock: float
    disk: float
    deadlocks: int
    questions: int
    cores_busy: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rows and shorter phases")
    parser.add_argument("--processes", default="1,4,16,64", help="numbers of processes, with commas")
    parser.add_argument("--seconds", type=float, default=0.0, help="length of a phase (default 20, quick 4)")
    arguments = parser.parse_args()
    tasks, judgments = (200_000, 50_000) if arguments.quick else (1_000_000, 1_000_000)
    seconds = arguments.seconds or (4.0 if arguments.quick else 20.0)
    with single.own_database():
        filled = single.fill(tasks=tasks, judgments=judgments)
        found = [phase(filled, int(number), seconds) for number in arguments.processes.split(",")]
        single.check(filled, sum(each.questions for each in found), judgments)
    print(f"{tasks:,} open tasks, {judgments:,} stored judgments, batches of {single.BATCH}; {os.cpu_count()} cores")
    print(
        f"{'processes':>9} {'per s':>8} {'claim ms':>9} {'p95':>8} {'finish ms':>10} {'connections':>11} {'lock':>6} "
        f"{'inner':>6} {'disk':>6} {'deadlocks':>9} {'cores busy':>10}"
    )
    for each in found:
        print(
            f"{each.processes:>9} {each.per_s:>8,.0f} {each.claim_ms:>9.1f} {each.claim_p95_ms:>8.1f} {each.finish_ms:>10.1f} "
            f"{each.connections:>11} {each.lock:>6.1%} {each.inner_lock:>6.1%} {each.disk:>6.1%} {each.deadlocks:>9} "
            f"{each.cores_busy:>10.2f}"
        )
    print(json.dumps({"benchmark": "many_workers", "tasks": tasks} | {
        f"per_s_{each.processes}": round(each.per_s) for each in found
    } | {"deadlocks": sum(each.deadlocks for each in found), "most_lock_share": round(max(each.lock for each in found), 3)}))  # fmt: skip


def phase(filled: Any, processes: int, seconds: float) -> Measured:
    from django.db import connections

    connections.close_all()  # a forked process must not share one
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(processes + 1), context.Queue()
    workers = [
        context.Process(target=work, args=(filled.judges[number % single.JUDGES], number, seconds, barrier, answers))
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    looks: Counter[str] = Counter()
    most = 0
    stop = threading.Event()
    before = deadlocks()

    def look() -> None:
        nonlocal most
        while not stop.wait(LOOK_S):
            from django.db import connection

            with connection.cursor() as cursor:
                cursor.execute(_ACTIVITY)
                rows = dict(cursor.fetchall())
            looks.update(rows)
            most = max(most, sum(rows.values()))

    watcher = threading.Thread(target=look, daemon=True)
    barrier.wait()
    busy = _busy_s()
    began = time.time()
    watcher.start()
    found = [answers.get() for _ in workers]
    stop.set()
    watcher.join()
    for worker in workers:
        worker.join()
    batches = [batch for each in found for batch in each]
    took = max(end for end, _, _, _ in batches) - began
    used = (_busy_s() - busy) / (time.time() - began)
    claims = sorted(claim for _, _, claim, _ in batches)
    working = max(1, sum(count for kind, count in looks.items() if kind != "client"))
    questions = sum(count for _, count, _, _ in batches)
    return Measured(
        processes, questions / took, statistics.median(claims), claims[int(0.95 * (len(claims) - 1))],
        statistics.median(finish for _, _, _, finish in batches), most, looks["lock"] / working,
        looks["inner lock"] / working, looks["disk"] / working, deadlocks() - before, questions, used,
    )  # fmt: skip


def work(judge: int, number: int, seconds: float, barrier: Any, answers: Any) -> None:
    from labeling.records import Usage, Verdict
    from workers.judging import queue

    queue.claim(annotator_id=0, worker="warm", limit=1)  # connect before the clock starts
    barrier.wait()
    until, worker = time.time() + seconds, f"bench@here:{number}"
    batches: list[tuple[float, int, float, float]] = []
    while time.time() < until:
        began = time.perf_counter()
        tasks = queue.claim(annotator_id=judge, worker=worker, limit=single.BATCH)
        claimed = time.perf_counter()
        if not tasks:
            break
        queue.finish([(task, Verdict(0.25 + task.id % 50 / 100, usage=Usage(900, 1, 12))) for task in tasks])
        ended = time.perf_counter()
        batches.append((time.time(), len(tasks), 1000 * (claimed - began), 1000 * (ended - claimed)))
    answers.put(batches)


def deadlocks() -> int:
    (count,) = single.run("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    return int(count)


def _busy_s() -> float:
    """Seconds of all cores that were not idle since the machine started; other programs count as well."""
    fields = [float(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
