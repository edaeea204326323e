"""Do Elo and human grades order the same rankers alike? The agreement of a split's leaderboards, as TREC measures it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labeling.models import Project
from scoring.models import Snapshot
from scoring.numerics.measures.rankings import Measure
from scoring.numerics.measures.systems import FEWEST_SYSTEMS, OrderAgreement, order_agreement
from trainer.evaluation.entries import ELO, JUDGE
from trainer.evaluation.leaderboard import NotEvaluated, values_by_reranker
from trainer.evaluation.metrics import METRICS, RESAMPLES, Measured

FEWEST_QUERIES = 5
COVERED = 0.9  # a ranker with a smaller share of the queries, such as a judge of one project, is left out


class NoSystemOrders(LookupError):
    """Too few rankers or queries are measured against both references."""


@dataclass(frozen=True, slots=True)
class SystemOrders:
    """The agreement of Elo's order of the `systems` with that of human grades, by `measure` on the same `queries`.

    `left_out`: rankers that lack some of these queries.
    """

    agreement: OrderAgreement
    measure: str
    systems: tuple[str, ...]
    left_out: tuple[str, ...]
    queries: int

    @property
    def label(self) -> str:
        return Measure.parse(self.measure).label


def system_orders(project: Project, snapshot: Snapshot, split: str, *, measure: str = METRICS[0]) -> SystemOrders:
    """Compare the orders of all evaluated rankers but Elo and the judges, which the reference made of them would favour.

    Raises NoSystemOrders with fewer than three rankers or five queries that both references measure.
    """
    try:
        grades = values_by_reranker(project, snapshot, split, "grades", (measure,))
        elo = values_by_reranker(project, snapshot, split, "elo", (measure,))
    except NotEvaluated as error:
        raise NoSystemOrders(str(error)) from error
    both = {
        reranker: (own, elo[reranker])
        for reranker, own in grades.items()
        if reranker in elo and reranker.kind not in (ELO, JUDGE)
    }
    shared = {reranker: set(one.query_ids) & set(two.query_ids) for reranker, (one, two) in both.items()}
    most = max((len(own) for own in shared.values()), default=0)
    kept = [reranker for reranker, own in shared.items() if len(own) >= COVERED * most]
    queries = set.intersection(*(shared[each] for each in kept)) if kept else set()
    if len(kept) < FEWEST_SYSTEMS or len(queries) < FEWEST_QUERIES:
        raise NoSystemOrders(
            f"{len(kept)} rankers on {len(queries)} queries with human grades and Elo; comparing the orders needs "
            f"{FEWEST_SYSTEMS} rankers and {FEWEST_QUERIES} queries: evaluate more rankers, or import grades"
        )
    order = sorted(queries)
    first, second = (np.array([_column(both[reranker][side], order, measure) for reranker in kept]) for side in (0, 1))
    found = order_agreement(first, second, rng=np.random.default_rng(0), resamples=RESAMPLES)
    return SystemOrders(
        agreement=found,
        measure=measure,
        systems=tuple(sorted(each.name for each in kept)),
        left_out=tuple(sorted(each.name for each in both if each not in kept)),
        queries=len(order),
    )


def _column(measured: Measured, order: list[str], measure: str) -> list[float]:
    values = dict(zip(measured.query_ids, measured.values[measure].tolist(), strict=True))
    return [values[query] for query in order]
