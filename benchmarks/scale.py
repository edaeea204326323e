"""A project of many queries from import to export, stage by stage, with what each takes and what stops being fast as it grows.

Real PostgreSQL with durable settings, Valkey, the product's importer, planner, workers, rater, calibration, snapshot, exports and
pages. One judge computes its answers (`scale_judge.py`); all else is the product. Every stage runs in a process of its own and
stores its figures in the home, so that `--home DIR --from STAGE` continues there. `lost` and `doubled` compare stored judgments with
planned questions; `answers` is a checksum of them all, equal for every run of one size. `_decay`: the rate of the last tenth to that
of the first. `--kill` kills a worker and the database with SIGKILL in the middle of judging.

Each stage is told on stderr as it ends; `--until STAGE` ends after one. The last line is one JSON object. docs/scale.md
has the full run of 11,200 queries.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)  # instead of this folder, whose names would shadow packages

FULL, QUICK, PAPER = 11_200, 300, 112_000
# Each stage, and the product's workers that run meanwhile.
STAGES: dict[str, tuple[str, ...]] = {
    "import": (),
    "plan": (),
    "judge": ("judging-cpu", "rating", "reconciler"),
    "fit": (),
    "calibrate": ("judging-cpu", "rating", "reconciler"),
    "adaptive": ("judging-cpu", "rating", "reconciler"),
    "certainty": (),
    "snapshot": (),
    "export": (),
    "load": (),
    "pages": (),
}
RESULTS = "scale.json"
LOOK_S = 0.25
# In the adaptive stage, and with kills, a batch of 200 questions takes so long, as it would with a model: at most 500 answers a second
# and process. With many queries the kills come in the middle anyway.
SLOW_BATCH_S = 0.4
MANY_QUERIES = 2_000
TARGETS = {
    "import_rows_s": (">=", 15_000), "plan_pairs_s": (">=", 20_000), "judgments_s": (">=", 5_000),
    "fit_queries_s": (">=", 200), "peak_mb": ("<=", 1_500), "slowest_page_ms": ("<=", 500), "idle_share": ("<=", 0.05),
    "lost": ("<=", 0), "doubled": ("<=", 0),
}  # fmt: skip
LEAST_DECAY = 0.8
PLUGIN = {
    "METADATA": "Metadata-Version: 2.1\nName: zelo-scale-judge\nVersion: 1.0\n",
    "entry_points.txt": "[zelo.plugins]\nscale-judge = scale_judge\n",
}


@dataclass
class Watch:
    """The peak of resident memory of every process of the stage, in MB, and its processor time in s, by role, from /proc."""

    peaks: dict[str, float] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    used: dict[str, float] = field(default_factory=dict)

    def look(self, pids: dict[str, int]) -> None:
        """Look at these processes and all that they have started."""
        parents = _parents()
        for role, pid in pids.items():
            family = list(_descendants(pid, parents))
            self.peaks[role] = max([self.peaks.get(role, 0.0), *map(_peak_mb, family)])
            used = sum(map(_processor_s, family))
            self.used[role] = max(self.used.get(role, 0.0), used)
            self.begun.setdefault(role, used)

    @property
    def processor_s(self) -> dict[str, float]:
        """The processor time of the processes of each role since they were first seen."""
        return {role: used - self.begun[role] for role, used in self.used.items()}


def _parents() -> dict[int, list[int]]:
    """The children of every process."""
    found: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            text = path.read_text()
            found.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    return found


def _descendants(pid: int, parents: dict[int, list[int]]) -> Iterator[int]:
    yield pid
    for child in parents.get(pid, ()):
        yield from _descendants(child, parents)


def _peak_mb(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def _processor_s(pid: int) -> float:
    """The processor time of a process and of its children that have ended."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} queries")
    parser.add_argument("--queries", type=int, default=0, help=f"default {FULL:,}, a tenth of the paper's")
    parser.add_argument("--candidates", type=int, default=100, help="documents of a query")
    parser.add_argument("--judges", type=int, default=2, help="judging processes")
    parser.add_argument("--home", type=Path, default=None, help="keep everything in this folder, and continue there")
    parser.add_argument("--from", dest="first", choices=list(STAGES), default=None, help="first stage to run")
    parser.add_argument("--until", dest="last", choices=list(STAGES), default="pages", help="last stage to run")
    parser.add_argument("--kill", action="store_true", help="kill a worker and the database while judging")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        from benchmarks import scale_stages

        scale_stages.run(arguments.stage)
        return
    queries = arguments.queries or (QUICK if arguments.quick else FULL)
    home = arguments.home or Path(tempfile.mkdtemp(prefix="zelo-scale-"))
    try:
        results = run_stages(home.absolute(), arguments, queries)
    finally:
        if arguments.home is None:
            shutil.rmtree(home, ignore_errors=True)
    show(results)


def run_stages(home: Path, arguments: argparse.Namespace, queries: int) -> dict[str, Any]:
    names = list(STAGES)
    file = home / RESULTS
    results: dict[str, Any] = {
        "queries": queries, "candidates": arguments.candidates, "judges": arguments.judges, "stages": {}
    }  # fmt: skip
    if file.exists():
        results = json.loads(file.read_text())
        done = [name for name in names if name in results["stages"]]
        first = arguments.first or next((name for name in names if name not in done), names[-1])
    else:
        first = names[0]
    with services(home) as supervisor:
        for name in names[names.index(first) : names.index(arguments.last) + 1]:
            began = time.monotonic()
            figures = run_stage(name, home, supervisor, results, kill=arguments.kill and name == "judge")
            figures["stage_s"] = round(time.monotonic() - began, 1)
            figures["database_mb"] = supervisor.database_mb()
            results["stages"][name] = figures
            file.write_text(json.dumps(results, indent=1))
            print(f"{name}: {json.dumps(figures)}", file=sys.stderr, flush=True)
        results["tables"] = supervisor.tables()
        file.write_text(json.dumps(results, indent=1))
    return results


# --- processes -------------------------------------------------------------------------------


@dataclass
class Running:
    """The services of the home."""

    home: Path
    revive: Callable[[], Any]
    pids: Callable[[], dict[str, int]]

    def database_mb(self) -> float:
        from django.db import connection

        connection.close()  # the server may have been killed since
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_database_size(current_database()) / 1e6")
            return round(float(cursor.fetchone()[0]), 1)

    def tables(self) -> list[tuple[str, int, float]]:
        """(table, rows, MB with indexes) of the ten largest."""
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")
            cursor.execute(
                "SELECT relname, reltuples::bigint, pg_total_relation_size(oid) / 1e6 FROM pg_class "
                "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 3 DESC LIMIT 10"
            )
            return [(name, rows, round(float(size), 1)) for name, rows, size in cursor.fetchall()]


@contextlib.contextmanager
def services(home: Path) -> Iterator[Running]:
    """PostgreSQL and Valkey of the home, with the tables, and the plugin of the computed judge for all processes."""
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o711)  # PostgreSQL of root's runs as another user
    plugin = home / "plugin"
    info = plugin / "zelo_scale_judge-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "benchmarks" / "scale_judge.py", plugin)
    for name, text in PLUGIN.items():
        (info / name).write_text(text)
    for name in ("DATABASE_URL", "BROKER_URL"):
        os.environ.pop(name, None)
    path = os.pathsep.join(filter(None, [str(ROOT), str(plugin), os.environ.get("PYTHONPATH", "")]))
    os.environ.update(ZELO_HOME=str(home), ZELO_LOG_LEVEL="WARNING", PYTHONPATH=path, OMP_NUM_THREADS="1")
    os.environ["ZELO_PLUGINS"] = "scale-judge"
    sys.path.append(str(plugin))
    from zelo_site.environment import prepare_environment

    prepare_environment()
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connections

    from zelo_site.processes.services import ServiceSupervisor

    with ServiceSupervisor(home) as supervisor:
        call_command("migrate", verbosity=0)
        yield Running(home, supervisor.revive, supervisor.process_ids)
        connections.close_all()


def run_stage(name: str, home: Path, running: Running, results: dict[str, Any], *, kill: bool) -> dict[str, Any]:
    """Run one stage in a process of its own beside its workers; its last line is its figures."""
    from zelo_site.processes.stack import worker_processes
    from zelo_site.processes.supervisor import ProcessSupervisor

    wanted = [child for child in worker_processes(judging=int(results["judges"])) if child.name in STAGES[name]]
    watch, stop = Watch(), threading.Event()
    kills: list[str] = []
    is_slow = name == "adaptive" or (kill and int(results["queries"]) < MANY_QUERIES)
    os.environ["SCALE_JUDGE_SECONDS"] = str(SLOW_BATCH_S if is_slow else 0.0)
    said = lambda line: print(line, file=sys.stderr)  # noqa: E731
    with ProcessSupervisor(wanted, home=home, watch=running.revive, report=said) as workers:
        stage = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--stage", name],
            stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "SCALE": json.dumps(_plan_of(results))},
        )  # fmt: skip
        assert stage.stdout is not None
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(stage.stdout or ()), daemon=True)
        reader.start()
        killer = threading.Thread(target=_kill, args=(home, running, workers, stop, kills), daemon=True)
        if kill:
            killer.start()
        while stage.poll() is None:
            workers.tick() if wanted else running.revive()
            watch.look({"stage": stage.pid, **workers.process_ids(), **running.pids()})
            time.sleep(LOOK_S)
        stop.set()
        reader.join(10.0)
    if stage.returncode:
        raise RuntimeError(f"stage {name} ended with {stage.returncode}; see {home}/logs")
    figures: dict[str, Any] = json.loads(lines[-1])
    if kill:
        figures["kills"] = len(kills)
    figures["processor_s"] = round(sum(watch.processor_s.values()), 1)
    figures["processor_s_of"] = {role: round(used, 1) for role, used in sorted(watch.processor_s.items())}
    figures["peaks_mb"] = {role: round(peak) for role, peak in sorted(watch.peaks.items())}
    return figures


def _plan_of(results: dict[str, Any]) -> dict[str, Any]:
    return {name: results[name] for name in ("queries", "candidates", "judges")}


def _kill(home: Path, running: Running, workers: Any, stop: threading.Event, kills: list[str]) -> None:
    """Kill a judging process, then the database, then both, while questions are being asked."""
    marks = [0.25, 0.5, 0.75]
    while marks and not stop.wait(0.1):
        with contextlib.suppress(OSError, ValueError):
            if float((home / "share").read_text()) < marks[0]:
                continue
            marks.pop(0)
            parents = _parents()
            children = list(_descendants(workers.process_ids()["judging-cpu"], parents))
            if len(marks) != 1:
                os.kill(children[-1], signal.SIGKILL)
                kills.append("worker")
            if len(marks) < 2:
                os.kill(running.pids()["PostgreSQL"], signal.SIGKILL)
                kills.append("database")


# --- the table -------------------------------------------------------------------------------


def show(results: dict[str, Any]) -> None:
    stages: dict[str, Any] = results["stages"]
    queries, candidates = results["queries"], results["candidates"]
    factor = PAPER * 100 / (queries * candidates)
    print(f"{queries:,} queries x {candidates} candidates, {results['judges']} judging processes; {_machine()}")
    print(
        f"{'stage':<10} {'rows':>10} {'seconds':>8} {'per s':>9} {'decay':>6} {'processor s':>11} {'peak MB':>8} {'largest':<12} "
        f"{'database MB':>11} {'at 1x: hours':>12} {'GB':>6}"
    )
    for name, each in stages.items():
        role, peak = max(each["peaks_mb"].items(), key=lambda item: item[1], default=("", 0))
        rows, seconds = each.get("rows", 0), each.get("seconds", each["stage_s"])
        print(
            f"{name:<10} {rows:>10,} {seconds:>8.1f} {rows / max(seconds, 1e-9):>9,.0f} {each.get('decay', ''):>6} "
            f"{each.get('processor_s', 0.0):>11.1f} "
            f"{peak:>8,} {role:<12} {each['database_mb']:>11,.0f} {factor * seconds / 3600:>12.2f} "
            f"{factor * each['database_mb'] / 1000:>6.1f}"
        )
    if "pages" in stages:
        for page in stages["pages"]["pages"]:
            print(f"  {page['ms']:>7.0f} ms {page['statements']:>4} statements  {page['address']}")
        for each in stages["pages"].get("files", ()):
            print(f"  {each['ms']:>7.0f} ms for the file {each['address']}")
        for slow in stages["pages"]["slow"]:
            print(f"  {slow['ms']:.0f} ms on {slow['address']}: {slow['sql']}\n{slow['plan']}")
    for table, rows, size in results.get("tables", ()):
        print(f"  {table:<28} {rows:>12,} rows {size:>9,.1f} MB {1e6 * size / max(rows, 1):>8,.0f} bytes a row")
    figures = figures_of(results)
    for name, value in figures.items():
        if name in TARGETS:
            sign, target = TARGETS[name]
            met = value >= target if sign == ">=" else value <= target
            print(f"{name:<22} {value:>12,} {sign} {target:<8,} {'' if met else 'MISSED'}")
        elif name.endswith("_decay") and value < LEAST_DECAY:
            print(f"{name:<22} {value:>12,} >= {LEAST_DECAY:<8} MISSED")
    print(json.dumps(figures))


def figures_of(results: dict[str, Any]) -> dict[str, Any]:
    """The keys of the last line; those of stages that did not run are left out."""
    stages = results["stages"]
    figures: dict[str, Any] = {"benchmark": "scale", "queries": results["queries"], "candidates": results["candidates"]}
    for stage, key in (
        ("import", "import_rows_s"),
        ("plan", "plan_pairs_s"),
        ("judge", "judgments_s"),
        ("fit", "fit_queries_s"),
    ):
        if stage in stages:
            figures[key] = round(stages[stage]["rows"] / stages[stage]["seconds"])
            figures[f"{key}_decay"] = stages[stage]["decay"]
    peaks = [peak for each in stages.values() for peak in each["peaks_mb"].values()]
    figures["peak_mb"] = max(peaks, default=0)
    for stage, keys in (
        ("judge", ("lost", "doubled", "answers", "kills")),
        ("adaptive", ("idle_share", "rounds")),
        ("pages", ("slowest_page_ms", "slowest_statement_ms")),
    ):
        figures |= {key: stages[stage][key] for key in keys if stage in stages and key in stages[stage]}
    return figures


def _machine() -> str:
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return f"{os.cpu_count()} cores, {names[0] if names else 'unknown processor'}"


def _lines(path: str) -> Sequence[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return ()


if __name__ == "__main__":
    main()
