"""The house's rules that no compiler checks: imports point one way, work starts on one floor, plugins are labelled."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labeling.plugins import KINDS, Options, registered

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("zelo_site", "workers", "trainer", "scoring", "labeling")
STARTED_BY_WORKERS = {"Run", "Job", "JudgingTask"}
WRITES = {"create", "bulk_create", "get_or_create", "update_or_create", "acreate"}


def sources(*packages: str) -> Iterator[Path]:
    for package in packages:
        yield from (path for path in sorted((ROOT / package).rglob("*.py")) if "migrations" not in path.parts)


def test_imports_point_one_way() -> None:
    check = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert check.returncode == 0, check.stdout + check.stderr


def test_stages_are_the_method_in_order() -> None:
    from workers.runs.stages import STAGES

    assert [stage.number for stage in STAGES] == list(range(1, 10))
    assert [stage.key for stage in STAGES] == [
        "import", "candidates", "pairs", "judging", "rating", "calibrate", "train", "prove", "serve",
    ]  # fmt: skip
    assert all(stage.label for stage in STAGES)


@pytest.mark.parametrize("kind", KINDS)
def test_every_plugin_has_a_label_a_description_and_options_of_its_own_kind(kind: str) -> None:
    for name, plugin in registered(kind).items():
        assert name == plugin.name
        assert plugin.label
        assert plugin.__doc__ or plugin.__module__.startswith("zelo_dummy"), name
        assert issubclass(plugin.Options, Options), f"{kind} {name}: Options must be closed and frozen"


def _started(tree: ast.AST) -> Iterator[str]:
    """Names of work that this code makes: `Run(...)`, `Run.objects.create(...)` and the like."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        if isinstance(called, ast.Name) and called.id in STARTED_BY_WORKERS:
            yield called.id
        if isinstance(called, ast.Attribute) and called.attr in WRITES:
            names = {each.id for each in ast.walk(called) if isinstance(each, ast.Name)}
            yield from names & STARTED_BY_WORKERS


def test_only_workers_start_work() -> None:
    starters = {
        path.relative_to(ROOT).as_posix()
        for path in sources(*FLOORS)
        if set(_started(ast.parse(path.read_text(encoding="utf-8"))))
        or "INSERT INTO workers_" in path.read_text(encoding="utf-8")
    }
    assert starters, "the scan itself must find something"
    assert {path for path in starters if not path.startswith("workers/")} == set()


def test_nobody_inserts_judgments_but_record_judgments() -> None:
    writers = set()
    for path in sources(*FLOORS):
        text = path.read_text(encoding="utf-8")
        if "INSERT INTO labeling_judgment" in text or any(f"Judgment.objects.{verb}(" in text for verb in WRITES):
            writers.add(path.relative_to(ROOT).as_posix())
    assert writers == {"labeling/judgments.py"}


def test_numerics_and_records_load_without_django() -> None:
    code = (
        "import sys, labeling.records, labeling.plugins, scoring.numerics.fitting.fit, scoring.numerics.judges.allocation;"
        "sys.exit('django' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_no_module_outgrows_its_reader() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in sources(*FLOORS)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert long == {}
