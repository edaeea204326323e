"""Claim: a project of 100,000 candidates with 1,000,000 judgments goes out and comes back to the same scores within 400 MB,
and no transaction of its deletion holds locks for 200 ms, while others work.

Stores a project of random texts and answers, fits it, exports it, imports the archive, and compares all scores bit by bit,
before and after a refit of the first queries of both. Then deletes the original in this process while a second one changes
judgments in another project. `longest_lock_ms` is the longest transaction of the deletion, which is how long anybody can wait for
it; `longest_write_ms` is the longest of the other process's, with everything else that the machine does meanwhile, and
`longest_alone_ms` the same before the deletion. Peak memory is that of exporting and importing, which
run in processes of their own that load the raters alone of all plugins. `--quick` takes a fortieth.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import unittest.mock
import uuid
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # instead of this folder, whose names would shadow packages

QUERIES, DOCUMENTS = 1_000, 100
JUDGES = 2
COMPARED = (
    "theta",
    "stderr",
    "elo",
    "elo_stderr",
    "relevance",
    "comparisons",
    "island",
    "undefeated",
    "winless",
    "calibrated",
)
REFITTED = 40
ALONE_S = 5.0  # the writer's longest wait without a deletion, for comparison

_DOCUMENTS = """
INSERT INTO labeling_document (project_id, external_id, text, metadata)
SELECT %(project)s, 'd' || number, (SELECT string_agg(md5((number * 31 + word)::text), ' ') FROM generate_series(1, 15) word), '{}'
FROM generate_series(1, %(queries)s * %(documents)s) number
"""
_QUERIES = """
INSERT INTO labeling_query (project_id, external_id, text, domain, metadata, judged_version)
SELECT %(project)s, 'q' || number, 'question ' || md5(number::text), '', '{}', 1 FROM generate_series(1, %(queries)s) number
"""
_CANDIDATES = """
INSERT INTO labeling_candidate (query_id, document_id, first_stage_rank)
SELECT query.id, document.id, 1 + (document.place - 1) %% %(documents)s
FROM (SELECT id, row_number() OVER (ORDER BY id) place FROM labeling_query WHERE project_id = %(project)s) query
JOIN (SELECT id, row_number() OVER (ORDER BY id) place FROM labeling_document WHERE project_id = %(project)s) document
    ON (document.place - 1) / %(documents)s = query.place - 1
ORDER BY query.id, document.id
"""
# Five random cycles a query, roughly: each candidate meets those 1, 2, 5, 11, 23 ... places further.
_PAIRS = """
INSERT INTO labeling_pair (a_id, b_id, query_id)
SELECT LEAST(first.id, second.id), GREATEST(first.id, second.id), first.query_id
FROM (SELECT candidate.id, candidate.query_id, candidate.first_stage_rank AS rank FROM labeling_candidate candidate
      JOIN labeling_query query ON query.id = candidate.query_id WHERE query.project_id = %(project)s) first
CROSS JOIN unnest(ARRAY[1, 2, 5, 11, 23]) step
JOIN labeling_candidate second ON second.query_id = first.query_id
    AND second.first_stage_rank = 1 + (first.rank - 1 + step) %% %(documents)s
ORDER BY 3, 1, 2
"""
_JUDGMENTS = """
INSERT INTO labeling_judgment (pair_id, annotator_id, by_person, swapped, kind, preference, truncated)
SELECT pair.id, %(annotator)s, false, pair.id %% 2 = 0, 'preference',
    0.02 + 0.96 * ((hashint8extended(pair.a_id * 7 + pair.b_id, %(annotator)s) & 1048575) / 1048575.0), false
FROM labeling_pair pair JOIN labeling_query query ON query.id = pair.query_id WHERE query.project_id = %(project)s
ORDER BY pair.id
"""
_RATIONALES = """
INSERT INTO labeling_rationale (judgment_id, text)
SELECT judgment.id, 'because of ' || md5(judgment.id::text) FROM labeling_judgment judgment
WHERE judgment.annotator_id = %(annotator)s AND judgment.id %% 5 = 0
"""


def peak_mb() -> float:
    """Peak resident memory of this program so far, in MB.

    From /proc where there is one: `ru_maxrss` of a started process begins with what its parent held when it started it.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def make_project(queries: int, label: str) -> Any:
    """A project of `queries` queries with all pairs judged by `JUDGES` judges, not yet fitted."""
    from django.db import connection

    from labeling.models import Annotator, Project

    name = f"benchmark-{label}-{uuid.uuid4().hex[:8]}"
    project = Project.objects.create(name=name, slug=name)
    sizes = {"project": project.pk, "queries": queries, "documents": DOCUMENTS}
    with connection.cursor() as cursor:
        for statement in (_DOCUMENTS, _QUERIES, _CANDIDATES, _PAIRS):
            cursor.execute(statement, sizes)
        for number in range(JUDGES):
            judge = Annotator.objects.create(
                project=project, name=f"judge {number}", plugin="recorded", config_hash=f"{number:064d}"
            )
            for statement in (_JUDGMENTS, _RATIONALES):
                cursor.execute(statement, {**sizes, "annotator": judge.pk})
        for table in ("document", "query", "candidate", "pair", "judgment"):
            cursor.execute(f"ANALYZE labeling_{table}")
    return project


def scores(project: Any) -> dict[tuple[str, str], tuple[Any, ...]]:
    """The scores by imported ids; floats as they are, so that comparing them compares bits."""
    from scoring.models import Score

    names = ("candidate__query__external_id", "candidate__document__external_id")
    rows = Score.objects.filter(candidate__query__project=project).values_list(*names, *COMPARED)
    return {
        row[:2]: tuple(each.hex() if isinstance(each, float) else each for each in row[2:]) for row in rows.iterator()
    }


def exported(slug: str, path: str, answers: Any) -> None:
    """Export in this process, and tell its peak memory."""
    _set_up()
    from labeling.models import Project
    from workers.archives.exporting import write_archive

    with Path(path).open("wb") as stream:
        write_archive(Project.objects.get(slug=slug), stream)
    answers.put(peak_mb())


def imported(path: str, answers: Any) -> None:
    """Import in this process, and tell the slug and the peak memory."""
    _set_up()
    from workers.archives.importing import import_archive

    with Path(path).open("rb") as stream:
        project = import_archive(stream)
    answers.put((project.slug, peak_mb()))


def writes_elsewhere(slug: str, ready: Any, stop: Any, answers: Any) -> None:
    """Supersede and restore judgments of a project, one transaction after the other, and tell the longest in ms."""
    _set_up()
    from labeling.judgments import restore_judgments, supersede_judgments
    from labeling.models import Judgment, Project

    project = Project.objects.get(slug=slug)
    ids = list(Judgment.objects.filter(annotator__project=project).order_by("id").values_list("pk", flat=True)[:200])
    waits: list[float] = []
    alone = 0.0
    for move in (supersede_judgments, restore_judgments):
        move(ids[:5])
    end = time.monotonic() + ALONE_S
    while not stop.is_set():
        if not ready.is_set() and time.monotonic() > end:
            alone, waits = max(waits), []
            ready.set()
        for move in (supersede_judgments, restore_judgments):
            began = time.perf_counter()
            move(ids[len(waits) % 190 : len(waits) % 190 + 10])
            waits.append(1000 * (time.perf_counter() - began))
        time.sleep(0.005)
    answers.put((max(waits), alone, len(waits)))


def say(stage: str) -> None:
    """Say on stderr what begins, with the time: the whole measurement takes minutes."""
    print(f"{time.strftime('%H:%M:%S')} {stage}", file=sys.stderr, flush=True)


def in_process(work: Any, *arguments: Any) -> Any:
    """The answer of a function in a new process, whose memory is its own."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    process = context.Process(target=work, args=(*arguments, answers))
    process.start()
    answer = answers.get()
    process.join()
    return answer


def measure(queries: int, folder: Path) -> dict[str, float]:
    """Out, in, compare, refit, compare, delete."""
    from labeling.models import Candidate, Judgment, Project, Query
    from scoring.rating import rate_queries, rate_stale

    say("storing a judged project")
    project = make_project(queries, "archive")
    say("fitting it")
    rate_stale(project.pk)
    before = scores(project)
    path = folder / "project.zelo.gz"
    say("exporting")
    began = time.perf_counter()
    export_mb = in_process(exported, project.slug, str(path))
    export_s = time.perf_counter() - began
    say("importing")
    began = time.perf_counter()
    slug, import_mb = in_process(imported, str(path))
    import_s = time.perf_counter() - began
    copy = Project.objects.get(slug=slug)
    equal = len(before) == queries * DOCUMENTS and scores(copy) == before
    for each in (project, copy):
        first = Query.objects.filter(project=each).order_by("id").values_list("pk", flat=True)[:REFITTED]
        rate_queries(each.pk, list(first))
    equal = equal and scores(copy) == scores(project)
    figures = {
        "candidates": Candidate.objects.filter(query__project=copy).count(),
        "judgments": Judgment.objects.filter(annotator__project=copy).count(),
        "scores_equal": int(equal),
        "export_seconds": round(export_s, 2),
        "import_seconds": round(import_s, 2),
        "seconds": round(export_s + import_s, 2),
        "peak_mb": round(max(export_mb, import_mb), 1),
        "file_mb": round(path.stat().st_size / 1e6, 1),
    }
    say(f"so far {figures}")
    return figures | deletion(project, copy)


def deletion(project: Any, other: Any) -> dict[str, float]:
    """Purge the project while another process writes elsewhere; both projects are gone at the end."""
    from labeling.models import Project
    from workers.deletion import job as jobs
    from workers.deletion.projects import archive_project, purge_project
    from workers.deletion.walk import Slices

    begin = Slices.__init__
    context = multiprocessing.get_context("spawn")
    ready, stop, answers = context.Event(), context.Event(), context.Queue()
    writer = context.Process(target=writes_elsewhere, args=(other.slug, ready, stop, answers))
    writer.start()
    ready.wait()
    began = time.perf_counter()
    say("deleting the original")
    archive_project(project)
    slices: list[Slices] = []
    with unittest.mock.patch.object(Slices, "__init__", lambda self: (slices.append(self), begin(self))[1]):
        jobs.carry_out_deletion(purge_project(project).pk, worker="benchmark")
    seconds = time.perf_counter() - began
    stop.set()
    longest, alone, writes = answers.get()
    writer.join()
    assert not Project.with_archived.filter(pk=project.pk).exists()
    found = {
        "deletion_seconds": round(seconds, 2),
        "longest_lock_ms": round(1000 * max(each.longest_s for each in slices), 1),
        "longest_write_ms": round(longest, 1),
        "longest_alone_ms": round(alone, 1),
        "writes_meanwhile": writes,
    }
    say(f"deleting the copy; so far {found}")
    archive_project(other)
    jobs.carry_out_deletion(purge_project(other).pk, worker="benchmark")
    return found


def _set_up() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zelo_site.settings")
    import django

    django.setup()
    from labeling.plugins import load_plugins

    load_plugins(enabled=["raters"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fortieth of the queries")
    queries = QUERIES // 40 if parser.parse_args().quick else QUERIES
    _set_up()
    from zelo_site.processes.stack import database

    with tempfile.TemporaryDirectory() as folder, database():
        figures = measure(queries, Path(folder))
    targets = {"scores_equal": 1, "peak_mb": 400, "longest_lock_ms": 200}
    print(f"{'':24}{'measured':>12}{'target':>12}")
    for name, value in figures.items():
        print(f"{name:24}{value:>12}{targets.get(name, ''):>12}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
