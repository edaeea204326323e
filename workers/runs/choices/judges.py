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

from labeling.models import Annotator
from labeling.records import BoolArray, IntArray
from scoring.judge_terms import panel_terms, seen_candidates
from scoring.numerics.judges.informative import PanelTerms, choose_judges
from workers.budgets.spend import calls_of_options, recent_price
from workers.endpoints.registry import EndpointsInvalid, UnknownEndpoint, get_endpoint
from workers.models import Run

# Tokens (read, written) of a call that a price is estimated for while the judge has made none.
TYPICAL_TOKENS = (800, 60)


def panel_of(run: Run, judges: Sequence[int]) -> PanelTerms | None:
    """The measured terms of these judges; None for a run with another allocation."""
    if run.allocation != Run.Allocation.INFORMATIVE:
        return None
    return panel_terms(run.project, judges, prices(judges))


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
    """The price of a question to each judge, in millionths of a dollar: by its latest calls, or else by its endpoint's price."""
    rows = {pk: (plugin, options) for pk, plugin, options in _annotators(judges)}
    return [_price(judge, *rows[judge]) for judge in judges]


def _annotators(judges: Sequence[int]) -> Any:
    return Annotator.objects.filter(pk__in=judges).values_list("pk", "plugin", "options")


def _price(judge: int, plugin: str, options: dict[str, Any]) -> float:
    calls = calls_of_options(plugin, options)[0]
    _, cost = recent_price(judge)
    if cost is not None:
        return calls * float(cost)
    with contextlib.suppress(KeyError, UnknownEndpoint, EndpointsInvalid):
        endpoint = get_endpoint(options["endpoint"])
        cost_of = endpoint.batch_cost_micros if options.get("delivery") == "batch" else endpoint.cost_micros
        return calls * float(cost_of(*TYPICAL_TOKENS))
    return 0.0
