"""The judge and the order of each pair of a run with the allocation `informative`.

`workers.runs.advancing` asks what is known of the judges once a round, before its transactions, since votes are read in one of
their own; `workers.runs.planning` then calls `choose` for the pairs of some queries. What is known comes from
`scoring.judge_terms`, what an answer costs from the calls that were paid.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from django.db.models import Count

from labeling.models import Annotator, Candidate
from labeling.records import BoolArray, IntArray
from scoring.judge_terms import panel_terms, seen_candidates
from scoring.numerics.judges.informative import PILOT_ROUNDS, PanelTerms, choose_judges, pilot_queries
from workers.budgets.spend import calls_of_options, price_with_failures
from workers.endpoints.registry import EndpointsInvalid, UnknownEndpoint, get_endpoint
from workers.models import Job, Run

# Tokens (read, written) of a call that a price is estimated for while the judge has made none.
TYPICAL_TOKENS = (800, 60)
# No pilot has more queries than this.
MOST_PILOT = 500


def panel_of(run: Run, judges: Sequence[int]) -> PanelTerms | None:
    """The measured terms of these judges; None for a run with another allocation."""
    if run.allocation != Run.Allocation.INFORMATIVE:
        return None
    return panel_terms(run.project, judges, prices(judges))


def pilot_of(run: Run, queries: Sequence[int], panel: PanelTerms | None) -> list[int]:
    """The queries on which the judges are measured before the run asks about the others, in id order; none where it need not.

    The seed draws them, so that they stand for all of the run's queries.
    """
    if panel is None or run.round >= PILOT_ROUNDS:
        return []
    drawn = np.random.default_rng([run.seed, 2]).permutation(np.array(queries, dtype=np.int64))[:MOST_PILOT]
    counts = dict(
        Candidate.objects.filter(query__in=drawn.tolist()).values_list("query").annotate(count=Count("id")).order_by()
    )
    sizes = np.array([counts.get(query, 0) for query in drawn.tolist()], dtype=np.int64)
    pilot = sorted(drawn[: pilot_queries(panel, sizes)].tolist())
    return pilot if len(pilot) < len(queries) else []


def was_pilot(run: Run) -> bool:
    """Whether the last round asked about a part of the queries, so that this one may be the first of the others."""
    if run.allocation != Run.Allocation.INFORMATIVE:
        return False
    return Job.objects.filter(run=run, payload__round=run.round, payload__pilot__0__isnull=False).exists()


def choose(
    pairs: IntArray,
    judges: Sequence[int],
    panel: PanelTerms,
    rng: np.random.Generator,
    *,
    able: BoolArray | None = None,
) -> tuple[IntArray, IntArray, BoolArray]:
    """(row of `pairs`, index of the judge, swapped) of every question; `pairs` candidate ids int64[m, 2]."""
    candidates, local = np.unique(pairs, return_inverse=True)
    seen = seen_candidates(candidates, judges)
    return choose_judges(local.reshape(-1, 2).astype(np.int64), seen, panel, rng, able=able)


def prices(judges: Sequence[int]) -> list[float]:
    """The price of an answer of each judge, in millionths of a dollar: by its latest calls, or else by its endpoint's price.

    Calls that failed count, so that a judge is dearer the fewer of its paid calls are answered.
    """
    rows = {pk: (plugin, options) for pk, plugin, options in _annotators(judges)}
    return [_price(judge, *rows[judge]) for judge in judges]


def _annotators(judges: Sequence[int]) -> Any:
    return Annotator.objects.filter(pk__in=judges).values_list("pk", "plugin", "options")


def _price(judge: int, plugin: str, options: dict[str, Any]) -> float:
    calls = calls_of_options(plugin, options)[0]
    cost = price_with_failures(judge)
    if cost is not None:
        return calls * cost
    with contextlib.suppress(KeyError, UnknownEndpoint, EndpointsInvalid):
        endpoint = get_endpoint(options["endpoint"])
        cost_of = endpoint.batch_cost_micros if options.get("delivery") == "batch" else endpoint.cost_micros
        return calls * float(cost_of(*TYPICAL_TOKENS))
    return 0.0
