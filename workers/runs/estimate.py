"""Estimates a run before it starts: pairs, calls, tokens, cost, minutes, GPU-hours. Stores nothing.

The sampler gives the pairs for one query of each size, earlier calls give the speed, and text lengths give
the tokens. `workers.runs.savings` reports the actual savings later.
"""

from __future__ import annotations

import math
import re
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
from workers.budgets.limits import Budgets, expected_calls_per_pair
from workers.budgets.spend import set_size_of_plugin
from workers.endpoints.registry import EndpointsInvalid, UnknownEndpoint, get_endpoint
from workers.models import Attempt, Run
from workers.runs.cascade import DEFAULT_THRESHOLD
from workers.runs.savings import paper_calls

CHARACTERS_PER_TOKEN = 4
PROMPT_TOKENS = 200
ANSWER_TOKENS = {"reasoned": 120}
# Answers per second and core of local judges that have no recorded calls.
LOCAL_RATE = 300.0
RECENT_CALLS = 2000
# One H100 (989e12 operations per second, dense, bfloat16) at 45 % of its peak, as serving engines reach.
GPU_OPERATIONS_S = 0.45 * 989e12
LOCAL_MODELS = "transformers-local"


@dataclass(frozen=True, slots=True)
class ChosenJudge:
    """A judge plugin with options from a form."""

    plugin: type[Plugin]
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class JudgeEstimate:
    """The estimate for one judge. `seconds` is None if its speed is unknown; tokens are 0 for local judges; `gpu_hours` is
    set if the model's name contains its size. `is_priced` is False if its endpoint is not defined here.
    """

    label: str
    calls: int
    tokens: int
    cost_micros: int
    seconds: float | None
    is_measured: bool
    gpu_hours: float | None = None
    is_priced: bool = True


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """Upper bounds: a run reuses earlier answers, and designs in rounds may stop earlier.
    earlier. `paper_calls`: what the paper's design would ask, three judges on four pairs a candidate.
    """

    queries: int
    pairs: int
    calls: int
    tokens: int
    cost_micros: int
    seconds: float | None
    judges: list[JudgeEstimate]
    gpu_hours: float | None
    paper_calls: int

    @property
    def is_priced(self) -> bool:
        """Whether every judge has a price; `cost_micros` leaves out judges without one."""
        return all(judge.is_priced for judge in self.judges)

    @property
    def saved_share(self) -> float | None:
        """The saved share of the paper's calls; None if the run makes more calls."""
        return 1.0 - self.calls / self.paper_calls if self.calls < self.paper_calls else None


def estimate_run(
    project: Project,
    judges: Sequence[ChosenJudge],
    *,
    sampler: str,
    sampler_options: dict[str, Any],
    allocation: str,
    orders: str,
    budgets: Budgets,
    cascade_threshold: float = DEFAULT_THRESHOLD,
) -> RunEstimate:
    """Estimate this run within its budgets; in a cascade, pass the first judge first."""
    sizes = _sizes(project)
    chosen = cast(Sampler, get_plugin("sampler", sampler).from_dict(sampler_options))
    pairs = _pairs(chosen, sizes)
    if budgets.pairs is not None:
        pairs = min(pairs, budgets.pairs)
    words = _mean_tokens(project)
    set_size = _set_size(judges[:1] if allocation == Run.Allocation.CASCADE else judges)
    shares = _judge_shares(allocation, orders, len(judges), cascade_threshold, set_size)
    documents = [set_size] + [2 if allocation == Run.Allocation.CASCADE else set_size] * (len(judges) - 1)
    candidates = sum(size * queries for size, queries in sizes.items())
    plan = list(zip(judges, shares, documents, strict=True))
    whole = [_of_judge(judge, math.ceil(pairs * share), words, k, candidates) for judge, share, k in plan]
    part = _affordable_part(whole, budgets)
    pairs = math.ceil(part * pairs)
    each = whole
    if part < 1.0:
        each = [_of_judge(judge, math.ceil(pairs * share), words, k, candidates) for judge, share, k in plan]
    known = [judge.seconds for judge in each]
    hours = [judge.gpu_hours for judge in each if judge.gpu_hours is not None]
    return RunEstimate(
        queries=sum(sizes.values()),
        pairs=pairs,
        calls=min(sum(judge.calls for judge in each), budgets.calls or 2**63),
        tokens=min(sum(judge.tokens for judge in each), budgets.tokens or 2**63),
        cost_micros=min(sum(judge.cost_micros for judge in each), budgets.cost_micros or 2**63),
        seconds=None if None in known else sum(seconds for seconds in known if seconds is not None),
        judges=each,
        gpu_hours=sum(hours) if hours else None,
        paper_calls=paper_calls(sizes),
    )


def _set_size(judges: Sequence[ChosenJudge]) -> int:
    """Return the documents of one question of these judges."""
    return min((set_size_of_plugin(judge.plugin.name, judge.options) for judge in judges), default=2)


def _judge_shares(allocation: str, orders: str, judges: int, threshold: float, set_size: int = 2) -> list[float]:
    """Return the number of questions per pair for each judge; one about a set of k documents counts as k - 1 pairs."""
    each = (2.0 if orders == Run.Orders.BOTH else 1.0) / (set_size - 1)
    if allocation == Run.Allocation.ROTATE:
        return [each / judges] * judges
    if allocation == Run.Allocation.CASCADE and judges > 1:
        total = expected_calls_per_pair(allocation, orders, judges=judges, threshold=threshold, set_size=set_size)
        return [each] + [(total - each) / (judges - 1)] * (judges - 1)
    return [each] * judges


def _affordable_part(judges: Sequence[JudgeEstimate], budgets: Budgets) -> float:
    """Return the share of these calls within the call, token and cost budgets."""
    wanted = [
        (sum(judge.calls for judge in judges), budgets.calls),
        (sum(judge.tokens for judge in judges), budgets.tokens),
        (sum(judge.cost_micros for judge in judges), budgets.cost_micros),
    ]
    return min([1.0, *(most / total for total, most in wanted if most is not None and total > most)])


def _sizes(project: Project) -> Counter[int]:
    """Return the number of queries by number of candidates, for two or more candidates."""
    rows = Candidate.objects.filter(query__project=project).order_by().values("query_id").annotate(n=Count("pk"))
    return Counter(n for n in rows.values_list("n", flat=True) if n >= 2)


def _pairs(sampler: Sampler, sizes: Counter[int]) -> int:
    """Return the pairs of the whole design. The option `pairs_per_candidate` limits a sampler that works in rounds;
    any other sampler counts its first draw.
    """
    most_each = getattr(sampler.options, "pairs_per_candidate", None)
    if most_each is not None:
        return sum(queries * int(min(most_each * size, size * (size - 1) // 2)) for size, queries in sizes.items())
    rng = np.random.default_rng(0)
    most = np.iinfo(np.int32).max
    total = 0
    for size, queries in sizes.items():
        state = QueryState(
            size=size, pairs=np.empty((0, 2), dtype=np.int64), first_stage_rank=np.zeros(size, dtype=np.int64)
        )
        total += queries * len(sampler.sample(state, most, rng))
    return total


def _mean_tokens(project: Project) -> tuple[float, float]:
    """Return the tokens of a query and of a document, from their mean lengths."""
    means = Candidate.objects.filter(query__project=project).aggregate(
        document=Avg(Length("document__text")), query=Avg(Length("query__text"))
    )
    return (means["query"] or 0) / CHARACTERS_PER_TOKEN, (means["document"] or 0) / CHARACTERS_PER_TOKEN


def _of_judge(
    judge: ChosenJudge, calls: int, words: tuple[float, float], documents: int, candidates: int
) -> JudgeEstimate:
    calls *= _calls_per_comparison(judge)
    if hasattr(judge.plugin, "calls_of_design"):  # it asks about each document once, however many pairs there are
        calls, documents = judge.plugin.calls_of_design(calls, candidates), 1
    is_remote = "endpoint" in judge.options
    rate = _measured_rate(judge.plugin.name)
    read = calls * (PROMPT_TOKENS + _cut(words, documents, judge.options))
    written = calls * ANSWER_TOKENS.get(str(judge.options.get("mode", "")), 1)
    cost = _cost(judge.options, int(read), int(written)) if is_remote else 0
    speed = rate or (None if is_remote or judge.plugin.name == LOCAL_MODELS else LOCAL_RATE)
    return JudgeEstimate(
        label=judge.plugin.label,
        calls=calls,
        tokens=int(read + written) if is_remote else 0,
        cost_micros=cost or 0,
        seconds=calls / speed if speed else None,
        is_measured=rate is not None,
        gpu_hours=gpu_hours(str(judge.options.get("model", "")), read + written),
        is_priced=cost is not None,
    )


_PARAMETERS = re.compile(r"(?<![A-Za-z0-9.])(A)?(\d+(?:\.\d+)?)[bB](?![A-Za-z0-9])")


def gpu_hours(model: str, tokens: float) -> float | None:
    """Return H100 hours for these tokens, at two operations per parameter and token; None if the model's name does
    not contain its size. For a mixture of experts (30B-A3B), only active parameters count.
    """
    found = sorted(_PARAMETERS.findall(model), key=lambda each: each[0] != "A")
    if not found:
        return None
    return 2.0 * float(found[0][1]) * 1e9 * tokens / GPU_OPERATIONS_S / 3600.0


def _calls_per_comparison(judge: ChosenJudge) -> int:
    """Return the judge's calls per question, 1 by default; avoids constructing judges that may load a model."""
    if not hasattr(judge.plugin, "calls_per_comparison"):
        return 1
    return int(judge.plugin.from_dict(judge.options).calls_per_comparison)  # type: ignore[attr-defined]


def _cut(words: tuple[float, float], documents: int, options: dict[str, Any]) -> float:
    """Return the tokens of a query and its documents after the judge's own limits."""
    query, document = words
    most = documents * options.get("max_document_tokens", math.inf) + options.get("max_query_tokens", math.inf)
    return float(min(query + documents * document, most))


def _cost(options: dict[str, Any], tokens_read: int, tokens_written: int) -> int | None:
    """Return the cost in millionths of a dollar, or None if the endpoint is not defined here."""
    try:
        return get_endpoint(options["endpoint"]).cost_micros(tokens_read, tokens_written)
    except (KeyError, UnknownEndpoint, EndpointsInvalid):
        return None


def _measured_rate(plugin: str) -> float | None:
    """Return the answers per second of this plugin's latest calls, or None without calls."""
    recent = Attempt.objects.filter(annotator__plugin=plugin, finished_at__isnull=False).order_by("-id")
    ids = list(recent.values_list("id", flat=True)[:RECENT_CALLS])
    if len(ids) < 20:
        return None
    times = Attempt.objects.filter(pk__in=ids).aggregate(first=Min("started_at"), last=Max("finished_at"))
    seconds = (times["last"] - times["first"]).total_seconds()
    return len(ids) / seconds if seconds > 0 else None
