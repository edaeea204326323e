"""The house's rules that no compiler checks: imports point one way, work starts on one floor, plugins are labelled."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from labeling.plugins import KINDS, Options, registered
from tests.tree import MOST_MODULES, PACKAGES, circles, imports, module_name, modules_a_folder, parsed, sources

ROOT = Path(__file__).resolve().parent.parent
STARTED_BY_WORKERS = {"Run", "Job", "JudgingTask"}
PROMISE = re.compile(r"\b[Nn]o Django\b")
WRITES = {"create", "bulk_create", "get_or_create", "update_or_create", "acreate"}


@pytest.fixture(scope="module", autouse=True)
def no_tree_stays_in_memory() -> Iterator[None]:
    yield
    parsed.cache_clear()


def test_imports_point_one_way() -> None:
    check = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert check.returncode == 0, check.stdout + check.stderr


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(imports(*PACKAGES)) == []


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}}) == [["b", "c"], ["d"]]


def test_no_folder_outgrows_its_reader() -> None:
    crowded = {folder: count for folder, count in modules_a_folder(*PACKAGES, "tests").items() if count > MOST_MODULES}
    assert crowded == {}


def test_no_test_module_imports_another() -> None:
    test_modules = {
        name for path in sources("tests") if (name := module_name(path)).rpartition(".")[2].startswith("test_")
    }
    borrowed = {name: found for name, used in imports("tests").items() if (found := used & test_modules)}
    assert borrowed == {}


def test_modules_that_promise_no_django_stand_in_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    listed = [name for each in contracts if each["type"] == "forbidden" for name in each["source_modules"]]
    promised = {
        module_name(path) for path in sources(*PACKAGES) if PROMISE.search(ast.get_docstring(parsed(path)) or "")
    }
    assert promised, "the scan itself must find something"
    assert {
        name for name in promised if not any(name == each or name.startswith(f"{each}.") for each in listed)
    } == set()


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
        for path in sources(*PACKAGES)
        if set(_started(parsed(path))) or "INSERT INTO workers_" in path.read_text(encoding="utf-8")
    }
    assert starters, "the scan itself must find something"
    assert {path for path in starters if not path.startswith("workers/")} == set()


def test_nobody_inserts_judgments_but_record_judgments() -> None:
    writers = set()
    for path in sources(*PACKAGES):
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
        for path in sources(*PACKAGES, "tests", "benchmarks")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 500
    }
    assert long == {}


def test_every_benchmark_starts_as_a_file() -> None:
    """`python benchmarks/NAME.py` puts the folder of the file on the path, where the packages are not."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py")}
    commands = {
        name: text
        for name, text in texts.items()
        if "ArgumentParser(" in text and re.search(r"^ *from (benchmarks|tests)\b", text, re.MULTILINE)
    }
    assert len(commands) > 10
    assert [name for name, text in commands.items() if "sys.path[0] = " not in text] == []


def test_what_benchmarks_import_from_the_product_is_there() -> None:
    missing = []
    for path in sources("benchmarks"):
        for node in ast.walk(parsed(path)):
            source = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if source.split(".")[0] in (*PACKAGES, "benchmarks"):
                assert isinstance(node, ast.ImportFrom)
                known = names_of(source)
                missing += [f"{path.name}: {source}.{each.name}" for each in node.names if each.name not in known]
    assert missing == []


def names_of(module: str) -> set[str]:
    """What a module or package of ours offers to `from module import name`, by its source."""
    place = ROOT / module.replace(".", "/")
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    found = {each.stem for each in place.glob("*")} if place.is_dir() else set()
    for node in ast.walk(parsed(path) if path.exists() else ast.Module()):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            found |= {each.asname or each.name for each in node.names}
    return found


def test_the_picture_names_every_feature_folder() -> None:
    picture = (ROOT / "docs/pictures.md").read_text(encoding="utf-8").partition("```")[2].partition("```")[0]
    named = re.findall(r"^(?:┌─ |│  )(\w+) ", picture, re.MULTILINE)
    floors = ("zelo_site", "workers", "trainer", "scoring", "labeling")
    ours = [folder.name for floor in floors for folder in (ROOT / floor).iterdir() if (folder / "__init__.py").exists()]
    assert sorted(set(ours) - {"migrations", "management"} | set(floors)) == sorted(set(named))
    pages = {folder.name for folder in (ROOT / "zelo_site/pages").iterdir() if (folder / "__init__.py").exists()}
    assert pages == set(re.findall(r"\w+", picture.partition("pages ")[2].partition("templatetags")[0]))
