"""The gate before publishing: a student must not rank worse than its untrained base or the first stage.

The training process compares them on the splits dev and test, against human grades where most queries have them and against
Elo elsewhere. A difference counts only if its 95 % interval excludes zero and the sign-flip test agrees. Where neither split has
enough queries for that test, both together may; where these are too few as well, the student must not be worse on each of them.
`workers.jobs.training` reads the result. Imports no Django.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from labeling.records import Examples
from labeling.stored_texts import counted
from scoring.numerics.measures.resampling import Interval
from trainer.bases import Base
from trainer.evaluation.dataset import read_queries
from trainer.evaluation.metrics import (
    EvaluationQuery,
    NothingToMeasure,
    Reference,
    difference,
    measurable,
    measure,
)
from trainer.evaluation.model_orders import student_order, untrained_order
from trainer.evaluation.rankers import FirstStage, Order
from trainer.examples import drawn_queries

Rival = Literal["base", "first_stage"]
SPLITS = ("dev", "test")
MOST_ROWS = 4000
SIGNIFICANT = 0.05
FEWEST_QUERIES = 6  # of a sign-flip test that can find a p below .05
FEWEST_WITHOUT_TEST = 2  # one query is worse in every other case
TOGETHER = "dev + test"
FEW_QUERIES = 100
CLOSE_LABELS = 0.1


@dataclass(frozen=True, slots=True)
class GateRow:
    """The paired comparison with one rival on one split: NDCG@10 of both, their difference with its 95 % interval.

    `each_worse`: there are too few queries for a test, and the student is worse on each of them.
    """

    split: str
    reference: str
    rival: Rival
    queries: int
    student: float
    other: float
    difference: float
    low: float
    high: float
    p_value: float
    each_worse: bool

    @property
    def is_worse(self) -> bool:
        return bool(self.high < 0.0 and self.p_value < SIGNIFICANT) or self.each_worse


def hold_at_gate(rows_file: Path, published: Path, *, base: Base, train: Examples) -> dict[str, Any]:
    """The gate's result as plain values: `held_back`, `comparisons` and the likely `reasons` (names of `reasons_of`)."""
    student, untrained = student_order(published), untrained_order(base)
    return result_of(compared_on_all(rows_file, student=student, untrained=untrained), train)


def compared_on_all(rows_file: Path, *, student: Order, untrained: Order) -> list[GateRow]:
    """The comparisons on each split, and on both together where each has fewer than FEWEST_QUERIES."""
    rows = [row for split in SPLITS for row in compared(rows_file, split, student=student, untrained=untrained)]
    is_small = all(row.queries < FEWEST_QUERIES for row in rows)
    if is_small and len({row.split for row in rows}) == 1:
        return rows
    # What all queries say counts, not what a part of them says.
    rows = [replace(row, each_worse=False) for row in rows]
    if is_small and rows:
        rows += compared(rows_file, TOGETHER, student=student, untrained=untrained)
    return rows


def result_of(rows: Sequence[GateRow], train: Examples) -> dict[str, Any]:
    """The plain values that are stored."""
    held_back = any(row.is_worse for row in rows)
    return {
        "held_back": held_back,
        "comparisons": [{**asdict(row), "worse": row.is_worse} for row in rows],
        "reasons": reasons_of(rows, train) if held_back else [],
    }


def interval_of(figures: Mapping[str, Any], estimate: float) -> Interval:
    """The 95 % interval of a stored comparison or of stored figures of pairs."""
    return Interval(estimate, figures["low"], figures["high"], 0.95, figures["queries"])


def shown_gate(gate: Mapping[str, Any]) -> dict[str, Any]:
    """A stored result for readers: low and high are None, and `no_interval` is the reason, where there is no interval."""
    found = dict(gate)
    if "comparisons" in gate:
        found["comparisons"] = [_with_interval(each, each["difference"]) for each in gate["comparisons"]]
    if gate.get("pairs"):
        found["pairs"] = _with_interval(gate["pairs"], gate["pairs"]["log_loss"])
    return found


def _with_interval(figures: Mapping[str, Any], estimate: float) -> dict[str, Any]:
    own = interval_of(figures, estimate).shown()
    return {**figures, **{name: own[name] for name in ("low", "high", "no_interval")}}


def held_back_reason(gate: Mapping[str, Any]) -> str:
    """An English sentence that says what the gate of a held-back run found."""
    if gate.get("start_won"):
        return "no checkpoint ranks better than the student from which it continued, so nothing is published"
    if gate.get("base_won"):
        return f"no checkpoint ranks better than the untrained base, so nothing is published{_best_of(gate.get('facts', {}))}"
    names = {"base": "the untrained base", "first_stage": "the first stage"}
    found = [_lost_to(each, names) for each in gate.get("comparisons", []) if each["worse"]]
    if not found:
        return "its log-loss on held-out pairs is not below .693 by more than chance, that of one half for every pair"
    if gate.get("pairs"):
        return f"it judges worse by more than chance, log-loss {'; '.join(found)}"
    if is_worse_on_each(gate):
        return f"it ranks each held-out query worse, NDCG@10 {'; '.join(found)}"
    return f"it ranks worse by more than chance, NDCG@10 {'; '.join(found)}"


def is_worse_on_each(gate: Mapping[str, Any]) -> bool:
    """Whether a stored result holds a student back for that alone: too few queries for a test, each of them ranked worse."""
    worse = [each for each in gate.get("comparisons", []) if each["worse"]]
    return bool(worse) and all(each.get("each_worse", False) for each in worse)


def _lost_to(each: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """A stored comparison that the student lost, in words."""
    queries = counted(each["queries"], f"{each['split']} query", f"{each['split']} queries")
    return (
        f"{each['student']:.3f} against {each['other']:.3f} of {names[each['rival']]} on {queries} "
        f"({each['difference']:+z.3f}, {_in_words(interval_of(each, each['difference']))})"
    )


def _in_words(own: Interval) -> str:
    return f"no interval: {own.unknown}" if own.unknown else f"95 % interval {own.low:+z.3f} to {own.high:+z.3f}"


def _best_of(facts: Mapping[str, Any]) -> str:
    """The figures of the best checkpoint that was not sure enough, where a training tells them."""
    if not facts.get("best_gain_stderr"):
        return ""
    return (
        f" (on {counted(facts['held_out_queries'], 'held-out query', 'held-out queries')} the best one has {facts['best_gain']:+z.3f} NDCG@10, standard error "
        f"{facts['best_gain_stderr']:.3f})"
    )


def compared(rows_file: Path, split: str, *, student: Order, untrained: Order) -> list[GateRow]:
    """The student against each rival on queries of a split, or of both TOGETHER, that the rival ranks; none where nothing can be measured."""
    try:
        queries, reference = _queries(rows_file, split)
    except NothingToMeasure:
        return []
    values = {name: order.scores(queries, _silent) for name, order in (("student", student), ("base", untrained))}
    rivals: Mapping[Rival, Any] = {"base": values["base"], "first_stage": FirstStage().scores(queries, _silent)}
    rows = []
    for name, scores in rivals.items():
        # A query that was added without ranks does not hide the first stage's order of the others.
        known = [at for at, each in enumerate(scores) if np.isfinite(each).any()]
        shared = [queries[at] for at in known]
        if not any(query.says(reference) for query in shared):
            continue
        own = measure(shared, [values["student"][at] for at in known], reference)
        other = measure(shared, [scores[at] for at in known], reference)
        test = difference(own, other)
        assert test is not None  # the same queries
        is_few = FEWEST_WITHOUT_TEST <= len(shared) < FEWEST_QUERIES
        rows.append(
            GateRow(
                split=split,
                reference=reference,
                rival=name,
                queries=len(shared),
                student=float(own.values["ndcg@10"].mean()),
                other=float(other.values["ndcg@10"].mean()),
                difference=test.difference.estimate,
                low=test.difference.low,
                high=test.difference.high,
                p_value=test.p_value,
                each_worse=is_few and bool((own.values["ndcg@10"] < other.values["ndcg@10"]).all()),
            )
        )
    return rows


def reasons_of(rows: Sequence[GateRow], train: Examples) -> list[str]:
    """Why a student may have lost: `few_queries`, `close_labels`, `good_base`, `good_first_stage`."""
    found = []
    if len(set(train.query_ids.tolist())) < FEW_QUERIES:
        found.append("few_queries")
    if float(train.labels.std()) < CLOSE_LABELS:
        found.append("close_labels")
    worse = {row.rival for row in rows if row.is_worse}
    return found + [f"good_{rival}" for rival in ("base", "first_stage") if rival in worse]


def _queries(rows_file: Path, split: str) -> tuple[list[EvaluationQuery], Reference]:
    """Random queries of at most MOST_ROWS rows, and the reference that most of them have. Raises NothingToMeasure."""
    splits = SPLITS if split == TOGETHER else (split,)
    found = [query for each in splits for query in read_queries(rows_file, each, name=rows_file.name)]
    sizes = np.array([len(query.documents) for query in found])
    kept = [found[at] for at in drawn_queries(sizes, MOST_ROWS).tolist()]
    graded = [query for query in kept if query.says("grades")]
    judged = [query for query in kept if query.says("elo")]
    reference: Reference = "grades" if graded and 2 * len(graded) >= len(judged) else "elo"
    return measurable(kept, reference), reference


def _silent(done: int, total: int) -> None:
    pass
