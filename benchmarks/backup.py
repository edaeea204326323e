"""Claim: a backup of 1,000,000 judgments restores to the same scores and loses no answer, while answers keep coming in.

In a home of its own, stores a project with all pairs judged and fits it. Then another process stores answers without a pause while
`manage.py backup` writes a file, which `manage.py restore` brings into a second home. There the scores must be the same bit by
bit (`scores_equal`), and every answer must be there that was committed before the backup began (`lost`); those that came during
the backup are there as whole transactions or not at all (`torn`). `seconds` is backup and restore together. The peer is pg_dump
and pg_restore of the same database, without counting, hashing, files and checks: `ratio` is our time over theirs, and the rows
that the peer restored are counted. `--quick` takes a fortieth.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # instead of this folder, whose names would shadow packages
from benchmarks.archive import COMPARED, DOCUMENTS, QUERIES, make_project, say  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
AT_ONCE = 5
_SCORES = f"""
SELECT query.external_id, document.external_id, {", ".join(f"score.{name}" for name in COMPARED)}
FROM scoring_score score
JOIN labeling_candidate candidate ON candidate.id = score.candidate_id
JOIN labeling_document document ON document.id = candidate.document_id
JOIN labeling_query query ON query.id = candidate.query_id
JOIN labeling_project project ON project.id = query.project_id
WHERE project.slug = %s ORDER BY 1, 2
"""
_ANSWERS = """
SELECT judgment.id FROM labeling_judgment judgment
JOIN labeling_annotator judge ON judge.id = judgment.annotator_id WHERE judge.name = 'busy' ORDER BY 1
"""


def answers_arrive(slug: str, stop: Any, committed: Any) -> None:
    """Store answers of one more judge, AT_ONCE in a transaction; tell when each was committed, and the highest id then."""
    _set_up()
    from labeling.judgments import record_judgments
    from labeling.models import Annotator, Judgment, Pair, Project
    from labeling.records import NewJudgment

    project = Project.objects.get(slug=slug)
    judge = Annotator.objects.create(project=project, name="busy", plugin="recorded", config_hash="b" * 64)
    pairs = list(Pair.objects.filter(query__project=project).order_by("-id").values_list("pk", flat=True)[:200_000])
    for start in range(0, len(pairs) - AT_ONCE, AT_ONCE):
        if stop.is_set():
            break
        part = pairs[start : start + AT_ONCE]
        record_judgments([NewJudgment(pair, judge.pk, swapped=False, preference=0.75) for pair in part])
        newest = Judgment.objects.filter(annotator=judge).order_by("-id").values_list("pk", flat=True)[0]
        committed.put((time.time(), newest))
        time.sleep(0.01)


def measure(queries: int, home: Path, second: Path) -> dict[str, float]:
    """Store, fit, back up while answers arrive, restore, compare."""
    from labeling.models import Judgment, Project
    from scoring.rating import rate_stale

    say("storing a judged project")
    project = make_project(queries, "backup")
    busy = make_project(max(1, queries // 10), "busy")
    say("fitting it")
    rate_stale(project.pk)
    before = read(home, _SCORES, project.slug)
    context = multiprocessing.get_context("spawn")
    stop, committed = context.Event(), context.Queue()
    writer = context.Process(target=answers_arrive, args=(busy.slug, stop, committed))
    writer.start()
    moments = [committed.get() for _ in range(5)]
    say("backing up, while answers arrive")
    began_at, file = time.time(), second.parent / "backup.zelo"
    backup_s = command(home, "backup", str(file))
    stop.set()
    while writer.is_alive() or not committed.empty():
        if not committed.empty():
            moments.append(committed.get())
    writer.join()
    say("restoring")
    restore_s = command(second, "restore", str(file))
    say("comparing")
    after = read(second, _SCORES, project.slug)
    there = {row[0] for row in read(second, _ANSWERS)}
    mine = [row[0] for row in read(home, _ANSWERS)]
    safe = max(newest for moment, newest in moments if moment < began_at)
    say("the peer: pg_dump and pg_restore")
    peer_s, peer_rows = peer(home)
    return {
        "judgments": Judgment.objects.filter(annotator__project=Project.objects.get(pk=project.pk)).count(),
        "scores_equal": int(len(before) == queries * DOCUMENTS and after == before),
        "lost": sum(each not in there for each in mine if each <= safe),
        "torn": len(there) % AT_ONCE,
        "answers_meanwhile": sum(moment >= began_at for moment, _ in moments) * AT_ONCE,
        "backup_seconds": round(backup_s, 1),
        "restore_seconds": round(restore_s, 1),
        "seconds": round(backup_s + restore_s, 1),
        "file_mb": round(file.stat().st_size / 1e6, 1),
        "peer_seconds": round(peer_s, 1),
        "peer_rows_equal": int(peer_rows == Judgment.objects.count()),
        "ratio": round((backup_s + restore_s) / peer_s, 2),
    }


def command(home: Path, *arguments: str) -> float:
    """Run a command of manage.py on a home; returns its seconds."""
    began = time.perf_counter()
    environment = {**os.environ, "ZELO_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "manage.py"), *arguments],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{arguments[0]} failed: {done.stdout[-500:]}{done.stderr[-500:]}")
    return time.perf_counter() - began


def read(home: Path, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """The rows of a statement in a home's embedded database, which is started if it does not run."""
    import psycopg

    from zelo_site.processes.services import AlreadyRunning, ServiceSupervisor, service_urls

    supervisor = ServiceSupervisor(home)
    try:
        supervisor.start()
    except AlreadyRunning:
        supervisor = None  # type: ignore[assignment]
    try:
        with psycopg.connect(service_urls(home, {}).database_url) as database:
            return database.execute(statement, values or None).fetchall()  # type: ignore[call-overload, no-any-return]
    finally:
        if supervisor is not None:
            supervisor.stop()


def peer(home: Path) -> tuple[float, int]:
    """pg_dump into a file, pg_restore into a new database of the same server; seconds, and how many judgments came back."""
    from django.db import connection

    from zelo_site.operations.backup import libpq_environment
    from zelo_site.processes.embedded import find_postgres

    tools, file, environment = find_postgres(os.environ), home / "peer.dump", libpq_environment()

    def run(name: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(tools / name), *arguments], env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout

    run("createdb", "peer")
    began = time.perf_counter()
    run("pg_dump", "--format=custom", "--compress=1", "--no-owner", f"--file={file}")
    run("pg_restore", "--single-transaction", "--no-owner", "--dbname=peer", str(file))
    seconds = time.perf_counter() - began
    rows = int(run("psql", "--dbname=peer", "--tuples-only", "--command", "SELECT count(*) FROM labeling_judgment"))
    file.unlink()
    run("dropdb", "peer")
    connection.close()
    return seconds, rows


def _set_up() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zelo_site.settings")
    from zelo_site.environment import prepare_environment

    prepare_environment()
    import django

    django.setup()
    from labeling.plugins import load_plugins

    load_plugins(enabled=["raters"])


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return "unknown processor"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fortieth of the queries")
    queries = QUERIES // 40 if parser.parse_args().quick else QUERIES
    folder = Path(tempfile.mkdtemp(prefix="zelo-backup-"))
    folder.chmod(0o711)  # under root, PostgreSQL runs as another user
    home, second = folder / "first", folder / "second"
    for each in (home, second):
        each.mkdir()
        each.chmod(0o711)
    for name in ("DATABASE_URL", "BROKER_URL", "STORAGE_URL", "ZELO_SECRET_KEY"):
        os.environ.pop(name, None)
    os.environ.update(ZELO_HOME=str(home), ZELO_LOG_LEVEL="ERROR")
    try:
        _set_up()
        from zelo_site.processes.stack import database

        with database():
            figures = measure(queries, home, second)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    targets = {"scores_equal": 1, "lost": 0, "torn": 0, "peer_rows_equal": 1}
    print(f"{processor()}, {os.cpu_count()} cores")
    print(f"{'':24}{'measured':>12}{'target':>12}")
    for name, value in figures.items():
        print(f"{name:24}{value:>12}{targets.get(name, ''):>12}")
    print(json.dumps(figures))
    if missed := [name for name, target in targets.items() if figures[name] != target]:
        raise SystemExit(f"missed: {', '.join(missed)}")


if __name__ == "__main__":
    main()
