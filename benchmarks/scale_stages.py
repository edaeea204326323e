"""The stages of `benchmarks/scale.py`, each in a process of its own: what it does, and the figures that it prints."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

NAME = "Scale"
PARTS = 10  # files of the import
POLL_S = 0.2
PATIENCE_S = 4 * 3600.0
# Three adaptive rounds of 25 pairs beyond the 400 of the design, for queries of 100 documents.
EXTRA_PAIRS = 0.75
BATCH = 200


def run(name: str) -> None:
    """Run one stage, and print its figures as the last line."""
    from zelo_site.environment import prepare_environment

    prepare_environment()
    import django

    django.setup()
    stages: dict[str, Callable[[], dict[str, Any]]] = {
        "import": import_texts, "plan": plan, "judge": judge, "fit": fit, "calibrate": calibrate, "adaptive": adapt,
        "certainty": certainty, "snapshot": snapshot, "export": export_all, "load": load,
        "pages": lambda: importlib.import_module("benchmarks.scale_pages").measure_pages(project()),
    }  # fmt: skip
    print(json.dumps(stages[name]()), flush=True)


def size() -> dict[str, int]:
    """The queries, candidates and judging processes of this run."""
    return dict(json.loads(os.environ["SCALE"]))


def home() -> Path:
    return Path(os.environ["ZELO_HOME"])


def project() -> Any:
    from labeling.models import Project

    return Project.objects.get(name=NAME)


def first_run() -> Any:
    from workers.models import Run

    return Run.objects.filter(project=project()).order_by("id").first()


def decay(series: Sequence[tuple[float, float]]) -> float:
    """The rate of the last tenth of the work to that of the first, of (time, work done so far) in order."""
    total = series[-1][1]

    def when(share: float) -> float:
        before = (series[0][0], series[0][1])
        for at, done in series:
            if done >= share * total:
                span = done - before[1]
                return before[0] + (at - before[0]) * ((share * total - before[1]) / span if span else 1.0)
            before = (at, done)
        return series[-1][0]

    first, last = when(0.1) - when(0.0), when(1.0) - when(0.9)
    return round(first / last, 2) if last > 0 else 1.0


@contextlib.contextmanager
def watched(statement: str, *values: Any) -> Iterator[list[tuple[float, float]]]:
    """(time, number that the statement returns) some times a second, from a connection of its own."""
    from django.db import connection

    series: list[tuple[float, float]] = []
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            with connection.cursor() as cursor:
                cursor.execute(statement, values)
                series.append((time.monotonic(), float(cursor.fetchone()[0] or 0)))
            stop.wait(POLL_S / 4)
        connection.close()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield series
    finally:
        stop.set()
        thread.join(10.0)


# --- texts, pairs, answers -------------------------------------------------------------------


def import_texts() -> dict[str, Any]:
    """Import the made texts in ten files by the product's importer."""
    from django.contrib.auth import get_user_model

    from benchmarks.import_dataset import dataset
    from labeling.importing.dataset import import_dataset
    from labeling.plugins import load_plugins
    from labeling.projects import create_project

    load_plugins()
    owner = get_user_model().objects.create_superuser("owner")
    made = create_project(NAME, owner=owner)
    queries, candidates = size()["queries"], size()["candidates"]
    rows = dataset(100 * queries)
    series = [(0.0, 0.0)]
    path = home() / "part.jsonl"
    for part in range(PARTS):
        count = queries * (part + 1) // PARTS - queries * part // PARTS
        with path.open("w", encoding="utf-8") as file:
            for row in itertools.islice(rows, count):
                row["documents"] = row["documents"][:candidates]
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        began = time.perf_counter()
        found = import_dataset(made, path, importer="zbench-jsonl")
        assert found.candidates_created == count * candidates, found
        series.append((series[-1][0] + time.perf_counter() - began, series[-1][1] + count * candidates))
    path.unlink()
    return {"rows": queries * candidates, "seconds": series[-1][0], "decay": decay(series)}


def plan() -> dict[str, Any]:
    """Plan cycles of degree 8 by the product's `advance`."""
    from labeling.access.annotators import get_judge
    from workers.models import Run
    from workers.runs.ordering import start_run

    chosen = get_judge(project(), "computed", {})
    began = time.perf_counter()
    ordered = start_run(project(), judges=[chosen], allocation=Run.Allocation.ROTATE, seed=1)
    order_s = time.perf_counter() - began
    began = time.perf_counter()
    with watched("SELECT tasks_planned FROM workers_run WHERE id = %s", ordered.pk) as series:
        plan_whole(ordered)
    seconds = time.perf_counter() - began
    ordered.refresh_from_db()
    series.append((time.monotonic(), float(ordered.pairs_planned)))
    return {"rows": ordered.pairs_planned, "seconds": seconds, "decay": decay(series), "order_s": round(order_s, 2)}


def plan_whole(ordered: Any) -> None:
    """Plan a run's round to its end: `advance` returns after some seconds, so that a worker can do other work."""
    from workers.models import Job
    from workers.runs.advancing import advance

    while Job.objects.filter(run=ordered, state=Job.State.OPEN).exists():
        advance(ordered.pk)


_CHECK = """
SELECT count(*), count(*) - count(DISTINCT (answer.pair_id, answer.swapped)),
       sum(hashtextextended(query.external_id || ' ' || a.external_id || ' ' || b.external_id || ' ' || answer.swapped
                            || answer.preference, 0)::numeric) %% 9007199254740993
FROM labeling_live_judgment answer JOIN labeling_pair pair ON pair.id = answer.pair_id
JOIN labeling_candidate x ON x.id = pair.a_id JOIN labeling_document a ON a.id = x.document_id
JOIN labeling_candidate y ON y.id = pair.b_id JOIN labeling_document b ON b.id = y.document_id
JOIN labeling_query query ON query.id = pair.query_id
WHERE query.project_id = %s
"""
_ANSWERS = "SELECT sum(answers) FROM workers_spend WHERE run_id = %s"


def judge() -> dict[str, Any]:
    """Wait until the product's workers have answered every question and fitted every query; then compare."""
    from django.db import connection
    from django.db.models import Max, Min

    from workers.models import Attempt, JudgingTask

    ordered = first_run()
    planned = ordered.tasks_planned
    series = wait_for(ordered, lambda answered: (home() / "share").write_text(str(answered / planned)))
    settled_s = time.monotonic() - series[-1][0]
    ordered.refresh_from_db()
    calls = Attempt.objects.filter(run=ordered).aggregate(first=Min("started_at"), last=Max("finished_at"))
    with connection.cursor() as cursor:
        cursor.execute(_CHECK, [project().pk])
        stored, doubled, checksum = cursor.fetchone()
    left = JudgingTask.objects.filter(run=ordered).count()
    return {
        "rows": stored, "seconds": (calls["last"] - calls["first"]).total_seconds(), "decay": decay(series),
        "lost": planned - stored, "doubled": doubled, "left": left, "answers": int(checksum or 0),
        "settled_s": round(settled_s, 1),
    }  # fmt: skip


def wait_for(ordered: Any, report: Callable[[float], Any] = lambda answered: None) -> list[tuple[float, float]]:
    """Wait until a run has ended and its answers are in the scores; (time, answers so far) from the first answer to the last."""
    from django.db import InterfaceError, OperationalError, connection

    from workers.jobs.calibration import is_settled

    series: list[tuple[float, float]] = []
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            with connection.cursor() as cursor:
                cursor.execute(_ANSWERS, [ordered.pk])
                answered = float(cursor.fetchone()[0] or 0)
            ordered.refresh_from_db()
            if ordered.state in ("failed", "cancelled"):
                raise RuntimeError(f"the run {ordered.state}: {ordered.reason}")
            ended = is_settled(ordered)
        except (OperationalError, InterfaceError):
            connection.close()  # the database was killed on purpose
            time.sleep(POLL_S)
            continue
        if answered and (not series or answered > series[-1][1]):
            series.append((time.monotonic(), answered))
            report(answered)
        if ended:
            return series
        time.sleep(POLL_S)
    raise TimeoutError(f"run {ordered.pk} did not end within {PATIENCE_S:.0f} s")


# --- scores ----------------------------------------------------------------------------------


def fit() -> dict[str, Any]:
    """Choose the prior again, then fit every query once more with the new version."""
    from django.db.models import F

    from scoring.models import ProjectFit
    from scoring.project_fits import choose_project_fit
    from scoring.rating import rate_stale

    made = project()
    began = time.perf_counter()
    choose_project_fit(made.pk)
    prior_s = time.perf_counter() - began
    rate_stale(made.pk)
    ProjectFit.objects.filter(project=made).update(version=F("version") + 1)
    series = [(time.perf_counter(), 0.0)]
    while (rated := rate_stale(made.pk, slice_s=0.0)).queries:
        series.append((time.perf_counter(), series[-1][1] + rated.queries))
    return {
        "rows": int(series[-1][1]), "seconds": series[-1][0] - series[0][0], "decay": decay(series),
        "prior_s": round(prior_s, 2),
    }  # fmt: skip


def calibrate() -> dict[str, Any]:
    """Order pairs across queries; the product's workers judge them and calibrate."""
    from workers.jobs.calibration import order_calibration

    began = time.monotonic()
    ordered = order_calibration(project(), seed=1)
    series = wait_for(ordered)
    ordered.refresh_from_db()
    return {
        "rows": ordered.tasks_planned, "seconds": time.monotonic() - began,
        "judged_s": round(series[-1][0] - began, 1) if series else 0.0,
    }  # fmt: skip


_FLOW = """
SELECT EXISTS (SELECT 1 FROM workers_judgingtask WHERE run_id = %s AND state = 'open'),
       (SELECT count(*) FROM workers_judgingtask WHERE state = 'leased')
"""


def adapt() -> dict[str, Any]:
    """Adaptive rounds beyond the design, asked of a judge that takes its time; how much of it the judges waited."""
    from django.db import connection

    from workers.models import Run
    from workers.runs.ordering import start_run

    made, candidates = project(), size()["candidates"]
    options = {"pairs_per_candidate": 4.0 + EXTRA_PAIRS}
    chosen = list(first_run().judges.all())
    ordered = start_run(made, judges=chosen, sampler="adaptive", sampler_options=options, allocation="rotate", seed=2)
    looks: list[tuple[float, float]] = []
    stop = threading.Event()
    places = BATCH * size()["judges"]

    def look() -> None:
        while not stop.wait(0.1):
            with connection.cursor() as cursor:
                cursor.execute(_FLOW, [ordered.pk])
                waiting, leased = cursor.fetchone()
                cursor.execute(_ANSWERS, [ordered.pk])
                answered = float(cursor.fetchone()[0] or 0)
            looks.append((answered, 0.0 if waiting else max(0.0, 1.0 - leased / places)))
        connection.close()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    series = wait_for(ordered)
    stop.set()
    thread.join(5.0)
    ordered.refresh_from_db()
    total = series[-1][1]
    going = [idle for answered, idle in looks if 0 < answered < total - places]
    assert ordered.pairs_planned >= EXTRA_PAIRS * 0.5 * candidates * size()["queries"], ordered.pairs_planned
    return {
        "rows": ordered.tasks_planned, "seconds": series[-1][0] - series[0][0], "decay": decay(series),
        "rounds": ordered.round, "idle_share": round(sum(going) / max(1, len(going)), 3), "state": Run.State(ordered.state).value,
    }  # fmt: skip


def certainty() -> dict[str, Any]:
    """The certainty of the top ten of up to a thousand queries."""
    from scoring.sampling.certainty import top_certainty

    ids = list(project().queries.order_by("id").values_list("id", flat=True)[:1000])
    top_certainty(ids[:2])
    began = time.perf_counter()
    found = top_certainty(ids)
    return {"rows": len(found), "seconds": time.perf_counter() - began}


# --- what goes out ---------------------------------------------------------------------------


def snapshot() -> dict[str, Any]:
    from scoring.snapshots.freeze import freeze

    began = time.perf_counter()
    frozen = freeze([project()], name=f"scale {time.time():.0f}")
    pairs = frozen.manifest["pairs"] or {}
    return {
        "rows": frozen.rows, "seconds": time.perf_counter() - began, "pairs": pairs.get("rows", 0),
        "file_mb": round((frozen.manifest["bytes"] + pairs.get("bytes", 0)) / 1e6, 1),
    }  # fmt: skip


class _Nowhere(io.RawIOBase):
    """Counts bytes and drops them."""

    written = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.written += len(data)
        return len(data)


def export_all() -> dict[str, Any]:
    """Export all judgments, then all scores."""
    from scoring.exports.exporting import export

    sink, seconds, rows = _Nowhere(), {}, {}
    for name in ("judgments-jsonl", "zbench-annotated-jsonl"):
        began = time.perf_counter()
        rows[name] = export(project(), name, sink)  # type: ignore[arg-type]
        seconds[name] = round(time.perf_counter() - began, 2)
    return {
        "rows": rows["judgments-jsonl"], "seconds": seconds["judgments-jsonl"], "scores_s": seconds["zbench-annotated-jsonl"],
        "file_mb": round(sink.written / 1e6, 1),
    }  # fmt: skip


def load() -> dict[str, Any]:
    """Read the snapshot as a trainer does."""
    from scoring.models import Snapshot
    from scoring.snapshots.stored_rows import ROWS_FILE
    from trainer.examples import load_training_data

    latest = Snapshot.objects.order_by("-id")[0]
    folder = home() / "storage" / latest.location
    began = time.perf_counter()
    data = load_training_data(folder / ROWS_FILE)
    return {"rows": len(data.train) + len(data.dev), "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    run(sys.argv[1])
