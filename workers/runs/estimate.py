"""Estimates a run before it starts: pairs, calls, tokens, cost, minutes, GPU-hours. Stores nothing.

The sampler gives the pairs for one query of each size. Earlier calls give the speed and, where there are enough, the
tokens of a call; otherwise text lengths give them (`text_sizes`). Tokens and cost have an expected figure and an upper
bound. `workers.runs.savings` reports the actual savings later.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from django.db.models import Count

from labeling.access.annotators import with_rubric
from labeling.models import Candidate, Project
from labeling.plugins import Judge, Plugin, Sampler, get_plugin
from labeling.records import QueryState
from scoring.annotators.counted import UnknownJudge
from scoring.annotators.cycles import contradicting_pairs
from scoring.sampling.draw import comparable_query_ids
from scoring.sampling.named_pairs import NAMED, mean_by_size, pairs_of
from workers.budgets.ahead import LimitAhead, Needed, limits_ahead
from workers.budgets.limits import Budgets, expected_calls_per_pair
from workers.budgets.spend import calls_of_options, set_size_of_plugin
from workers.endpoints.registry import EndpointsInvalid, UnknownEndpoint, get_endpoint
from workers.judges.prompting import counter_of, local_tokenizer
from workers.judging.queue import MAX_ATTEMPTS
from workers.judging.recorded_pairs import recorded_by_size
from workers.models import Attempt, Run
from workers.runs.cascade import DEFAULT_THRESHOLD
from workers.runs.planning import CONFLICTS, ONE_JUDGE_A_PAIR, RECORDED
from workers.runs.savings import paper_calls
from workers.runs.text_sizes import most_tokens, pair_bytes, sample_texts, token_rate

PROMPT_TOKENS = 200
# The tokens that a chat template adds to a prompt: expected, and at most.
TEMPLATE_TOKENS = (12, 64)
# Where calls cost money, "at most" allows one question in ten to be retried, and the run is held to it
# (`workers.budgets.bounds.Bound`). Elsewhere it is all attempts of all questions.
RETRIES = 0.1
# A provider may lose a whole batch, which then counts as paid and is sent once more.
RETRIES_IN_BATCHES = 1.0
# Pairs with a known answer that a run adds to its design (`workers.runs.gold_mixing`).
KNOWN, QUERIES_AT_ONCE = 0.02, 50
MEASURED_CALLS = 20
# Answers per second and core of local judges that have no recorded calls.
LOCAL_RATE = 300.0
RECENT_CALLS = 2000
# A worker plans a round in less; without an answer for longer it rests, which says nothing about its speed.
IDLE_S = 5.0
# One H100 (989e12 operations per second, dense, bfloat16) at 45 % of its peak, as serving engines reach.
GPU_OPERATIONS_S = 0.45 * 989e12
LOCAL_MODELS = "transformers-local"


_OF_QUESTION = ("question_tokens", "question_cost_micros")


@dataclass(frozen=True, slots=True)
class ChosenJudge:
    """A judge plugin with options from a form."""

    plugin: type[Plugin]
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class JudgeEstimate:
    """The estimate for one judge. `seconds` is None if its speed is unknown; tokens are 0 for local judges; `gpu_hours` is
    set if the model's name contains its size. `is_priced` is False if its endpoint is not defined here. Costs in
    millionths of a dollar. `most_calls`, `most_tokens` and `most_cost_micros` are upper bounds; `question_tokens` and
    `question_cost_micros` are those of one question.
    """

    label: str
    calls: int
    most_calls: int
    tokens: int
    most_tokens: int
    cost_micros: int
    most_cost_micros: int
    seconds: float | None
    is_measured: bool
    gpu_hours: float | None = None
    is_priced: bool = True
    question_tokens: int = 0
    question_cost_micros: int = 0


@dataclass(frozen=True, slots=True)
class RunEstimate:
    """The estimate of a run within its budgets. Pairs and calls are upper bounds: a run reuses earlier answers, and designs
    in rounds may stop earlier; `most_calls` counts all attempts. Tokens and cost have an expected figure and a bound, to which
    a run that costs money is held, unless a budget is lower (`is_held`).
    `paper_calls`: what the paper's design would ask, three judges on four pairs a candidate.
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
    judges: list[JudgeEstimate]
    gpu_hours: float | None
    paper_calls: int
    is_held: bool = False

    @property
    def figures(self) -> dict[str, int]:
        """The figures that a run keeps, to be compared with what it spends."""
        names = ("calls", "most_calls", "tokens", "most_tokens", "cost_micros", "most_cost_micros")
        found = {name: getattr(self, name) for name in names}
        if not self.is_held:
            return found
        return found | {name: max(getattr(judge, name) for judge in self.judges) for name in _OF_QUESTION}

    @property
    def is_priced(self) -> bool:
        """Whether every judge has a price; `cost_micros` leaves out judges without one."""
        return all(judge.is_priced for judge in self.judges)

    @property
    def is_measured(self) -> bool:
        """Whether the speed of every judge was measured."""
        return all(judge.is_measured for judge in self.judges)

    @property
    def has_free_endpoint(self) -> bool:
        """Whether a judge's endpoint has no prices, so that `cost_micros` and budgets of money leave it out."""
        return any(judge.tokens and judge.is_priced and not judge.most_cost_micros for judge in self.judges)

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
    query_ids: Sequence[int] | None = None,
) -> RunEstimate:
    """Estimate this run within its budgets; in a cascade, pass the first judge first. `query_ids`: None for all queries."""
    judges = [replace(judge, options=with_rubric(project, judge.plugin.name, judge.options)) for judge in judges]
    chosen = cast(Sampler, get_plugin("sampler", sampler).from_dict(sampler_options))
    design = _design_of(project, chosen, judges, query_ids)
    pairs = design.whole if budgets.pairs is None else min(design.whole, budgets.pairs)
    set_size = _set_size(judges[:1] if allocation == Run.Allocation.CASCADE else judges)
    shares = _judge_shares(allocation, orders, len(judges), cascade_threshold, set_size)
    measures = [
        _Measure(design, judge, 2 if place and allocation == Run.Allocation.CASCADE else set_size)
        for place, judge in enumerate(judges)
    ]
    most_shares = _most_shares(allocation, orders, len(judges), set_size)
    known_pairs = math.ceil(KNOWN * pairs) + math.ceil(sum(design.sizes.values()) / QUERIES_AT_ONCE)

    def of_judges(pairs: int) -> list[JudgeEstimate]:
        rows = zip(measures, shares, most_shares, strict=True)
        return [_of_judge(measure, pairs, share, most, known_pairs) for measure, share, most in rows]

    each = of_judges(pairs)
    part = _affordable_part(each, budgets)
    if part < 1.0:
        pairs = math.ceil(part * pairs)
        each = of_judges(pairs)
    return _total(each, pairs, design.sizes, budgets, allocation)


def _design_of(
    project: Project, sampler: Sampler, judges: Sequence[ChosenJudge], query_ids: Sequence[int] | None
) -> _Design:
    """The pairs that the sampler would draw, by the queries' numbers of candidates."""
    sizes = _sizes(project, query_ids)
    if sampler.name == RECORDED:
        recording = [cast(Judge, each.plugin.from_dict(each.options)) for each in judges]
        return _Design(project, sizes, recorded_by_size(project, recording, query_ids), query_ids)
    named = _named(project, sampler, query_ids)
    if named is None:
        return _Design(project, sizes, _pairs_by_size(sampler, sizes), query_ids)
    design = _Design(project, sizes, mean_by_size(project, named, sizes), query_ids)
    design.whole = len(named)
    return design


def _total(
    each: list[JudgeEstimate], pairs: int, sizes: Counter[int], budgets: Budgets, allocation: str
) -> RunEstimate:
    """The sum of the judges' estimates, within the budgets."""
    # With "informative" equal turns are expected, and one judge may get all of them.
    total: Any = max if allocation == Run.Allocation.INFORMATIVE else sum
    most_tokens = total(judge.most_tokens for judge in each)
    most_cost = total(judge.most_cost_micros for judge in each)
    known = [judge.seconds for judge in each]
    hours = [judge.gpu_hours for judge in each if judge.gpu_hours is not None]
    calls, tokens, cost = (most or 2**63 for most in (budgets.calls, budgets.tokens, budgets.cost_micros))
    return RunEstimate(
        queries=sum(sizes.values()),
        pairs=pairs,
        calls=min(sum(judge.calls for judge in each), calls),
        most_calls=min(total(judge.most_calls for judge in each), calls),
        tokens=min(sum(judge.tokens for judge in each), tokens),
        most_tokens=min(most_tokens, tokens),
        cost_micros=min(sum(judge.cost_micros for judge in each), cost),
        most_cost_micros=min(most_cost, cost),
        is_held=0 < most_cost <= cost and most_tokens <= tokens,
        seconds=None if None in known else sum(seconds for seconds in known if seconds is not None),
        judges=each,
        gpu_hours=sum(hours) if hours else None,
        paper_calls=paper_calls(sizes),
    )


def limits_before_their_end(
    project: Project, judges: Sequence[ChosenJudge], estimates: Sequence[RunEstimate]
) -> list[LimitAhead]:
    """Return the project's caps and the operator's limits that runs of these judges would reach, all of them together."""
    endpoints = [str(judge.options.get("endpoint") or "") for judge in judges]
    needed = [
        _needed(endpoint, each) for run in estimates for endpoint, each in zip(endpoints, run.judges, strict=True)
    ]
    return limits_ahead(project, needed, [_needed("", run) for run in estimates])


def _needed(endpoint: str, found: JudgeEstimate | RunEstimate) -> Needed:
    most = found.most_calls, found.most_tokens, found.most_cost_micros
    return Needed(endpoint, found.calls, found.tokens, found.cost_micros, *most)


def _set_size(judges: Sequence[ChosenJudge]) -> int:
    """Return the documents of one question of these judges."""
    return min((set_size_of_plugin(judge.plugin.name, judge.options) for judge in judges), default=2)


def _judge_shares(allocation: str, orders: str, judges: int, threshold: float, set_size: int = 2) -> list[float]:
    """Return the number of questions per pair for each judge; one about a set of k documents counts as k - 1 pairs."""
    each = (2.0 if orders == Run.Orders.BOTH else 1.0) / (set_size - 1)
    if allocation in ONE_JUDGE_A_PAIR:
        return [each / judges] * judges
    if allocation == Run.Allocation.CASCADE and judges > 1:
        total = expected_calls_per_pair(allocation, orders, judges=judges, threshold=threshold, set_size=set_size)
        return [each] + [(total - each) / (judges - 1)] * (judges - 1)
    return [each] * judges


def _most_shares(allocation: str, orders: str, judges: int, set_size: int) -> list[float]:
    """Return the most questions per pair for each judge: in a cascade every pair may be close, sets may be half full, and
    "informative" may choose one judge for all pairs.
    """
    each = (2.0 if orders == Run.Orders.BOTH else 1.0) * min(1.0, 2.0 / (set_size - 1))
    return [each / judges if allocation == Run.Allocation.ROTATE else each] * judges


def _affordable_part(judges: Sequence[JudgeEstimate], budgets: Budgets) -> float:
    """Return the share of these calls within the call, token and cost budgets."""
    wanted = [
        (sum(judge.calls for judge in judges), budgets.calls),
        (sum(judge.tokens for judge in judges), budgets.tokens),
        (sum(judge.cost_micros for judge in judges), budgets.cost_micros),
    ]
    return min([1.0, *(most / total for total, most in wanted if most is not None and total > most)])


def _sizes(project: Project, query_ids: Sequence[int] | None) -> Counter[int]:
    """Return the number of queries by number of candidates, for two or more candidates."""
    candidates = Candidate.objects.filter(query__project=project)
    if query_ids is not None:
        candidates = candidates.filter(query_id__in=query_ids)
    rows = candidates.order_by().values("query_id").annotate(n=Count("pk"))
    return Counter(n for n in rows.values_list("n", flat=True) if n >= 2)


def _pairs_by_size(sampler: Sampler, sizes: Counter[int]) -> dict[int, int]:
    """Return the pairs that the whole design asks of a query, by the query's number of candidates. The option
    `pairs_per_candidate` limits a sampler that works in rounds; any other sampler counts its first draw.
    """
    most_each = getattr(sampler.options, "pairs_per_candidate", None)
    if most_each is not None:
        return {size: int(min(most_each * size, size * (size - 1) // 2)) for size in sizes}
    rng = np.random.default_rng(0)
    most = np.iinfo(np.int32).max
    found = {}
    for size in sizes:
        state = QueryState(
            size=size, pairs=np.empty((0, 2), dtype=np.int64), first_stage_rank=np.zeros(size, dtype=np.int64)
        )
        found[size] = len(sampler.sample(state, most, rng))
    return found


class _Design:
    """The pairs of a run over a project, and a sample of the texts that they hold."""

    def __init__(
        self, project: Project, sizes: Counter[int], pairs: dict[int, int], query_ids: Sequence[int] | None
    ) -> None:
        self.project, self.sizes, self.pairs, self.query_ids = project, sizes, pairs, query_ids
        self.whole = sum(pairs[size] * queries for size, queries in sizes.items())
        self.candidates = sum(size * queries for size, queries in sizes.items())
        self.texts = sample_texts(project.pk)


class _Measure:
    """The size of one question to a judge: tokens read and written a call, each expected and at most.

    A question shows `documents`; a judge that grades documents alone reads one.
    """

    def __init__(self, design: _Design, judge: ChosenJudge, documents: int = 2) -> None:
        self.judge, self.candidates = judge, design.candidates
        self.grades_alone = hasattr(judge.plugin, "calls_of_design")
        documents = 1 if self.grades_alone else documents
        self.is_remote = "endpoint" in judge.options
        made = cast(Any, judge.plugin.from_dict(judge.options)) if hasattr(judge.plugin, "answer_tokens") else None
        self.calls_each, self._most_calls_each = calls_of_options(judge.plugin.name, judge.options)
        named = str(judge.options.get("tokenizer", "")) if self.is_remote else ""
        tokenizer = named if local_tokenizer(named) else ""  # an estimate downloads nothing
        rate = token_rate(design.texts, tokenizer)
        frame = made.frame(design.project.instruction) if made else ""
        fixed = counter_of(tokenizer)(frame) if made else PROMPT_TOKENS
        most_fixed = fixed if tokenizer and made else max(most_tokens(frame), fixed)
        sizes = pair_bytes(
            design.project.pk, design.pairs, judge.options, rate, query_ids=design.query_ids, documents=documents
        )
        self._whole = max(design.whole, 1)
        self._read = rate.expected * sizes.expected / self._whole + fixed + TEMPLATE_TOKENS[0]
        self._most_read = rate.most * sizes.most + self._whole * (most_fixed + TEMPLATE_TOKENS[1])
        self._longest_read = rate.most * sizes.longest + most_fixed + TEMPLATE_TOKENS[1]
        written: tuple[float, int] = made.answer_tokens if made else (1.0, 1)
        self._written, self._most_written = written
        if self.is_remote and (measured := _measured_tokens(design.project, judge)):
            self._read, self._written = measured

    def expected(self, questions: int) -> tuple[float, float]:
        """Return the tokens (read, written) of so many questions."""
        calls = questions * self.calls_each
        return calls * self._read, calls * self._written

    def most_calls(self, questions: int) -> int:
        """Return the calls of all attempts of so many questions."""
        return self._most_calls_each * questions * MAX_ATTEMPTS

    def most(self, questions: int, share: float, attempts: float) -> tuple[float, float]:
        """Return the most tokens (read, written) of so many questions, `share` of them on each pair of the design, each in so
        many attempts.
        """
        first = min(share * self._most_read, questions * self._longest_read)
        calls = self._most_calls_each * questions * attempts
        # The limit of a call with `n` is that of all its votes, as is the sum of the limits of single votes.
        writing = calls * self.calls_each / self._most_calls_each
        read = max(self._most_calls_each * first * attempts, calls * self._read)
        return read, writing * max(self._most_written, self._written)

    def most_of_one(self) -> tuple[float, float]:
        """Return the most tokens (read, written) of one question in one attempt."""
        read = self._most_calls_each * max(self._longest_read, self._read)
        return read, self.calls_each * max(self._most_written, self._written)


def _of_judge(measure: _Measure, pairs: int, share: float, most_share: float, known_pairs: int) -> JudgeEstimate:
    """Return the estimate of a judge that is asked `share` questions a pair, at most `most_share` and once on each known pair."""
    judge, questions = measure.judge, math.ceil(pairs * share)
    most = math.ceil(pairs * most_share)
    if measure.grades_alone:  # each document once, however many pairs there are
        calls_of_design = cast(Any, judge.plugin).calls_of_design
        questions, most = (calls_of_design(each, measure.candidates) for each in (questions, most))
        most_share = most / max(pairs, 1)
    calls = questions * measure.calls_each
    rate = _measured_rate(judge.plugin.name)
    read, written = measure.expected(questions)
    cost = _cost(judge.options, math.ceil(read), math.ceil(written)) if measure.is_remote else 0
    retries = RETRIES_IN_BATCHES if judge.options.get("delivery") == "batch" else RETRIES
    attempts = 1 + retries if cost else MAX_ATTEMPTS
    one = measure.most_of_one()
    # A question beyond the design, so that the last one is not held back.
    more = known_pairs + 1
    most_read, most_written = (
        whole + attempts * more * each
        for whole, each in zip(measure.most(most, most_share, attempts), one, strict=True)
    )

    def costs(read: float, written: float, calls: float) -> int:
        """Each call is rounded up to a millionth of a dollar."""
        found = _cost(judge.options, math.ceil(read), math.ceil(written)) if measure.is_remote else 0
        return found + math.ceil(calls) if found else 0

    speed = rate or (None if measure.is_remote or judge.plugin.name == LOCAL_MODELS else LOCAL_RATE)
    return JudgeEstimate(
        label=judge.plugin.label,
        calls=calls,
        most_calls=measure.most_calls(most + known_pairs),
        tokens=math.ceil(read + written) if measure.is_remote else 0,
        most_tokens=math.ceil(most_read + most_written) if measure.is_remote else 0,
        cost_micros=cost or 0,
        most_cost_micros=costs(most_read, most_written, measure.most_calls(most + more) * attempts / MAX_ATTEMPTS),
        seconds=calls / speed if speed else None,
        is_measured=rate is not None,
        gpu_hours=gpu_hours(str(judge.options.get("model", "")), read + written),
        is_priced=cost is not None,
        question_tokens=math.ceil(sum(one)) if measure.is_remote else 0,
        question_cost_micros=costs(*one, measure.most_calls(1) / MAX_ATTEMPTS),
    )


def _measured_tokens(project: Project, judge: ChosenJudge) -> tuple[float, float] | None:
    """Return the mean tokens (read, written) of the latest answered calls of the same model in the same mode, or None with
    too few of them.
    """
    names = {name: judge.options.get(name) for name in ("endpoint", "model", "mode")}
    same = {f"options__{name}": value for name, value in names.items() if value is not None}
    judges = project.annotators.filter(plugin=judge.plugin.name, **same).values_list("pk", flat=True)
    calls = Attempt.objects.filter(annotator__in=list(judges), outcome__in=Attempt.ANSWERED, input_tokens__gt=0)
    rows = list(calls.order_by("-id").values_list("input_tokens", "output_tokens")[:RECENT_CALLS])
    if len(rows) < MEASURED_CALLS:
        return None
    read, written = np.mean(rows, axis=0)
    return float(read), float(written)


_PARAMETERS = re.compile(r"(?<![A-Za-z0-9.])(A)?(\d+(?:\.\d+)?)[bB](?![A-Za-z0-9])")


def gpu_hours(model: str, tokens: float) -> float | None:
    """Return H100 hours for these tokens, at two operations per parameter and token; None if the model's name does
    not contain its size. For a mixture of experts (30B-A3B), only active parameters count.
    """
    found = sorted(_PARAMETERS.findall(model), key=lambda each: each[0] != "A")
    if not found:
        return None
    return 2.0 * float(found[0][1]) * 1e9 * tokens / GPU_OPERATIONS_S / 3600.0


def _cost(options: dict[str, Any], tokens_read: int, tokens_written: int) -> int | None:
    """Return the cost in millionths of a dollar, or None if the endpoint is not defined here."""
    try:
        endpoint = get_endpoint(options["endpoint"])
        price = endpoint.batch_cost_micros if options.get("delivery") == "batch" else endpoint.cost_micros
        return price(tokens_read, tokens_written)
    except (KeyError, UnknownEndpoint, EndpointsInvalid):
        return None


def _measured_rate(plugin: str) -> float | None:
    """Return the answers per second of this plugin's latest calls while it worked, or None with too few calls."""
    recent = Attempt.objects.filter(annotator__plugin=plugin, started_at__isnull=False, finished_at__isnull=False)
    calls = list(recent.order_by("-id").values_list("started_at", "finished_at")[:RECENT_CALLS])
    if len(calls) < MEASURED_CALLS:
        return None
    seconds = _working_s([(start.timestamp(), end.timestamp()) for start, end in calls if end is not None])
    return len(calls) / seconds if seconds > 0 else None


def _working_s(calls: Sequence[tuple[float, float]]) -> float:
    """Return the seconds in which at least one call ran; a shorter gap than `IDLE_S` counts, a longer one lies between runs."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(calls):
        total += max(0.0, end - (start if start - reached > IDLE_S else reached))
        reached = max(reached, end)
    return total


def _named(project: Project, sampler: Sampler, query_ids: Sequence[int] | None) -> list[tuple[int, int]] | None:
    """The pairs of a design that asks given ones, None for any other design."""
    if sampler.name == NAMED:
        return pairs_of(sampler)
    if sampler.name != CONFLICTS:
        return None
    ids = comparable_query_ids(project.pk) if query_ids is None else list(query_ids)
    try:
        return [(a, b) for own in contradicting_pairs(project.pk, ids).values() for a, b in own.tolist()]
    except UnknownJudge:  # the run itself is refused with the reason
        return []
