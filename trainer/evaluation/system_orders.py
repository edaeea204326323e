"""Do two references order the same rerankers alike? The agreement of a split's leaderboards, as TREC measures it.

References are human grades, Elo and LLM grades; `trainer.evaluation.llm_grades` measures against the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from labeling.models import Project
from scoring.models import Snapshot
from scoring.numerics.measures.rankings import Measure
from scoring.numerics.measures.systems import FEWEST_SYSTEMS, OrderAgreement, order_agreement
from trainer.evaluation.dataset import JudgedDocuments
from trainer.evaluation.entries import ELO, JUDGE
from trainer.evaluation.leaderboard import NotEvaluated, judged_documents_of, values_by_reranker
from trainer.evaluation.llm_grades import LlmGraded, NoLlmGrades, values_by_llm_grades
from trainer.evaluation.matching import COVERED
from trainer.evaluation.metrics import METRICS, RESAMPLES, Measured
from trainer.models import Evaluation, Reranker

OrderReference = Literal["grades", "elo", "llm_grades"]
Pair = tuple[OrderReference, OrderReference]
PAIRS: tuple[Pair, ...] = (("grades", "elo"), ("grades", "llm_grades"), ("elo", "llm_grades"))
Missing = Literal["evaluation", "grades", "elo", "llm_grades", "rerankers", "order"]

FEWEST_QUERIES = 5
LEAST_SPREAD = 1e-9
NAMES: Mapping[str, str] = {"grades": "human grades", "elo": "Elo", "llm_grades": "LLM grades"}
REMEDIES: Mapping[str, str] = {
    "grades": "import grades, freeze a snapshot and evaluate again",
    "elo": "judge pairs, freeze a snapshot and evaluate again",
}


class NoSystemOrders(LookupError):
    """Too few rerankers or queries are measured against both references, or one gives all rerankers the same mean; `missing` is what is needed.

    `systems` and `queries` are those that both measure, if `missing` is "rerankers".
    """

    def __init__(self, message: str, *, pair: Pair, missing: Missing, systems: int = 0, queries: int = 0) -> None:
        super().__init__(message)
        self.pair, self.missing, self.systems, self.queries = pair, missing, systems, queries


@dataclass(frozen=True, slots=True)
class SystemOrders:
    """The agreement of two references on the order of the `systems`, by `measure` on the same `queries`.

    `left_out`: rerankers that lack some of these queries. `documents`: how many of the queries' `candidates` each of the
    two references judges. `models`: the language models that gave LLM grades.
    """

    pair: Pair
    agreement: OrderAgreement
    measure: str
    systems: tuple[str, ...]
    left_out: tuple[str, ...]
    queries: int
    candidates: int
    documents: tuple[int, int]
    models: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return Measure.parse(self.measure).label


def system_orders(
    project: Project,
    snapshot: Snapshot,
    split: str,
    *,
    pair: Pair = PAIRS[0],
    measure: str = METRICS[0],
    model: int | None = None,
) -> SystemOrders:
    """Compare the orders of all evaluated rerankers but Elo and the judges, which a reference made of them would favour.

    LLM grades are those of the judge `model`, or the mean of all. Raises NoSystemOrders with fewer than three rerankers or
    five queries that both references measure, or where one gives all rerankers the same mean.
    """
    return _References(project, snapshot, split, measure, model).compared(pair)


def all_system_orders(
    project: Project, snapshot: Snapshot, split: str, *, measure: str = METRICS[0], model: int | None = None
) -> list[SystemOrders | NoSystemOrders]:
    """The comparison of each of PAIRS, or why there is none."""
    references = _References(project, snapshot, split, measure, model)
    found: list[SystemOrders | NoSystemOrders] = []
    for pair in PAIRS:
        try:
            found.append(references.compared(pair))
        except NoSystemOrders as error:
            found.append(error)
    return found


class _References:
    """The values by query against each reference, each read once."""

    def __init__(self, project: Project, snapshot: Snapshot, split: str, measure: str, model: int | None) -> None:
        self._place = (project, snapshot, split)
        self._split, self._measure, self._model = split, measure, model
        self._values: dict[OrderReference, Mapping[Reranker, Measured]] = {}

    def compared(self, pair: Pair) -> SystemOrders:
        if not self._is_evaluated:
            raise NoSystemOrders(
                f"nothing is evaluated on split {self._split!r}; start an evaluation first",
                pair=pair,
                missing="evaluation",
            )
        one, two = (self._of(reference, pair) for reference in pair)
        both = {
            reranker: (own, two[reranker])
            for reranker, own in one.items()
            if reranker in two and reranker.kind not in (ELO, JUDGE)
        }
        shared = {reranker: set(first.query_ids) & set(second.query_ids) for reranker, (first, second) in both.items()}
        kept, queries = _covering(shared)
        if len(kept) < FEWEST_SYSTEMS or len(queries) < FEWEST_QUERIES:
            raise NoSystemOrders(
                f"rerankers with both {NAMES[pair[0]]} and {NAMES[pair[1]]}: {len(kept)}, on queries: {len(queries)}; comparing "
                f"the orders needs {FEWEST_SYSTEMS} rerankers and {FEWEST_QUERIES} queries: evaluate more rerankers, or grade "
                "or judge more queries",
                pair=pair, missing="rerankers", systems=len(kept), queries=len(queries),
            )  # fmt: skip
        first, second = (
            np.array([_column(both[reranker][side], queries, self._measure) for reranker in kept]) for side in (0, 1)
        )
        for reference, values in zip(pair, (first, second), strict=True):
            if np.ptp(values.mean(axis=1)) < LEAST_SPREAD:
                raise NoSystemOrders(
                    f"all {len(kept)} rerankers have the same {Measure.parse(self._measure).label} against {NAMES[reference]}, which orders "
                    "nothing; choose another measure",
                    pair=pair, missing="order", systems=len(kept), queries=len(queries),
                )  # fmt: skip
        return SystemOrders(
            pair=pair,
            agreement=order_agreement(first, second, rng=np.random.default_rng(0), resamples=RESAMPLES),
            measure=self._measure,
            systems=tuple(sorted(each.name for each in kept)),
            left_out=tuple(sorted(each.name for each in both if each not in kept)),
            queries=len(queries),
            candidates=sum(self._judged[query].candidates for query in queries),
            documents=(self._documents(pair[0], queries), self._documents(pair[1], queries)),
            models=self._llm.models if "llm_grades" in pair else (),
        )

    @cached_property
    def _is_evaluated(self) -> bool:
        project, snapshot, split = self._place
        return Evaluation.objects.filter(project=project, snapshot=snapshot, split=split).exists()

    @cached_property
    def _llm_grades(self) -> LlmGraded | NoLlmGrades:
        try:
            return values_by_llm_grades(*self._place, (self._measure,), model=self._model)
        except NoLlmGrades as error:
            return error

    @property
    def _llm(self) -> LlmGraded:
        if isinstance(self._llm_grades, NoLlmGrades):
            raise self._llm_grades
        return self._llm_grades

    @cached_property
    def _judged(self) -> dict[str, JudgedDocuments]:
        _, snapshot, split = self._place
        return judged_documents_of(snapshot, split)

    def _of(self, reference: OrderReference, pair: Pair) -> Mapping[Reranker, Measured]:
        if reference == "llm_grades":
            try:
                return self._llm.values
            except NoLlmGrades as error:
                raise NoSystemOrders(str(error), pair=pair, missing="llm_grades") from error
        if reference not in self._values:
            try:
                self._values[reference] = values_by_reranker(*self._place, reference, (self._measure,))
            except NotEvaluated:
                raise NoSystemOrders(
                    f"nothing is evaluated on split {self._split!r} against {NAMES[reference]}; {REMEDIES[reference]}",
                    pair=pair, missing=reference,
                ) from None  # fmt: skip
        return self._values[reference]

    def _documents(self, reference: OrderReference, queries: list[str]) -> int:
        if reference == "llm_grades":
            return sum(self._llm.graded[query] for query in queries)
        counts = (self._judged[query] for query in queries)
        return sum(each.graded if reference == "grades" else each.compared for each in counts)


def _covering(shared: Mapping[Reranker, set[str]]) -> tuple[list[Reranker], list[str]]:
    """The rerankers that are measured on most of the `shared` queries, and the queries of all of them.

    Most is COVERED of those of the reranker with the largest number; if this leaves too few rerankers or queries, of the
    next one that leaves enough, so that a single reranker with more queries than all others does not exclude them.
    """
    found: list[tuple[list[Reranker], list[str]]] = []
    for most in sorted({len(own) for own in shared.values()} - {0}, reverse=True):
        kept = [reranker for reranker, own in shared.items() if len(own) >= COVERED * most]
        found.append((kept, sorted(set.intersection(*(shared[each] for each in kept)))))
    enough = (each for each in found if len(each[0]) >= FEWEST_SYSTEMS and len(each[1]) >= FEWEST_QUERIES)
    return next(enough, found[0] if found else ([], []))


def _column(measured: Measured, queries: list[str], measure: str) -> list[float]:
    """The values of these queries, rounded as evaluations of earlier versions store them, so that equal references give equal values."""
    values = dict(zip(measured.query_ids, np.round(measured.values[measure], 6).tolist(), strict=True))
    return [values[query] for query in queries]
