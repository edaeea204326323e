"""What a run would take, before it is started: pairs, calls, tokens, money, minutes. Stores nothing.

The pairs are counted by asking the sampler itself about one query of each size; speed and tokens
come from the books of earlier calls where there are any.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from django.db.models import Avg, Count, Max, Min
from django.db.models.functions import Length

from labeling.models import Candidate, Project
from labeling.plugins import Plugin, Sampler, get_plugin
from labeling.records import QueryState
from workers.judges.endpoints import EndpointsInvalid, UnknownEndpoint, get_endpoint
from workers.models import Attempt, Run

CHARACTERS_PER_TOKEN = 4
PROMPT_TOKENS = 200
ANSWER_TOKENS = {"reasoned": 120}
# Judges on this machine, answers a second on one core, where no call has been booked yet.
LOCAL_RATE = 300.0
RECENT_CALLS = 2000


@dataclass(frozen=True, slots=True)
class ChosenJudge:
    """A judge plugin with the options that a form gave it."""

    plugin: type[Plugin]
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class JudgeEstimate:
    """`seconds` None: nobody knows yet how fast this judge answers. Tokens are 0 for local judges."""

    label: str
    calls: int
    tokens: int
    cost_micros: int
    seconds: float | None
    is_measured: bool


@dataclass(frozen=True, slots=True)
class Estimate:
    """Upper bounds: what has been answered already is not asked again."""

    queries: int
    pairs: int
    calls: int
    tokens: int
    cost_micros: int
    seconds: float | None
    judges: list[JudgeEstimate]


def estimate_run(
    project: Project,
    judges: Sequence[ChosenJudge],
    *,
    sampler: str,
    sampler_options: dict[str, Any],
    allocation: str,
    orders: str,
    pair_budget: int | None,
) -> Estimate:
    """What ordering this run would take."""
    sizes = _sizes(project)
    chosen = cast(Sampler, get_plugin("sampler", sampler).from_dict(sampler_options))
    pairs = _pairs(chosen, sizes)
    if pair_budget is not None:
        pairs = min(pairs, pair_budget)
    calls = pairs * (2 if orders == Run.Orders.BOTH else 1)
    if allocation == Run.Allocation.ROTATE:
        calls = math.ceil(calls / max(1, len(judges)))
    words = _mean_tokens(project)
    each = [_of_judge(judge, calls, words) for judge in judges]
    known = [judge.seconds for judge in each]
    return Estimate(
        queries=sum(sizes.values()),
        pairs=pairs,
        calls=sum(judge.calls for judge in each),
        tokens=sum(judge.tokens for judge in each),
        cost_micros=sum(judge.cost_micros for judge in each),
        seconds=None if None in known else sum(seconds for seconds in known if seconds is not None),
        judges=each,
    )


def _sizes(project: Project) -> Counter[int]:
    """How many queries have how many candidates, those with two or more."""
    rows = Candidate.objects.filter(query__project=project).order_by().values("query_id").annotate(n=Count("pk"))
    return Counter(n for n in rows.values_list("n", flat=True) if n >= 2)


def _pairs(sampler: Sampler, sizes: Counter[int]) -> int:
    """Pairs of the whole design; for a sampler that goes by rounds, those of its first."""
    rng = np.random.default_rng(0)
    most = np.iinfo(np.int32).max
    total = 0
    for size, queries in sizes.items():
        state = QueryState(
            size=size, pairs=np.empty((0, 2), dtype=np.int64), first_stage_rank=np.zeros(size, dtype=np.int64)
        )
        total += queries * len(sampler.sample(state, most, rng))
    return total


def _mean_tokens(project: Project) -> float:
    """Tokens of a query and two documents, from their mean lengths."""
    means = Candidate.objects.filter(query__project=project).aggregate(
        document=Avg(Length("document__text")), query=Avg(Length("query__text"))
    )
    return float(2 * (means["document"] or 0) + (means["query"] or 0)) / CHARACTERS_PER_TOKEN


def _of_judge(judge: ChosenJudge, calls: int, mean_tokens: float) -> JudgeEstimate:
    calls *= _calls_per_comparison(judge)
    is_remote = "endpoint" in judge.options
    rate = _measured_rate(judge.plugin.name)
    tokens_read = calls * (PROMPT_TOKENS + _cut(mean_tokens, judge.options)) if is_remote else 0
    tokens_written = calls * ANSWER_TOKENS.get(str(judge.options.get("mode", "")), 1) if is_remote else 0
    speed = rate or (None if is_remote else LOCAL_RATE)
    return JudgeEstimate(
        label=judge.plugin.label,
        calls=calls,
        tokens=int(tokens_read + tokens_written),
        cost_micros=_cost(judge.options, int(tokens_read), int(tokens_written)),
        seconds=calls / speed if speed else None,
        is_measured=rate is not None,
    )


def _calls_per_comparison(judge: ChosenJudge) -> int:
    """One, unless the plugin says otherwise; others are not constructed, that may load a model."""
    if not hasattr(judge.plugin, "calls_per_comparison"):
        return 1
    return int(judge.plugin.from_dict(judge.options).calls_per_comparison)  # type: ignore[attr-defined]


def _cut(mean_tokens: float, options: dict[str, Any]) -> float:
    """What is left of the texts under the judge's own limits."""
    most = 2 * options.get("max_document_tokens", math.inf) + options.get("max_query_tokens", math.inf)
    return min(mean_tokens, most)


def _cost(options: dict[str, Any], tokens_read: int, tokens_written: int) -> int:
    try:
        return get_endpoint(options["endpoint"]).cost_micros(tokens_read, tokens_written)
    except (KeyError, UnknownEndpoint, EndpointsInvalid):
        return 0


def _measured_rate(plugin: str) -> float | None:
    """Answers a second of the last calls to judges of this plugin, or None before there are any."""
    recent = Attempt.objects.filter(annotator__plugin=plugin, finished_at__isnull=False).order_by("-id")
    ids = list(recent.values_list("id", flat=True)[:RECENT_CALLS])
    if len(ids) < 20:
        return None
    times = Attempt.objects.filter(pk__in=ids).aggregate(first=Min("started_at"), last=Max("finished_at"))
    seconds = (times["last"] - times["first"]).total_seconds()
    return len(ids) / seconds if seconds > 0 else None
