"""The conformance suite of plugins: `check_plugin` lists how a class breaks its contract.

Third parties run it in their own tests (`assert_plugin(MyJudge)`); our tests run it on all built-in
plugins. It uses only the public interface and small made-up data, and imports no Django.
"""

from __future__ import annotations

import copy
import inspect
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from labeling.importing.format_checks import check_exporter, check_importer
from labeling.plugins import KINDS, Judge, Options, Plugin, Rater, Retriever, Sampler
from labeling.records import (
    Comparison,
    ComparisonColumns,
    Failure,
    Fit,
    IntArray,
    QueryState,
    TextRecord,
    Verdict,
)

_NAME = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*")
_TOLERANCE = 1e-4


class NonconformingPlugin(AssertionError):
    """A plugin breaks its contract; the message lists the violations."""


def check_plugin(
    plugin: type[Plugin], *, options: Mapping[str, Any] | None = None, example: bytes | None = None
) -> list[str]:
    """The violations of the contract by `plugin`, one sentence each; empty if there are none.

    `options` replace the defaults. `example` is a small valid file of an importer; the default is the
    class's attribute `example`. Without either, the check tries only invalid input. A trainer gets only
    checks of name, label and options, since training takes long.
    """
    violations = _collect("class", lambda: _check_class(plugin))
    if violations:
        return violations
    violations += _collect("Options", lambda: _check_options(plugin, options))

    def make() -> Any:
        return plugin.from_dict(dict(options or {}))

    checks: dict[str, Callable[[], Iterator[str]]] = {
        "importer": lambda: check_importer(make, getattr(plugin, "example", b"") if example is None else example),
        "exporter": lambda: check_exporter(make),
        "sampler": lambda: _check_sampler(make),
        "judge": lambda: _check_judge(make),
        "rater": lambda: _check_rater(make),
        "retriever": lambda: _check_retriever(make),
    }
    if plugin.kind in checks:
        violations += _collect(plugin.kind, checks[plugin.kind])
    return violations


def assert_plugin(
    plugin: type[Plugin], *, options: Mapping[str, Any] | None = None, example: bytes | None = None
) -> None:
    """Raise NonconformingPlugin if the plugin violates its contract."""
    violations = check_plugin(plugin, options=options, example=example)
    if violations:
        raise NonconformingPlugin("\n".join([f"{plugin.__qualname__} breaks its contract:", *violations]))


def _collect(area: str, check: Callable[[], Iterator[str]]) -> list[str]:
    """All violations of one check; an exception counts as one, and ends the check."""
    found: list[str] = []
    try:
        for violation in check():
            found.append(f"{area}: {violation}")
    except Exception as error:  # any error of a third-party class is a violation
        found.append(f"{area}: raised {type(error).__name__}: {error}")
    return found


# --- all kinds ---------------------------------------------------------------------------


def _check_class(plugin: type[Plugin]) -> Iterator[str]:
    if not (inspect.isclass(plugin) and issubclass(plugin, Plugin)):
        yield f"{plugin!r} is not a subclass of labeling.plugins.Plugin"
        return
    if plugin.kind not in KINDS or not issubclass(plugin, KINDS[plugin.kind]):
        yield f"kind is {plugin.kind!r}; subclass one of the contracts and do not set kind"
    if not _NAME.fullmatch(plugin.name) or len(plugin.name) > 80:
        yield f"name is {plugin.name!r}; expected up to 80 lower-case letters and digits, words joined by - or _"
    if not plugin.label.strip():
        yield "label is empty; set the name that people read"
    if not (plugin.__doc__ or "").strip():
        yield "it has no docstring; say what it does"
    if missing := sorted(plugin.__abstractmethods__):
        yield f"it lacks {', '.join(missing)}"


def _check_options(plugin: type[Plugin], given: Mapping[str, Any] | None) -> Iterator[str]:
    model = plugin.Options
    if not issubclass(model, Options):
        yield "must subclass labeling.plugins.Options"
        return
    if not model.model_config.get("frozen"):
        yield "must be frozen because they are part of the provenance"
    if model.model_config.get("extra") != "forbid":
        yield "must forbid unknown fields; otherwise a misspelt option is silently ignored"
    made = model.model_validate(dict(given or {}))
    json.dumps(model.model_json_schema(), allow_nan=False)
    stored = json.loads(json.dumps(made.model_dump(mode="json"), allow_nan=False))
    if model.model_validate(stored) != made:
        yield "change when they are stored as JSON and read back"


# --- sampler -----------------------------------------------------------------------------


def _state(size: int, pairs: IntArray, *, rated: bool) -> QueryState:
    state: dict[str, Any] = {"size": size, "pairs": pairs, "first_stage_rank": np.arange(1, size + 1, dtype=np.int64)}
    if rated:
        theta = np.linspace(1.0, -1.0, size) if size else np.zeros(0)
        preference = 1.0 / (1.0 + np.exp(theta[pairs[:, 1]] - theta[pairs[:, 0]]))
        state |= {"theta": theta, "preference": preference, "weight": np.ones(len(pairs))}
    return QueryState(**state)


def _check_sampler(make: Callable[[], Sampler]) -> Iterator[str]:
    nothing = np.zeros((0, 2), dtype=np.int64)
    for size, budget in ((0, 5), (1, 5), (2, 5), (3, 100), (9, 7), (40, 400), (40, 0)):
        state = _state(size, nothing, rated=False)
        first = make().sample(state, budget, np.random.default_rng(1))
        where = f"{size} candidates, budget {budget}: "
        yield from (where + violation for violation in _bad_pairs(first, state, budget))
        if not np.array_equal(first, make().sample(state, budget, np.random.default_rng(1))):
            yield where + "the same seed gives two different designs"
    yield from _ends(make)


def _bad_pairs(pairs: Any, state: QueryState, budget: int) -> Iterator[str]:
    if not isinstance(pairs, np.ndarray) or pairs.dtype != np.int64 or pairs.ndim != 2 or pairs.shape[1] != 2:
        yield f"expected int64[m, 2], got {getattr(pairs, 'dtype', type(pairs))} {getattr(pairs, 'shape', '')}"
        return
    if len(pairs) > budget:
        yield f"{len(pairs)} pairs exceed the budget"
    if len(pairs) and (pairs.min() < 0 or pairs.max() >= state.size):
        yield "a pair is outside of 0 .. size - 1"
    if not np.all(pairs[:, 0] < pairs[:, 1]):
        yield "a pair has a >= b"
    rows = [tuple(row) for row in pairs.tolist()]
    if len(set(rows)) < len(rows):
        yield "a pair occurs twice"
    if set(rows) & {tuple(row) for row in state.pairs.tolist()}:
        yield "a pair was already drawn"


def _ends(make: Callable[[], Sampler], size: int = 12, budget: int = 10) -> Iterator[str]:
    """Check that a sampler ends after some rounds: there are 66 pairs in all."""
    sampler, rng = make(), np.random.default_rng(2)
    pairs = np.zeros((0, 2), dtype=np.int64)
    for round_number in range(size * size):
        state = _state(size, pairs, rated=round_number > 0)
        before = copy.deepcopy(state.pairs)
        drawn = sampler.sample(state, budget, rng)
        if not np.array_equal(before, state.pairs):
            yield "it modifies its input state"
        found = [f"round {round_number + 1}: {violation}" for violation in _bad_pairs(drawn, state, budget)]
        yield from found
        if found or not len(drawn):
            return
        pairs = np.concatenate([pairs, drawn])
    yield "it never stops"


# --- judge -------------------------------------------------------------------------------


class _Ponds:
    """A collection of two queries over a few texts, including empty and unusual ones."""

    texts = (
        "Goldfish grow as long as they live, given clean water.",
        "Bread is baked from flour, water and salt.",
        "",
        " \n",
        "?!",
        "goldfish " * 400,
        "goldfish",
    )

    def documents(self) -> Iterator[TextRecord]:
        yield from (TextRecord(position, text) for position, text in enumerate(self.texts, start=1))

    def candidates(self, query_id: int) -> Sequence[TextRecord]:
        return list(self.documents())

    def query(self, query_id: int) -> TextRecord:
        return TextRecord(query_id, {1: "do goldfish grow", 2: "what is bread made of"}[query_id])

    def named_documents(self, names: Sequence[str]) -> Mapping[str, TextRecord]:
        return {str(each.id): each for each in self.documents() if str(each.id) in names}

    def named_queries(self, names: Sequence[str]) -> Mapping[str, TextRecord]:
        return {name: self.query(int(name)) for name in names if name in ("1", "2")}


def _comparisons(collection: _Ponds) -> list[Comparison]:
    documents = list(collection.documents())
    first, second = collection.query(1), collection.query(2)
    questions = [(first, first, a, b) for a in documents for b in documents if a.id < b.id]
    questions += [(first, second, documents[0], documents[1]), (second, first, documents[1], documents[5])]
    return [
        Comparison(key=key, query_a=query_a, query_b=query_b, a=a, b=b, swapped=bool(key % 2))
        for key, (query_a, query_b, a, b) in enumerate(questions)
    ]


def _check_judge(make: Callable[[], Judge]) -> Iterator[str]:
    judge, collection = make(), _Ponds()
    if judge.batch_size < 1:
        yield f"batch_size is {judge.batch_size}; expected 1 or more"
    if judge.resource not in ("cpu", "gpu", "http"):
        yield f"resource is {judge.resource!r}; expected cpu, gpu or http"
    judge.prepare(collection)
    if judge.judge([]) != []:
        yield "an empty list of comparisons must give no answers"
    questions = _comparisons(collection)
    answers = judge.judge(questions)
    if not isinstance(answers, list) or len(answers) != len(questions):
        yield f"{len(questions)} comparisons give {len(answers)} answers"
        return
    if strange := {type(answer).__name__ for answer in answers if not isinstance(answer, Verdict | Failure)}:
        yield f"answers are {', '.join(sorted(strange))}; expected Verdict or Failure"
        return
    if _alike(answers, judge.judge(questions)) and not _alike(answers, judge.judge(questions[::-1])[::-1]):
        yield "answers are not in the order of the questions"
    turned = judge.judge(
        [
            Comparison(key=q.key, query_a=q.query_a, query_b=q.query_b, a=q.a, b=q.b, swapped=not q.swapped)
            for q in questions
        ]
    )
    if [type(answer) for answer in turned] != [type(answer) for answer in answers]:
        yield "the order of presentation decides whether there is an answer"


def _alike(left: Sequence[Verdict | Failure], right: Sequence[Verdict | Failure]) -> bool:
    """Return whether the answers are equal within single precision, which batching may change."""
    return len(left) == len(right) and all(_same(one, other) for one, other in zip(left, right, strict=True))


def _same(one: Verdict | Failure, other: Verdict | Failure) -> bool:
    if isinstance(one, Verdict) and isinstance(other, Verdict) and one.kind is other.kind:
        return one.preference == other.preference or abs((one.preference or 0) - (other.preference or 0)) < 1e-3
    return isinstance(one, Failure) and isinstance(other, Failure) and one.kind is other.kind


# --- rater -------------------------------------------------------------------------------


def _votes(seed: int = 3, sizes: tuple[int, ...] = (2, 6, 9)) -> ComparisonColumns:
    """Return soft votes of two judges on three queries with connected graphs; strengths fall with the index."""
    rng = np.random.default_rng(seed)
    pairs = [np.array([(a, b) for a in range(n) for b in range(a + 1, n)], dtype=np.int64) for n in sizes]
    pairs = [np.repeat(of_query, 2, axis=0) for of_query in pairs]
    a, b = np.concatenate(pairs).T
    return ComparisonColumns(
        a=a.copy(),
        b=b.copy(),
        preference=1.0 / (1.0 + np.exp(-(0.4 * (b - a) + rng.normal(0.0, 0.4, len(a))))),
        weight=np.ones(len(a)),
        judge=np.arange(len(a), dtype=np.int64) % 2,
        swapped=rng.random(len(a)) < 0.5,
        offsets=np.cumsum([0, *(len(of_query) for of_query in pairs)]).astype(np.int64),
        sizes=np.array(sizes, dtype=np.int64),
    )


def _with(columns: ComparisonColumns, **changed: Any) -> ComparisonColumns:
    return ComparisonColumns(**{name: changed.get(name, getattr(columns, name)) for name in columns.__slots__})


def _check_rater(make: Callable[[], Rater]) -> Iterator[str]:
    votes = _votes()
    fit = make().rate(votes)
    total = int(votes.sizes.sum())
    found = list(_bad_fit(fit, votes, total))
    yield from found
    if found:
        return
    for query in range(votes.queries):
        theta = fit.theta[fit.starts[query] : fit.starts[query + 1]]
        if abs(theta.mean()) > _TOLERANCE:
            yield f"strengths of query {query} have the mean {theta.mean():.3g}; expected 0"
        if len(theta) > 2 and theta[0] <= theta[-1]:
            yield f"in query {query} the winning document is not ranked above the losing one"
    turned = _with(votes, a=votes.b, b=votes.a, preference=1.0 - votes.preference, swapped=~votes.swapped)
    yield from _differs(make, turned, fit.theta, "exchanging the two sides of every pair")
    reverse = _with(votes, preference=1.0 - votes.preference, swapped=~votes.swapped)
    yield from _differs(make, reverse, -fit.theta, "reversing every vote does not reverse the strengths: it")
    order = np.concatenate([np.arange(votes.offsets[q], votes.offsets[q + 1])[::-1] for q in range(votes.queries)])
    shuffled = {name: getattr(votes, name)[order] for name in ("a", "b", "preference", "weight", "judge", "swapped")}
    yield from _differs(make, _with(votes, **shuffled), fit.theta, "a different order of the votes")


def _bad_fit(fit: Fit, votes: ComparisonColumns, total: int) -> Iterator[str]:
    if list(fit.starts) != [0, *np.cumsum(votes.sizes)]:
        yield f"starts is {list(fit.starts)}; expected the start of each query's candidates and the total"
    for name in ("theta", "stderr", "component", "comparisons", "undefeated", "winless"):
        if np.shape(getattr(fit, name)) != (total,):
            yield f"{name} has the shape {np.shape(getattr(fit, name))}; expected ({total},), one per candidate"
    for name in ("dispersion", "gradient_norm", "iterations"):
        if np.shape(getattr(fit, name)) != (votes.queries,):
            yield f"{name} has the shape {np.shape(getattr(fit, name))}; expected ({votes.queries},), one per query"
    for name in ("theta", "stderr", "dispersion", "gradient_norm"):
        if not np.all(np.isfinite(getattr(fit, name))):
            yield f"{name} contains a value that is not finite"
    if np.any(np.asarray(fit.stderr) < 0.0):
        yield "a standard error is negative"
    if not (math.isfinite(fit.logit_scale) and fit.logit_scale > 0.0):
        yield f"logit_scale is {fit.logit_scale}; expected a positive factor from strengths to logits"


def _differs(make: Callable[[], Rater], votes: ComparisonColumns, expected: Any, what: str) -> Iterator[str]:
    difference = float(np.max(np.abs(make().rate(votes).theta - expected)))
    if not difference <= _TOLERANCE:
        yield f"{what} changes a strength by {difference:.3g}"


# --- retriever ---------------------------------------------------------------------------


def _check_retriever(make: Callable[[], Retriever]) -> Iterator[str]:
    documents = [TextRecord(10 + position, text) for position, text in enumerate(_Ponds.texts)]
    documents += [TextRecord(90, documents[0].text), TextRecord(4, documents[0].text)]
    queries = [TextRecord(1, "do goldfish grow"), TextRecord(2, "what is bread made of"), TextRecord(3, "?!")]
    ids = {document.id for document in documents}
    for k in (1, 3, 100):
        rankings = make().retrieve(queries, documents, k)
        if len(rankings) != len(queries):
            yield f"{len(queries)} queries give {len(rankings)} rankings"
            return
        for ranking in rankings:
            yield from (f"k = {k}: {violation}" for violation in _bad_ranking(ranking, ids, k))
        if rankings != make().retrieve(queries, documents, k):
            yield f"k = {k}: the same question gives a different ranking the second time"
    if make().retrieve([], documents, 3) != []:
        yield "an empty list of queries must give no rankings"
    if make().retrieve(queries[:1], [], 3) != [[]]:
        yield "an empty collection must give an empty ranking"


def _bad_ranking(ranking: list[tuple[int, float]], ids: set[int], k: int) -> Iterator[str]:
    found = [identifier for identifier, _ in ranking]
    if len(found) > k:
        yield f"{len(found)} documents for one query"
    if len(set(found)) < len(found) or not set(found) <= ids:
        yield "a document occurs twice or is not in the collection"
    if not all(math.isfinite(score) for _, score in ranking):
        yield "a score is not finite"
    keys = [(-score, identifier) for identifier, score in ranking]
    if keys != sorted(keys):
        yield "not sorted best first with ties by document id"
