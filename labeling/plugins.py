"""The extension surface: seven contracts, their registry and `load_plugins`.

A plugin is one class that subclasses a contract, sets `name` and `label`, gives a pydantic
`Options`, implements one method and registers itself with `@register`. One entry point in the
group `zelo.plugins` names its module; built-in plugins use entry points as well. `plugin_checks` holds
the conformance suite. Imports no Django; plugins import heavy libraries when they are constructed.
"""

from __future__ import annotations

import abc
import importlib.metadata
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
import pydantic

from labeling.importing.answers.rows import ImportedPreference, ImportedRating
from labeling.importing.strict_json import check_value
from labeling.records import (
    Collection,
    Comparison,
    ComparisonColumns,
    Failure,
    Fit,
    ImportedCandidate,
    ImportedDocument,
    ImportedGrade,
    ImportedQuery,
    IntArray,
    QueryState,
    TextRecord,
    Trained,
    TrainingData,
    Verdict,
)

ENTRY_POINT_GROUP = "zelo.plugins"


class Options(pydantic.BaseModel):
    """Base of every plugin's options: frozen, without extra fields, storable. Used by forms, API and provenance."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        """Refuse NUL, lone surrogates, NaN, integers beyond 64 bits and deep nesting, as an error of the field."""
        check_value(value)
        return value


class ExportFailed(ValueError):
    """A file format cannot represent a value."""


def problem_of(error: Exception) -> str:
    """The message of an error in one line; of wrong options, each field with what is wrong, without pydantic's own words."""
    if not isinstance(error, pydantic.ValidationError):
        return str(error)
    return "; ".join(_wrong_option(each["type"], each["loc"], each["msg"]) for each in error.errors())


def _wrong_option(kind: str, place: tuple[int | str, ...], message: str) -> str:
    name = ".".join(map(str, place)) or "options"
    if kind == "extra_forbidden":
        return f"{name}: no option has this name"
    return f"{name}: {message.removeprefix('Value error, ')}"


class UnknownPlugin(LookupError):
    """No plugin of that kind and name is registered."""


class DuplicatePlugin(ValueError):
    """Two plugins of one kind claim the same name."""


class Plugin(abc.ABC):  # noqa: B024  its subclasses have the abstract method
    """Base of all contracts. `options` is an instance of the class's own `Options`."""

    kind: ClassVar[str] = ""
    name: ClassVar[str] = ""
    label: ClassVar[str] = ""

    class Options(Options):
        pass

    def __init__(self, options: Options | None = None) -> None:
        self.options = options if options is not None else self.Options()

    @classmethod
    def from_dict(cls, options: dict[str, Any] | None = None) -> Plugin:
        """Construct from plain values. Raises pydantic.ValidationError that names the field."""
        return cls(cls.Options.model_validate(options or {}))


class Retriever(Plugin):
    """Finds candidates (stage 2)."""

    kind = "retriever"

    @abc.abstractmethod
    def retrieve(
        self, queries: Sequence[TextRecord], documents: Sequence[TextRecord], k: int
    ) -> list[list[tuple[int, float]]]:
        """Return for each query up to k (document id, score), best first; ties by document id."""


class Importer(Plugin):
    """Reads a file format (stage 1). `format_help` describes the format in one line."""

    kind = "importer"

    @classmethod
    def recognises(cls, head: bytes, filename: str) -> float:
        """The importer's confidence that a file with these first bytes is of its format, from 0 (none) to 1.

        `head` is unpacked and at most 64 KiB long; `filename` may be empty.
        """
        return 0.0

    @abc.abstractmethod
    def read(
        self, stream: IO[bytes]
    ) -> Iterator[
        ImportedQuery | ImportedDocument | ImportedCandidate | ImportedGrade | ImportedPreference | ImportedRating
    ]:
        """Yield rows while reading the stream. Raises labeling.importing.formats.RowError at the first bad one."""


class Exporter(Plugin):
    """Writes a project's data to a file format.

    `reads`: what `write` gets. `scores`: ExportedQuery, each query with its scored candidates; `texts`: ExportedText of all
    documents, then of all queries, then ImportedGrade; `everything`: those and then `scores`; `judgments`: ExportedJudgment,
    oldest first; `pairs`: ExportedPair; `ratings`: ImportedRating. `format_help` says in one line what the file holds.
    """

    kind = "exporter"
    format_help: ClassVar[str] = ""
    reads: ClassVar[Literal["scores", "texts", "everything", "judgments", "pairs", "ratings"]] = "scores"
    suffix: ClassVar[str] = ".txt"
    content_type: ClassVar[str] = "text/plain"

    @abc.abstractmethod
    def write(self, rows: Iterable[Any], stream: IO[bytes]) -> None:
        """Write all rows to the stream, which need not be able to seek. Raises ExportFailed for what the format cannot hold."""


class Sampler(Plugin):
    """Chooses pairs of one query (stage 3).

    `shares_rounds`: it returns twice as many pairs as a query gets on average, and a run with a budget of pairs divides half of
    them among the queries in each round, by the expected gain.
    """

    kind = "sampler"
    shares_rounds: ClassVar[bool] = False

    @abc.abstractmethod
    def sample(self, state: QueryState, budget: int, rng: np.random.Generator) -> IntArray:
        """Return at most `budget` distinct new pairs, int64[m, 2] with a < b, none of them in `state.pairs`."""

    def sample_sets(
        self, state: QueryState, budget: int, rng: np.random.Generator, *, set_size: int
    ) -> IntArray | None:
        """Return sets for judges that read `set_size` documents in a call, or None: the pairs of `sample` are joined to sets.

        int64[m, set_size], -1 behind the last document of a smaller set. A set of k documents uses k - 1 of the budget; its
        first two documents are a pair that is not in `state.pairs` and not the first two of another set.
        """
        return None


class BadAnswers(ValueError):
    """A judge broke its contract: a wrong number of answers, or an object that is no answer."""


class Judge(Plugin):
    """Compares documents (stage 4).

    `batch_size`: the best number of comparisons in one call. `can_drift`: whether the model may change under the same
    configuration, as behind an HTTP endpoint; its answers cannot be repeated for free, so that a write-ahead log keeps
    them until they are stored. `resource`: the bottleneck, which decides the worker: `cpu`, `gpu` (a local model, on
    the GPU if there is one) or `http`. `added_options`: options that came after a judge's first release; at their default
    they are no part of its identity, so that an update repeats no question. `learns_from_panel`: the judge is a student of
    other judges, so that no student learns from its answers. `set_size`: the most documents of one question;
    above 2 the judge is also asked about sets (`Comparison.documents`) and answers with `Verdict.on_set`. `can_be_asked`: False
    for answers that were imported, which no run asks for more.
    """

    kind = "judge"
    batch_size: ClassVar[int] = 32
    can_drift: ClassVar[bool] = True
    resource: ClassVar[Literal["cpu", "gpu", "http"]] = "cpu"
    added_options: ClassVar[frozenset[str]] = frozenset()
    learns_from_panel: ClassVar[bool] = False
    can_be_asked: ClassVar[bool] = True
    model_revision: str = ""
    prompt_hash: str = ""

    @classmethod
    def problems(cls, options: Mapping[str, Any]) -> list[str]:
        """Reasons why a judge with these options cannot work now, checked before a run; fast, without calls."""
        return []

    @property
    def set_size(self) -> int:
        return 2

    def recorded_pairs(self, query_id: int) -> Sequence[tuple[int, int]] | None:
        """Pairs of a query that it can answer, as ids of the documents in the order shown; None: any pair.

        The design `recorded` asks only these. Called after `prepare`.
        """
        return None

    @abc.abstractmethod
    def prepare(self, collection: Collection) -> None:
        """Called once per process and project before `judge`; must not read grades."""

    @abc.abstractmethod
    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        """Return one answer or failure for each comparison, in order. Raises only on a defect."""

    def judge_each(self, comparisons: Sequence[Comparison], report: Callable[[int, Verdict | Failure], None]) -> None:
        """As `judge`, but report each answer with its index through `report`. Raises BadAnswers on a wrong count.

        A judge that waits for a server overrides this and reports each answer when it arrives, so that paid answers are
        stored at once.
        """
        answers = self.judge(comparisons)
        if len(answers) != len(comparisons):
            raise BadAnswers(f"judge {self.name!r} gave {len(answers)} answers to {len(comparisons)} comparisons")
        for place, answer in enumerate(answers):
            report(place, answer)


class Rater(Plugin):
    """Turns judgments into strengths (stage 5)."""

    kind = "rater"

    @abc.abstractmethod
    def rate(self, columns: ComparisonColumns) -> Fit:
        """Fit all queries of `columns`. Raises a named error where it has no result."""


class Report(Protocol):
    """The callback for a trainer's events: a kind ("step", "evaluated", "note", ...) with plain values."""

    def __call__(self, kind: str, **values: Any) -> None: ...


class Trainer(Plugin):
    """Trains a reranker (stage 7) in a separate process without database or network.

    `learns_from`: the part of a snapshot that it needs, `rows` with scores or `pairs` with the panel's preference.
    """

    kind = "trainer"
    learns_from: ClassVar[Literal["rows", "pairs"]] = "rows"

    @abc.abstractmethod
    def train(self, data: TrainingData, workspace: Path, report: Report) -> Trained:
        """Train on `data` and return the result; all files go into `workspace`.

        Called again with the same workspace after a crash, it resumes from the files there. Raises a named error with a
        remedy instead of returning a model that learned nothing.
        """


KINDS: dict[str, type[Plugin]] = {
    contract.kind: contract for contract in (Retriever, Importer, Exporter, Sampler, Judge, Rater, Trainer)
}

PluginClass = TypeVar("PluginClass", bound=type[Plugin])

_registry: dict[tuple[str, str], type[Plugin]] = {}


def register(plugin: PluginClass) -> PluginClass:
    """Class decorator that registers a plugin.

    Raises TypeError for a class without kind, name or label, DuplicatePlugin if another class has the name.
    """
    if plugin.kind not in KINDS or not issubclass(plugin, KINDS[plugin.kind]):
        raise TypeError(
            f"{plugin.__qualname__} has kind {plugin.kind!r}; subclass one of "
            f"{', '.join(contract.__name__ for contract in KINDS.values())}"
        )
    if not plugin.name or not plugin.label:
        raise TypeError(f"{plugin.__qualname__} must set `name` and `label`")
    present = _registry.get((plugin.kind, plugin.name))
    if present is not None and (present.__module__, present.__qualname__) != (
        plugin.__module__,
        plugin.__qualname__,
    ):
        raise DuplicatePlugin(
            f"{plugin.kind} {plugin.name!r} is already registered by {present.__module__}.{present.__qualname__}; "
            "choose another name"
        )
    _registry[plugin.kind, plugin.name] = plugin
    return plugin


def registered(kind: str) -> dict[str, type[Plugin]]:
    """Return all plugins of a kind by name, in name order."""
    return {name: plugin for (of_kind, name), plugin in sorted(_registry.items()) if of_kind == kind}


def get_plugin(kind: str, name: str) -> type[Plugin]:
    """The class registered under that kind and name. Raises UnknownPlugin, which lists the registered ones."""
    try:
        return _registry[kind, name]
    except KeyError:
        known = ", ".join(registered(kind)) or "none"
        raise UnknownPlugin(f"no {kind} is named {name!r}; available: {known}") from None


@dataclass(frozen=True, slots=True)
class PluginModule:
    """An entry point and the result of loading it; `error` is empty if it loaded, `detail` is the traceback.

    `package` and `version` are those of the distribution that declares it; empty if they are unknown.
    """

    name: str
    module: str
    enabled: bool
    error: str = ""
    detail: str = ""
    package: str = ""
    version: str = ""


OWN_PACKAGE = "zelo"
_loaded: dict[str, PluginModule] = {}


def load_plugins(*, enabled: Sequence[str] = ()) -> list[PluginModule]:
    """Import zelo's own entry points of the group, and those of other packages that `enabled` names ("*": all).

    Repeat calls are free. Another package cannot take the name of one of zelo's own. An installed package is code that runs
    with the server's rights, so installing one, perhaps as a dependency, is not enough to run it.

    The row of a module reports its import error instead of raising it: a broken plugin must not stop the server.
    """
    found = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    for entry_point in sorted(found, key=lambda each: (not _is_own(each), each.name)):
        if entry_point.name not in _loaded:
            is_enabled = _is_own(entry_point) or entry_point.name in enabled or "*" in enabled
            _loaded[entry_point.name] = _load(entry_point, is_enabled)
    return list(_loaded.values())


def _is_own(entry_point: importlib.metadata.EntryPoint) -> bool:
    return entry_point.dist is not None and entry_point.dist.name == OWN_PACKAGE


def _load(entry_point: importlib.metadata.EntryPoint, is_enabled: bool) -> PluginModule:
    package = entry_point.dist.name if entry_point.dist else ""
    version = entry_point.dist.version if entry_point.dist else ""
    row = PluginModule(
        name=entry_point.name, module=entry_point.value, enabled=is_enabled, package=package, version=version
    )
    if not is_enabled:
        return row
    try:
        entry_point.load()
    except Exception as error:  # any error of a third-party module is reported in its row
        return replace(row, error=f"{type(error).__name__}: {error}", detail=traceback.format_exc())
    return row
