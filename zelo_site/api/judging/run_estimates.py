"""REST of the estimate of a run before it starts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pydantic
from django.http import HttpRequest
from ninja import Router, Schema
from ninja.errors import HttpError

from labeling.access.api_auth import owned_project_or_404
from labeling.plugins import UnknownPlugin, get_plugin
from workers.budgets.limits import Budgets
from workers.runs.cascade import DEFAULT_THRESHOLD
from workers.runs.choices.queries import NoQueryChosen, choose_queries
from workers.runs.estimate import ChosenJudge, estimate_run, limits_before_their_end
from zelo_site.api.runs import JudgeIn, RunIn

router = Router(tags=["runs"])


class JudgeEstimateOut(Schema):
    """See workers.runs.estimate.JudgeEstimate. Costs in millionths of a dollar; `seconds` null: speed unknown."""

    label: str
    calls: int
    most_calls: int
    tokens: int
    most_tokens: int
    cost_micros: int
    most_cost_micros: int
    seconds: float | None
    is_measured: bool
    gpu_hours: float | None
    is_priced: bool


class LimitAheadOut(Schema):
    """A cap of the project or a limit of the operator that leaves less than the run may need (`most`); see
    workers.budgets.ahead.LimitAhead. `unit`: calls, tokens or cost_micros; `waits`: the run would continue the next day.
    """

    reason: str
    unit: str
    limit: int
    left: int
    expected: int
    most: int
    waits: bool
    is_expected: bool


class RunEstimateOut(Schema):
    """Pairs and calls are upper bounds within the budgets; tokens and cost have an expected figure and a bound (`most_`).
    `paper_calls`: three judges on four pairs a candidate.
    """

    queries: int
    pairs: int
    calls: int
    most_calls: int
    tokens: int
    most_tokens: int
    cost_micros: int
    most_cost_micros: int
    seconds: float | None
    gpu_hours: float | None
    paper_calls: int
    judges: list[JudgeEstimateOut]
    limits: list[LimitAheadOut]


@router.post("/projects/{slug}/runs/estimate", response=RunEstimateOut)
def post_estimate(request: HttpRequest, slug: str, body: RunIn) -> Any:
    """Estimate the questions, time and cost of a run; stores nothing and calls no judge. A cascade's first judge comes first."""
    project = owned_project_or_404(request, slug)
    budgets = Budgets(
        pairs=body.pair_budget, calls=body.call_budget, tokens=body.token_budget, cost_micros=body.cost_budget_micros
    )
    try:
        chosen = [_chosen(judge) for judge in body.judges]
        found = estimate_run(
            project,
            chosen,
            sampler=body.sampler,
            sampler_options=body.sampler_options,
            allocation=body.allocation,
            orders=body.orders,
            budgets=budgets,
            cascade_threshold=DEFAULT_THRESHOLD if body.cascade_threshold is None else body.cascade_threshold,
            query_ids=choose_queries(project, body.queries.choice, among=body.query_ids)
            if body.queries
            else body.query_ids,
        )
    except (NoQueryChosen, UnknownPlugin, pydantic.ValidationError) as error:
        raise HttpError(422, str(error)) from error
    return {**asdict(found), "limits": limits_before_their_end(project, chosen, [found])}


def _chosen(judge: JudgeIn) -> ChosenJudge:
    """The judge with checked options. Raises UnknownPlugin, pydantic.ValidationError."""
    plugin = get_plugin("judge", judge.plugin)
    plugin.from_dict(judge.options)
    return ChosenJudge(plugin, judge.options)
