"""Claim and finish through the product's own functions, with a million open tasks and many stored judgments.

Fills its own database with generated rows, passes batches of 50 through `queue.claim` and `queue.finish` in one process
and in several, and compares with a small table in the same run. Afterwards the number of stored judgments must equal the
number of finished tasks. Prints a table and, as the last line, one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "queue":
    # Another benchmark stands in this folder, and somebody has asked for the standard library's module: they get it.
    spec = importlib.util.spec_from_file_location("queue", Path(sysconfig.get_path("stdlib")) / "queue.py")
    assert spec is not None and spec.loader is not None
    sys.modules["queue"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["queue"])
else:
    sys.path[0] = str(ROOT)  # instead of this folder, whose names would shadow packages
BATCH = 50
CANDIDATES, PAIRS_OF_QUERY = 100, 400
JUDGES, ORDERS = 2, 2
QUESTIONS_OF_QUERY = PAIRS_OF_QUERY * JUDGES * ORDERS
SMALL = 48_000


@dataclass(frozen=True)
class Measured:
    """One phase: questions a second of all processes, and what each batch took, in the order of its end."""

    name: str
    processes: int
    questions: int
    seconds: float
    claims_ms: list[float]
    finishes_ms: list[float]

    @property
    def per_s(self) -> float:
        return self.questions / self.seconds

    @property
    def claim_ms(self) -> float:
        return statistics.median(self.claims_ms)

    @property
    def finish_ms(self) -> float:
        return statistics.median(self.finishes_ms)

    @property
    def decay(self) -> float:
        """The median claim of the last tenth, as a multiple of that of the first."""
        tenth = max(1, len(self.claims_ms) // 10)
        return statistics.median(self.claims_ms[-tenth:]) / statistics.median(self.claims_ms[:tenth])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer stored judgments and shorter phases, under 45 s")
    parser.add_argument("--tasks", type=int, default=1_000_000, help="open tasks")
    parser.add_argument("--judgments", type=int, default=0, help="stored judgments (default 10,000,000; quick 200,000)")
    parser.add_argument("--long", type=int, default=0, help="questions of the long phase (default 300,000; quick none)")
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.0, help="length of a phase (default 20, quick 3)")
    parser.add_argument("--sql", default="", help="statements to run before measuring, to try indexes and settings")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(*arguments.worker)
        return
    judgments = arguments.judgments or (200_000 if arguments.quick else 10_000_000)
    seconds = arguments.seconds or (3.0 if arguments.quick else 20.0)
    long = arguments.long or (0 if arguments.quick else 300_000)
    with own_database():
        began = time.monotonic()
        run(arguments.sql)
        small = fill(tasks=SMALL, judgments=0)
        phases = [phase("small table", small, processes=1, seconds=seconds)]
        finish_off(small)
        large = fill(tasks=arguments.tasks, judgments=judgments)
        loaded_s = time.monotonic() - began
        phases.append(phase("large table", large, processes=1, seconds=seconds))
        phases.append(phase("large table", large, processes=arguments.processes, seconds=seconds))
        if long:
            phases.append(phase("long", large, processes=arguments.processes, questions=long))
        check(large, sum(each.questions for each in phases[1:]), judgments)
        sizes = table_sizes()
    show(phases, tasks=arguments.tasks, judgments=judgments, loaded_s=loaded_s, sizes=sizes)


def show(phases: list[Measured], *, tasks: int, judgments: int, loaded_s: float, sizes: dict[str, str]) -> None:
    print(f"{tasks:,} open tasks, {judgments:,} stored judgments, batches of {BATCH}; filled in {loaded_s:.0f} s")
    print("sizes: " + ", ".join(f"{name} {size}" for name, size in sizes.items()))
    print(
        f"{'phase':<12} {'processes':>9} {'questions':>10} {'per s':>8} {'claim ms':>9} {'finish ms':>10} {'decay':>6}"
    )
    for each in phases:
        print(
            f"{each.name:<12} {each.processes:>9} {each.questions:>10,} {each.per_s:>8,.0f} {each.claim_ms:>9.2f} "
            f"{each.finish_ms:>10.2f} {each.decay:>6.2f}"
        )
    small, single, several = phases[:3]
    best = max((single, several), key=lambda each: each.per_s)
    figures: dict[str, Any] = {
        "benchmark": "queue",
        "tasks": tasks,
        "judgments": judgments,
        "per_s": round(best.per_s),
        "processes": best.processes,
        "per_s_one_process": round(single.per_s),
        "per_s_small_table": round(small.per_s),
        "claim_ms": round(single.claim_ms, 2),
        "claim_ratio": round(single.claim_ms / small.claim_ms, 2),
        "finish_ratio": round(single.finish_ms / small.finish_ms, 2),
    }
    if len(phases) > 3:
        long = phases[3]
        figures |= {"long_questions": long.questions, "long_per_s": round(long.per_s), "decay": round(long.decay, 2)}
    print(json.dumps(figures))


# --- the database ----------------------------------------------------------------------------


@contextlib.contextmanager
def own_database() -> Iterator[None]:
    """Services in a new home, as `make up` starts them, and their tables."""
    home = Path(tempfile.mkdtemp(prefix="zelo-queue-"))
    home.chmod(0o711)  # PostgreSQL of root's runs as another user
    for name in ("DATABASE_URL", "BROKER_URL"):
        os.environ.pop(name, None)
    os.environ.update(ZELO_HOME=str(home), ZELO_LOG_LEVEL="ERROR")
    setup()
    from django.core.management import call_command
    from django.db import connections

    from zelo_site.services import ServiceSupervisor

    try:
        with ServiceSupervisor(home):
            call_command("migrate", verbosity=0)
            yield
            connections.close_all()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def setup() -> None:
    from zelo_site.environment import prepare_environment

    prepare_environment()
    import django

    django.setup()


def run(statements: str, *values: Any) -> Any:
    """Execute, and return the first row of the last statement where it has one."""
    from django.db import connection

    if not statements:
        return None
    with connection.cursor() as cursor:
        cursor.execute(statements, values or None)
        return cursor.fetchone() if cursor.description else None


# Pairs of places 0..99 at distances 1 to 4 around the circle: 400 a query, each of degree 8.
_PAIRS = """
INSERT INTO labeling_pair (a_id, b_id, query_id)
SELECT LEAST(x.id, y.id), GREATEST(x.id, y.id), x.query_id
FROM generate_series(1, 4) AS distance
CROSS JOIN (SELECT id, query_id, row_number() OVER (PARTITION BY query_id ORDER BY id) - 1 AS place
            FROM labeling_candidate WHERE query_id = ANY(%s)) x
JOIN (SELECT id, query_id, row_number() OVER (PARTITION BY query_id ORDER BY id) - 1 AS place
      FROM labeling_candidate WHERE query_id = ANY(%s)) y
  ON y.query_id = x.query_id AND y.place = (x.place + distance) %% 100
ORDER BY x.query_id, distance, x.place
"""

_TASKS = """
INSERT INTO workers_judgingtask (run_id, pair_id, annotator_id, swapped, state, fence, leased_by, attempts, reason, message)
SELECT %s, pair.id, judge, side, 'open', 0, '', 0, '', ''
FROM labeling_pair pair CROSS JOIN unnest(%s::bigint[]) judge CROSS JOIN unnest(ARRAY[false, true]) side
WHERE pair.query_id = ANY(%s) ORDER BY pair.id, judge, side
LIMIT %s
"""

_JUDGMENTS = """
INSERT INTO labeling_judgment (pair_id, annotator_id, by_person, swapped, kind, preference, truncated)
SELECT pair.id, judge, false, side, 'preference', (pair.id * 7919 %% 1000) / 1000.0, false
FROM labeling_pair pair CROSS JOIN unnest(%s::bigint[]) judge CROSS JOIN unnest(ARRAY[false, true]) side
WHERE pair.query_id = ANY(%s) ORDER BY pair.id, judge, side
LIMIT %s
"""

# What was asked has been paid for: the books are as long as the judgments.
_ATTEMPTS = """
INSERT INTO workers_attempt (task_id, fence, call, run_id, annotator_id, outcome, input_tokens, output_tokens, cost_micros,
                             started_at, finished_at)
SELECT -judgment.id, 1, 1, %s, annotator_id, 'preference', 900, 1, 12, created_at, created_at
FROM labeling_judgment judgment WHERE annotator_id = ANY(%s)
"""


@dataclass(frozen=True)
class Filled:
    run: int
    judges: list[int]
    tasks: int


def fill(*, tasks: int, judgments: int) -> Filled:
    """A project with a run of so many open tasks, and so many answers of an earlier run on other queries."""
    from labeling.annotators import get_judge
    from labeling.projects import create_project
    from workers.models import Run

    project = create_project(f"Queue {tasks}")
    judges = [get_judge(project, name) for name in ("bm25", "query-likelihood")]
    ids = [judge.pk for judge in judges]
    asked = make_pairs(project.pk, -(-tasks // QUESTIONS_OF_QUERY))
    answered = make_pairs(project.pk, -(-judgments // QUESTIONS_OF_QUERY)) if judgments else []
    runs = [Run.objects.create(project=project, state=state) for state in ("finished", "judging")]
    for each in runs:
        each.judges.set(judges)
    with without_indexes("workers_judgingtask"):
        run(_TASKS, runs[1].pk, ids, asked, tasks)
    if answered:
        with without_indexes("labeling_judgment"):
            run(_JUDGMENTS, ids, answered, judgments)
        with without_indexes("workers_attempt"):
            run(_ATTEMPTS, runs[0].pk, ids)
    Run.objects.filter(pk=runs[1].pk).update(tasks_planned=tasks)
    for table in ("labeling_query", "labeling_candidate", "labeling_pair", "workers_judgingtask", "labeling_judgment",
                  "workers_attempt"):  # fmt: skip
        run(f"VACUUM ANALYZE {table}")
    run("CHECKPOINT")
    return Filled(runs[1].pk, ids, tasks)


def make_pairs(project: int, queries: int) -> list[int]:
    """Queries with 100 candidates and 400 pairs each; returns their ids."""
    run(
        "INSERT INTO labeling_document (project_id, external_id, text, metadata) "
        "SELECT %s, 'd' || n, 'text ' || n, '{}' FROM generate_series(1, %s) n ON CONFLICT DO NOTHING",
        project, CANDIDATES,
    )  # fmt: skip
    (ids,) = run(
        "WITH made AS (INSERT INTO labeling_query (project_id, external_id, text, domain, metadata, judged_version) "
        "SELECT %s, gen_random_uuid(), 'query ' || n, '', '{}', 0 FROM generate_series(1, %s) n RETURNING id) "
        "SELECT array_agg(id ORDER BY id) FROM made",
        project, queries,
    )  # fmt: skip
    with without_indexes("labeling_candidate"):
        run(
            "INSERT INTO labeling_candidate (query_id, document_id) SELECT q, d.id FROM unnest(%s::bigint[]) q "
            "CROSS JOIN labeling_document d WHERE d.project_id = %s ORDER BY q, d.id",
            ids, project,
        )  # fmt: skip
    with without_indexes("labeling_pair"):
        run(_PAIRS, ids, ids)
    return list(ids)


@contextlib.contextmanager
def without_indexes(table: str) -> Iterator[None]:
    """Drop what can be made again while the table is filled: indexes, foreign keys and triggers slow that down."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s AND indexname NOT IN "
            "(SELECT conname FROM pg_constraint)",
            [table],
        )
        indexes = cursor.fetchall()
        cursor.execute(
            "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'f'",
            [table],
        )
        keys = cursor.fetchall()
    for name, _ in indexes:
        run(f'DROP INDEX "{name}"')
    for name, _ in keys:
        run(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')
    run(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    yield
    run("SET maintenance_work_mem = '512MB'")
    for _, definition in indexes:
        run(definition)
    for name, definition in keys:
        run(f'ALTER TABLE {table} ADD CONSTRAINT "{name}" {definition} NOT VALID')
    run(f"ALTER TABLE {table} ENABLE TRIGGER USER")


def finish_off(filled: Filled) -> None:
    run("DELETE FROM workers_judgingtask WHERE run_id = %s", filled.run)
    run("UPDATE workers_run SET state = 'finished' WHERE id = %s", filled.run)
    run("VACUUM workers_judgingtask")


def table_sizes() -> dict[str, str]:
    names = ("workers_judgingtask", "labeling_judgment", "workers_attempt")
    return {name: run(f"SELECT pg_size_pretty(pg_total_relation_size('{name}'))")[0] for name in names}


# --- the work --------------------------------------------------------------------------------


def phase(name: str, filled: Filled, *, processes: int, seconds: float = 3600.0, questions: int = 0) -> Measured:
    """Let processes of their own work for so long, or for so many questions, all beginning at the same moment."""
    share = -(-questions // processes) if questions else 2**40
    command = [sys.executable, __file__, "--worker"]
    workers = [
        subprocess.Popen(
            [*command, str(filled.judges[number % JUDGES]), str(number), str(seconds), str(share)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for number in range(processes)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    start = time.time()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    found = [json.loads(worker.communicate()[0].splitlines()[-1]) for worker in workers]
    assert all(worker.returncode == 0 for worker in workers)
    batches = sorted(batch for each in found for batch in each["batches"])
    return Measured(
        name,
        processes,
        sum(count for _, count, _, _ in batches),
        max(end for end, _, _, _ in batches) - start,
        [claim for _, _, claim, _ in batches],
        [finish for _, _, _, finish in batches],
    )


def work(judge: str, number: str, seconds: str, questions: str) -> None:
    """Claim and finish in batches; prints when each ended, how many it had, what claim and finish took."""
    setup()
    from labeling.records import Usage, Verdict
    from workers import queue

    queue.claim(annotator_id=0, worker="warm", limit=1)  # connect and load before the clock starts
    print("ready", flush=True)
    sys.stdin.readline()
    until = time.time() + float(seconds)
    batches: list[tuple[float, int, float, float]] = []
    done, worker = 0, f"bench@here:{number}"
    while time.time() < until and done < int(questions):
        began = time.perf_counter()
        tasks = queue.claim(annotator_id=int(judge), worker=worker, limit=BATCH)
        claimed = time.perf_counter()
        if not tasks:
            break
        stored = queue.finish([(task, Verdict(0.25 + task.id % 50 / 100, usage=Usage(900, 1, 12))) for task in tasks])
        ended = time.perf_counter()
        assert stored.stored == len(tasks)
        done += len(tasks)
        batches.append((time.time(), len(tasks), 1000 * (claimed - began), 1000 * (ended - claimed)))
    print(json.dumps({"batches": batches}))


def check(filled: Filled, finished: int, judgments: int) -> None:
    """What is stored is what was finished: none lost, none doubled, and the books agree."""
    from workers.books import totals_of_run

    (left,) = run("SELECT count(*) FROM workers_judgingtask WHERE run_id = %s", filled.run)
    (stored,) = run("SELECT count(*) FROM labeling_judgment WHERE annotator_id = ANY(%s)", filled.judges)
    books = totals_of_run(filled.run)
    assert left == filled.tasks - finished, f"{left:,} tasks are left; expected {filled.tasks - finished:,}"
    assert stored == judgments + finished, f"{stored:,} judgments are stored; expected {judgments + finished:,}"
    assert (books.calls, books.cost_micros) == (finished, 12 * finished), f"the books say {books}"


if __name__ == "__main__":
    main()
