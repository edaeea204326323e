"""The registry, the conformance suite over everything built in, and a real package from outside."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pydantic
import pytest

from labeling import plugins
from labeling.plugin_checks import NonconformingPlugin, assert_plugin, check_plugin
from labeling.plugins import (
    DuplicatePlugin,
    Exporter,
    Importer,
    Judge,
    Plugin,
    PluginModule,
    Rater,
    Retriever,
    Sampler,
    Trainer,
    UnknownPlugin,
    get_plugin,
    load_plugins,
    register,
    registered,
)
from labeling.records import (
    Collection,
    Comparison,
    ComparisonColumns,
    Failure,
    Fit,
    ImportedQuery,
    IntArray,
    QueryState,
    TextRecord,
    Verdict,
)

ROOT = Path(__file__).resolve().parents[2]
DUMMY = ROOT / "tests" / "dummy_plugin"


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], type[Plugin]]:
    """An empty registry for this test alone."""
    empty: dict[tuple[str, str], type[Plugin]] = {}
    monkeypatch.setattr(plugins, "_registry", empty)
    monkeypatch.setattr(plugins, "_loaded", {})
    return empty


class Silent(Sampler):
    """A sampler that returns nothing."""

    name = "nothing"
    label = "Nothing"

    def sample(self, state: QueryState, budget: int, rng: np.random.Generator) -> IntArray:
        return np.zeros((0, 2), dtype=np.int64)


# --- registry ----------------------------------------------------------------------------


def test_a_registered_class_is_found_by_kind_and_name(registry: Any) -> None:
    register(Silent)
    assert get_plugin("sampler", "nothing") is Silent
    assert registered("sampler") == {"nothing": Silent}
    assert registered("judge") == {}


def test_an_unknown_name_lists_what_there_is(registry: Any) -> None:
    register(Silent)
    with pytest.raises(UnknownPlugin, match="no sampler is named 'cycles'; available: nothing"):
        get_plugin("sampler", "cycles")


def test_two_classes_of_one_name_clash_and_one_class_twice_does_not(registry: Any) -> None:
    register(Silent)
    register(Silent)

    class Other(Silent):
        pass

    with pytest.raises(DuplicatePlugin, match=r"'nothing' is already registered by .*Silent"):
        register(Other)


def test_a_class_without_kind_name_or_label_is_refused(registry: Any) -> None:
    with pytest.raises(TypeError, match="subclass one of Retriever"):
        register(type("Kindless", (Plugin,), {"name": "x", "label": "X"}))
    with pytest.raises(TypeError, match="must set `name` and `label`"):
        register(type("Nameless", (Silent,), {"name": ""}))


def test_options_are_validated_by_field() -> None:
    with pytest.raises(pydantic.ValidationError, match="no_such_option"):
        Silent.from_dict({"no_such_option": 1})


# --- loading -----------------------------------------------------------------------------


def entry_points(monkeypatch: pytest.MonkeyPatch, **modules: str) -> None:
    """Make these names the only entry points of the group."""
    points = [importlib.metadata.EntryPoint(name, value, "zelo.plugins") for name, value in modules.items()]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: points if group == "zelo.plugins" else [])


def test_a_broken_plugin_is_a_row_with_its_error_and_the_others_load(
    registry: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_one.py").write_text("raise RuntimeError('no such driver')\n")
    (tmp_path / "syntax_one.py").write_text("def (\n")
    (tmp_path / "sound_one.py").write_text(
        "from labeling.plugins import Exporter, register\n"
        "@register\nclass Sound(Exporter):\n    name = label = 'sound'\n    def write(self, rows, stream): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    entry_points(monkeypatch, broken="broken_one", missing="missing_one", sound="sound_one", syntax="syntax_one")
    rows = {row.name: row for row in load_plugins(enabled=["*"])}
    assert rows["broken"].error == "RuntimeError: no such driver"
    assert "broken_one.py" in rows["broken"].detail
    assert rows["missing"].error.startswith("ModuleNotFoundError")
    assert rows["syntax"].error.startswith("SyntaxError")
    assert rows["sound"].error == ""
    assert "sound" in registered("exporter")


def test_what_is_not_enabled_is_listed_and_not_imported(registry: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    entry_points(monkeypatch, other="no_such_module")
    assert load_plugins(enabled=["formats"]) == [PluginModule("other", "no_such_module", enabled=False)]


def test_other_packages_are_enabled_by_name_and_own_modules_always(
    registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another package that takes the name of one of zelo's own does not replace it."""
    own = next(iter(importlib.metadata.entry_points(group="zelo.plugins", name="formats")))
    other, same = (
        importlib.metadata.EntryPoint(name, "no_such_module", "zelo.plugins") for name in ("other", "formats")
    )
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [same, other, own])
    rows = {row.name: row for row in load_plugins()}
    assert (rows["formats"].module, rows["formats"].enabled, rows["formats"].error) == (own.value, True, "")
    assert (rows["other"].enabled, rows["other"].error) == (False, "")


def test_every_built_in_module_comes_in_by_an_entry_point_and_loads() -> None:
    for module in _built_in_modules():
        importlib.import_module(module)
    assert {"zbench-jsonl", "trec-qrels"} <= set(registered("importer"))
    assert {"zbench-annotated-jsonl", "trec-run"} <= set(registered("exporter"))
    assert {"bm25", "query-likelihood", "embedding"} <= set(registered("judge"))
    assert {"thurstone", "bradley-terry"} <= set(registered("rater"))
    assert "cycles" in registered("sampler")


# --- conformance -------------------------------------------------------------------------


def _built_in_modules() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return list(project["entry-points"]["zelo.plugins"].values())


def _built_in() -> list[type[Plugin]]:
    modules = set(_built_in_modules())
    for module in modules:
        importlib.import_module(module)
    found = [plugin for kind in plugins.KINDS for plugin in registered(kind).values()]
    # Local models need weights; test_transformers.py, test_cross_encoder.py and test_pairwise_student.py in tests/workers/judges
    # make some, and test_replaying.py makes the file that the judge `recorded` needs.
    elsewhere = {"transformers-local", "cross-encoder", "pairwise-student"}
    return [
        plugin
        for plugin in found
        if plugin.__module__ in modules
        and plugin.name not in elsewhere
        and (plugin.kind, plugin.name) != ("judge", "recorded")
    ]


# No default can know the operator's endpoint; one that does not exist fails every comparison.
REQUIRED_OPTIONS: dict[str, dict[str, Any]] = {
    "openai-http": {"endpoint": "nowhere", "model": "none"},
    "setwise": {"endpoint": "nowhere", "model": "none"},
    "grade": {"endpoint": "nowhere", "model": "none"},
}


@pytest.mark.parametrize("plugin", _built_in(), ids=lambda plugin: f"{plugin.kind}-{plugin.name}")
@pytest.mark.django_db  # a judge looks for its endpoint in the database
def test_what_is_built_in_keeps_its_contract(plugin: type[Plugin]) -> None:
    assert check_plugin(plugin, options=REQUIRED_OPTIONS.get(plugin.name)) == []


class Vague(Plugin.Options):
    model_config = pydantic.ConfigDict(frozen=False, extra="ignore")


class BadOptions(Silent):
    """Has options that can change and that swallow misspellings."""

    Options = Vague


class Greedy(Importer):
    """Reads all at once, lets garbage through, raises what it likes."""

    name = "greedy"
    label = "Greedy"
    example = b"one\ntwo\n"

    def read(self, stream: IO[bytes]) -> Iterator[ImportedQuery]:
        for line in stream.read().split(b"\n"):
            yield ImportedQuery(line.decode("utf-8"), "text\x00", ())


class Dated(Exporter):
    """Writes other bytes every time."""

    name = "dated"
    label = "Dated"
    calls = 0

    def write(self, rows: Any, stream: IO[bytes]) -> None:
        Dated.calls += 1
        stream.write(f"{Dated.calls}\n".encode())


class Endless(Sampler):
    """Draws the same unordered pair for ever."""

    name = "endless"
    label = "Endless"

    def sample(self, state: QueryState, budget: int, rng: np.random.Generator) -> IntArray:
        return np.array([[1, 0], [1, 0]], dtype=np.int64)


class Forgetful(Judge):
    """Answers all but the last comparison."""

    name = "forgetful"
    label = "Forgetful"

    def prepare(self, collection: Collection) -> None:
        pass

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        return [Verdict(0.5) for _ in comparisons[:-1]]


class Sorting(Forgetful):
    """Answers in an order of its own."""

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        return [Verdict(1.0 / (1 + c.key)) for c in sorted(comparisons, key=lambda c: c.key)]


class Fragile(Forgetful):
    """Divides by the length of a text."""

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        return [Verdict(0.5 / len(c.a.text)) for c in comparisons]


class Lopsided(Rater):
    """Counts the votes for side a, and forgets that strengths have mean zero."""

    name = "lopsided"
    label = "Lopsided"

    def rate(self, columns: ComparisonColumns) -> Fit:
        starts = np.concatenate([[0], np.cumsum(columns.sizes)])
        size, queries = int(starts[-1]), columns.queries
        query = np.repeat(np.arange(queries), np.diff(columns.offsets))
        return Fit(
            theta=np.bincount(starts[query] + columns.a, columns.preference, minlength=size).astype(np.float64),
            stderr=np.ones(size),
            starts=starts,
            dispersion=np.ones(queries),
            gradient_norm=np.zeros(queries),
            iterations=np.zeros(queries, dtype=np.int64),
            component=np.zeros(size, dtype=np.int64),
            comparisons=np.zeros(size, dtype=np.int64),
            undefeated=np.zeros(size, dtype=np.bool_),
            winless=np.zeros(size, dtype=np.bool_),
            prior_precision=0.1,
            logit_scale=1.0,
        )


class Unsorted(Retriever):
    """Returns everything in the order given."""

    name = "unsorted"
    label = "Unsorted"

    def retrieve(
        self, queries: Sequence[TextRecord], documents: Sequence[TextRecord], k: int
    ) -> list[list[tuple[int, float]]]:
        return [[(document.id, float(len(document.text))) for document in documents] for _ in queries]


class Mumbling(Trainer):
    def train(self, examples: Any, workspace: Path, report: Any) -> Path:
        return workspace


@pytest.mark.parametrize(
    ("plugin", "expected"),
    [
        (BadOptions, ["must be frozen", "must forbid unknown fields"]),
        (Greedy, ["raised UnicodeDecodeError", "reads the whole stream", "NUL"]),
        (Dated, ["different bytes the second time"]),
        (Endless, ["a >= b", "occurs twice"]),
        (Forgetful, ["comparisons give"]),
        (Sorting, ["order of the questions"]),
        (Fragile, ["raised ZeroDivisionError"]),
        (Lopsided, ["expected 0", "exchanging the two sides", "reversing every vote"]),
        (Unsorted, ["for one query", "not sorted best first"]),
        (Mumbling, ["name is ''", "label is empty", "no docstring"]),
    ],
)
def test_what_breaks_its_contract_is_told_how(plugin: type[Plugin], expected: list[str]) -> None:
    violations = check_plugin(plugin)
    for words in expected:
        assert any(words in violation for violation in violations), violations
    with pytest.raises(NonconformingPlugin, match=plugin.__qualname__):
        assert_plugin(plugin)


def test_a_class_that_is_no_plugin_is_a_violation() -> None:
    assert "not a subclass" in check_plugin(int)[0]  # type: ignore[arg-type]


def test_an_abstract_class_is_a_violation() -> None:
    half = type("Half", (Judge,), {"name": "half", "label": "Half", "__doc__": "Half a judge."})
    assert check_plugin(half) == ["class: it lacks judge, prepare"]


def test_the_suite_and_its_formats_need_no_django() -> None:
    code = "import labeling.plugin_checks, sys; sys.exit(any(m.split('.')[0] == 'django' for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# --- a package from outside ---------------------------------------------------------------

USE_DUMMY = """
import io, json
from labeling.plugins import get_plugin, load_plugins
from labeling.plugin_checks import check_plugin
rows = {row.name: [row.module, row.error] for row in load_plugins(enabled=["dummy"])}
judge, reader = get_plugin("judge", "coin-flip"), get_plugin("importer", "csv-pairs")
table = b"query_id,query,document_id,text\\nq1,ponds,d1,deep\\nq1,ponds,d2,shallow\\nq2,bread,d2,shallow\\n"
queries = [[q.id, [d.id for d in q.documents], q.line] for q in reader().read(io.BytesIO(table))]
print(json.dumps([rows["dummy"], check_plugin(judge), check_plugin(reader), queries]))
"""


@pytest.fixture(scope="module")
def installed_dummy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dummy plugin, installed by pip into a folder of its own."""
    folder = tmp_path_factory.mktemp("dummy")
    source = shutil.copytree(DUMMY, folder / "source")  # building leaves files beside the source
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    done = subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--target", str(folder / "site"), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_an_installed_package_is_found_by_its_entry_point_and_keeps_the_contract(installed_dummy: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", USE_DUMMY],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(installed_dummy)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    row, judge, importer, queries = json.loads(done.stdout.splitlines()[-1])
    assert row == ["zelo_dummy_plugin", ""]
    assert judge == []
    assert importer == []
    assert queries == [["q1", ["d1", "d2"], 2], ["q2", ["d2"], 4]]
