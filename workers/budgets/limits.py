"""Budgets of runs, caps of projects and limits of the operator: how much of them is left, and when they are spent.

The budget of pairs is enforced when a round is planned (`workers.runs.query_budgets`). Those of calls, tokens and money
are enforced before each call: `workers.judging.queue.claim` asks here how many questions of a run it may hand out.
`workers.budgets.spend` has what was spent, `workers.runs.advancing` ends a run whose budget is spent, and
`workers.budgets.changes` raises one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from django.db import connection
from django.db.models import Exists, OuterRef

from labeling.stored_texts import StoredText, stored_text
from workers.budgets.bounds import Bound, expected_price
from workers.budgets.operator_limits import (
    OperatorRules,
    has_operator_limits,
    lock_operator_limits,
    rules_of,
    spend_of_rule,
)
from workers.budgets.spend import (
    JudgeSpend,
    calls_a_question,
    lock_project,
    lock_run,
    recent_price,
    set_size_of,
    spend_of_project,
    spend_of_run,
)
from workers.models import Caps, JudgingTask, ProviderBatch, Run

NO_LIMIT = 2**31 - 1
MOST = 2**63 - 1
# Until the first answers of a judge show what a call costs, it gets at most so many questions at once.
FIRST_QUESTIONS = 4

# The reason with which a run ends, by whose limit it is and what is spent.
THE_BUDGET, THE_CAP = "the budget", "the project's cap"
THE_ESTIMATE = "the estimate's bound"
THE_DAY, THE_DAY_AT = "the operator's limit of a day", "the operator's limit of a day at an endpoint"
THE_TOTAL, THE_TOTAL_AT = "the operator's limit", "the operator's limit at an endpoint"


def _spent(sentence: str) -> StoredText:
    """Declare a sentence about calls or tokens, with its form for one."""
    return stored_text(sentence, one=re.sub(r"(?<=s )(call|token)s", r"\1", sentence))


SPENT = {
    (THE_BUDGET, "calls"): _spent("the budget of %(n)s calls is spent"),
    (THE_BUDGET, "tokens"): _spent("the budget of %(n)s tokens is spent"),
    (THE_BUDGET, "cost_micros"): stored_text("the budget of $%(n)s is spent"),
    (THE_ESTIMATE, "tokens"): _spent(
        "the estimate's upper bound of %(n)s tokens is reached; save the run's budget to continue beyond it"
    ),
    (THE_ESTIMATE, "cost_micros"): stored_text(
        "the estimate's upper bound of $%(n)s is reached; save the run's budget to continue beyond it"
    ),
    (THE_CAP, "calls"): _spent("the project's cap of %(n)s calls is spent"),
    (THE_CAP, "tokens"): _spent("the project's cap of %(n)s tokens is spent"),
    (THE_CAP, "cost_micros"): stored_text("the project's cap of $%(n)s is spent"),
    (THE_DAY, "calls"): _spent("the operator's limit of %(n)s calls a day is reached"),
    (THE_DAY, "tokens"): _spent("the operator's limit of %(n)s tokens a day is reached"),
    (THE_DAY, "cost_micros"): stored_text("the operator's limit of $%(n)s a day is reached"),
    (THE_DAY_AT, "calls"): _spent("the operator's limit of %(n)s calls a day at endpoint %(endpoint)s is reached"),
    (THE_DAY_AT, "tokens"): _spent("the operator's limit of %(n)s tokens a day at endpoint %(endpoint)s is reached"),
    (THE_DAY_AT, "cost_micros"): stored_text(
        "the operator's limit of $%(n)s a day at endpoint %(endpoint)s is reached"
    ),
    (THE_TOTAL, "calls"): _spent("the operator's limit of %(n)s calls is reached"),
    (THE_TOTAL, "tokens"): _spent("the operator's limit of %(n)s tokens is reached"),
    (THE_TOTAL, "cost_micros"): stored_text("the operator's limit of $%(n)s is reached"),
    (THE_TOTAL_AT, "calls"): _spent("the operator's limit of %(n)s calls at endpoint %(endpoint)s is reached"),
    (THE_TOTAL_AT, "tokens"): _spent("the operator's limit of %(n)s tokens at endpoint %(endpoint)s is reached"),
    (THE_TOTAL_AT, "cost_micros"): stored_text("the operator's limit of $%(n)s at endpoint %(endpoint)s is reached"),
}
NOT_ALLOWED = stored_text("the operator has not allowed this project to use endpoint %(endpoint)s")


class BadBudget(ValueError):
    """A budget that allows nothing; no budget at all is None."""


class CapReached(RuntimeError):
    """The caps of the project do not allow the calls that were about to be made."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """The most that a run may plan (`pairs`) or spend; None sets no limit, money in millionths of a dollar. `bound`: what its
    estimate says besides.
    """

    pairs: int | None = None
    calls: int | None = None
    tokens: int | None = None
    cost_micros: int | None = None
    bound: Bound | None = field(default=None, kw_only=True)

    def check(self) -> None:
        """Raise BadBudget where one of them is below 1, or more than a database holds."""
        for value, unit in zip(
            (self.pairs, self.calls, self.tokens, self.cost_micros),
            ("pairs", "calls", "tokens", "millionths of a dollar"),
            strict=True,
        ):
            if value is not None and not 1 <= value <= MOST:
                raise BadBudget(f"the budget is {value} {unit}; expected 1 or more, or none for the whole design")

    @classmethod
    def of(cls, run: Run) -> Budgets:
        given = (run.pair_budget, run.call_budget, run.token_budget, run.cost_budget_micros)
        return cls(*given, bound=Bound.of(run.estimate))

    @property
    def bounds_calls(self) -> bool:
        """Whether spending must be checked before each call."""
        return self.calls is not None or self.bounds_price

    @property
    def bounds_price(self) -> bool:
        """Whether the price of a call matters."""
        return self.tokens is not None or self.cost_micros is not None


@dataclass(frozen=True, slots=True)
class Left:
    """The rest of a limit, below zero where more was reserved; None without a limit."""

    calls: int | None = None
    tokens: float | None = None
    cost_micros: float | None = None

    def covers(self, bounds: Sequence[tuple[int, int]]) -> int:
        """The number of these questions, from the first, that it covers at their bounds of (tokens, millionths of a dollar)."""
        tokens = cost = 0
        for number, (more_tokens, more_cost) in enumerate(bounds):
            tokens, cost = tokens + more_tokens, cost + more_cost
            used = (number + 1, self.calls), (tokens, self.tokens), (cost, self.cost_micros)
            if any(most is not None and each > most for each, most in used):
                return number
        return len(bounds)


@dataclass(frozen=True, slots=True)
class SpendLimit:
    """Budgets and what each judge has spent of them; `whose` and `endpoint` name them in the reason with which a run ends."""

    budgets: Budgets
    spent: Mapping[int, JudgeSpend]
    whose: str
    endpoint: str = ""
    is_of_operator: bool = False
    question: tuple[float, float] | None = None  # (tokens, millionths of a dollar) at which a question in flight counts
    presumed: tuple[float | None, float | None] = (None, None)  # the same of a call, before a judge has a price

    @classmethod
    def of_estimate(cls, bound: Bound, spent: Mapping[int, JudgeSpend]) -> SpendLimit:
        """The bound of a run's estimate. Questions in flight count at their most, so that it holds to the last call; those
        that a crash lost have no known price.
        """
        known = {judge: replace(each, lost=0) for judge, each in spent.items()}
        question = (bound.question_tokens, bound.question_cost_micros)
        return cls(Budgets(tokens=bound.tokens, cost_micros=bound.cost_micros), known, THE_ESTIMATE, question=question)

    @property
    def is_waiting(self) -> bool:
        """Whether calls in flight may turn out cheaper than expected."""
        return any(each.in_flight for each in self.spent.values())

    def room(self, annotator_id: int) -> tuple[int, str]:
        """The number of questions that this judge has left, and the reason of the limit that leaves the fewest.

        From the moment a question is handed out, all its calls count at their mean price; once they are answered, they
        count at their real price. Questions lost in a crash keep counting: they may have been paid. Calls that reached no
        model do not count.
        """
        budgets = self.budgets
        mine = self._expected(annotator_id)
        each = calls_a_question(annotator_id)
        left = self.left(annotator_id)
        rooms: list[tuple[int, str]] = [(NO_LIMIT, "")]
        if budgets.calls is not None and left.calls is not None:
            rooms.append((left.calls // each, self.reason("calls")))
        if budgets.tokens is not None and left.tokens is not None:
            rooms.append((_affordable(left.tokens, mine.tokens_a_call, each, mine), self.reason("tokens")))
        if budgets.cost_micros is not None and left.cost_micros is not None:
            rooms.append((_affordable(left.cost_micros, mine.cost_a_call, each, mine), self.reason("cost_micros")))
        room, least = min(rooms, key=lambda pair: pair[0])
        return max(0, room), least

    @property
    def renews(self) -> bool:
        """Whether the limit allows more on the next day."""
        return self.whose in (THE_DAY, THE_DAY_AT)

    def reason(self, unit: str) -> str:
        """The sentence with which a run ends when its calls, tokens or cost_micros are spent."""
        most = getattr(self.budgets, unit)
        named = {"endpoint": self.endpoint} if self.endpoint else {}
        number = f"{most / 1e6:,.2f}" if unit == "cost_micros" else f"{most:,}"
        return SPENT[self.whose, unit] % {"n": number, **named}

    def left(self, annotator_id: int) -> Left:
        """The rest of the limit once the calls in flight have cost their mean price."""
        budgets = self.budgets
        judges = {*self.spent, annotator_id} if self.question else {annotator_id}
        known = {**self.spent, **{judge: self._expected(judge) for judge in judges}}
        open_calls = {
            judge: spend.unpriced * calls_a_question(judge) for judge, spend in known.items() if spend.unpriced
        }
        calls: int | None = None
        tokens: float | None = None
        cost_micros: float | None = None
        if budgets.calls is not None:
            calls = budgets.calls - sum(spend.made for spend in known.values())
            calls -= sum(open_calls.values())
        if budgets.tokens is not None:
            expected = sum(number * (known[judge].tokens_a_call or 0) for judge, number in open_calls.items())
            tokens = budgets.tokens - sum(spend.tokens for spend in known.values()) - expected
        if budgets.cost_micros is not None:
            expected = sum(number * (known[judge].cost_a_call or 0) for judge, number in open_calls.items())
            cost_micros = budgets.cost_micros - sum(spend.cost_micros for spend in known.values()) - expected
        return Left(calls, tokens, cost_micros)

    def knows_price(self, annotator_id: int) -> bool:
        """Whether the price of this judge's calls is known, or does not matter."""
        return not self.budgets.bounds_price or self._expected(annotator_id).tokens_a_call is not None

    def _expected(self, annotator_id: int) -> JudgeSpend:
        """The judge's spend here; before its first answer, its price is that of its latest calls elsewhere.

        To a limit of the operator each project brings judges without a price, so the mean of the others counts for them:
        otherwise every project could exceed the limit by its first questions.
        """
        spend = self.spent.get(annotator_id, JudgeSpend())
        if self.question:
            most = [each / calls_a_question(annotator_id) for each in self.question]
            return replace(spend, tokens_a_call=most[0], cost_a_call=most[1])
        if not self.budgets.bounds_price or spend.tokens_a_call is not None or annotator_id == 0:
            return spend
        tokens, cost = recent_price(annotator_id)
        if tokens is None and self.is_of_operator:
            tokens, cost = self._mean_price()
        if tokens is None:
            tokens, cost = self.presumed
        return replace(spend, tokens_a_call=tokens, cost_a_call=cost)

    def _mean_price(self) -> tuple[float | None, float | None]:
        """Mean tokens and cost of the answered calls of all judges; None without any."""
        priced = [each for each in self.spent.values() if each.answers]
        answers = sum(each.answers for each in priced)
        if not answers:
            return None, None
        tokens = sum(each.answers * (each.tokens_a_call or 0.0) for each in priced)
        cost = sum(each.answers * (each.cost_a_call or 0.0) for each in priced)
        return tokens / answers, cost / answers


def read_caps(project_id: int) -> Budgets:
    """The caps on the spend of all runs of a project together."""
    caps = Caps.objects.filter(project_id=project_id).values_list("calls", "tokens", "cost_micros").first()
    return Budgets(None, *caps) if caps else Budgets()


def is_limited(project_id: int, annotator_ids: Sequence[int]) -> bool:
    """Whether the project's caps or a limit of the operator bound the calls of one of these judges."""
    return read_caps(project_id).bounds_calls or any(rules_of(each) for each in annotator_ids)


def questions_left(
    run_id: int, project_id: int, annotator_id: int, *, budgets: Budgets, caps: Budgets, by_operator: bool = True
) -> int:
    """The number of questions that this judge may be asked now, at the expected price of its calls. Locks the operator's limits, the
    run and the project until the transaction ends, so that no two claims spend the same money. `by_operator`: whether
    there may be limits of the operator.
    """
    rules = rules_of(annotator_id) if by_operator else OperatorRules()
    if rules:
        lock_operator_limits()
    if caps.bounds_calls:
        lock_project(project_id)
    if budgets.bounds_calls or budgets.bound:
        lock_run(run_id)
    if rules.barred_from:
        return 0
    limits = [*_limits(run_id, project_id, budgets=budgets, caps=caps), *limits_of(rules)]
    return min((limit.room(annotator_id)[0] for limit in limits), default=NO_LIMIT)


def questions_covered(
    run_id: int, project_id: int, annotator_id: int, bounds: Sequence[tuple[int, int]], *, is_alone: bool
) -> int:
    """The number of these questions, from the first, that may be sent in a batch that reserves their bounds: (tokens, millionths
    of a dollar) each. Locks as `questions_left` does.

    Where they do not fit and the run has nothing out (`is_alone`), the mean price of the judge's calls counts instead:
    bounds are well above it, and the rest of a budget would otherwise go out in ever smaller batches.
    """
    budgets, caps = Budgets.of(Run.objects.get(pk=run_id)), read_caps(project_id)
    at_the_mean = questions_left(run_id, project_id, annotator_id, budgets=budgets, caps=caps)
    rules = rules_of(annotator_id)
    if rules.barred_from:
        return 0
    limits = [*_limits(run_id, project_id, budgets=budgets, caps=caps), *limits_of(rules)]
    covered = min((limit.left(annotator_id).covers(bounds) for limit in limits), default=len(bounds))
    if is_alone:
        covered = max(covered, at_the_mean)
    return min(covered, len(bounds))


def check_caps(project_id: int, annotator_id: int, questions: int) -> None:
    """Raise CapReached where the project's caps, or the operator's limits, do not allow so many more questions to this
    judge. Locks both until the transaction ends, in which the caller stores the calls.
    """
    caps, rules = read_caps(project_id), rules_of(annotator_id)
    if rules.barred_from:
        raise CapReached(f"{NOT_ALLOWED % {'endpoint': rules.barred_from}}; ask the server's operator")
    if rules:
        lock_operator_limits()
    limits = limits_of(rules)
    if caps.bounds_calls:
        lock_project(project_id)
        limits.append(SpendLimit(caps, spend_of_project(project_id), THE_CAP))
    for limit in limits:
        room, reason = limit.room(annotator_id)
        if room < questions:
            remedy = "raise it first" if limit.whose == THE_CAP else "ask the server's operator"
            raise CapReached(f"{questions} more questions are too many, {room} can be asked: {reason}; {remedy}")


def limits_of(rules: OperatorRules) -> list[SpendLimit]:
    """The operator's limits of these rules, with what counts towards each."""
    return [
        SpendLimit(
            Budgets(None, rule.calls, rule.tokens, rule.cost_micros),
            spend_of_rule(rule),
            _WHOSE[rule.is_daily, bool(rule.endpoint)],
            rule.endpoint,
            is_of_operator=True,
        )
        for rule in rules.rules
    ]


_WHOSE = {(True, False): THE_DAY, (True, True): THE_DAY_AT, (False, False): THE_TOTAL, (False, True): THE_TOTAL_AT}


def _limits(run_id: int, project_id: int, *, budgets: Budgets, caps: Budgets) -> list[SpendLimit]:
    limits = []
    if caps.bounds_calls:
        limits.append(SpendLimit(caps, spend_of_project(project_id), THE_CAP))
    if budgets.bounds_calls or budgets.bound:
        spent = spend_of_run(run_id)
        limits += [SpendLimit(budgets, spent, THE_BUDGET)] if budgets.bounds_calls else []
        limits += [SpendLimit.of_estimate(budgets.bound, spent)] if budgets.bound else []
    return limits


def _affordable(left: float, price: float | None, calls: int, mine: JudgeSpend) -> int:
    """Questions of so many `calls` at `price` that `left` pays for; a few at a time while the price is unknown."""
    if left <= 0:
        return 0
    if price is None:
        return max(0, FIRST_QUESTIONS - mine.in_flight)
    return min(NO_LIMIT, math.floor(left / (price * calls))) if price > 0 else NO_LIMIT


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a run may ask another question now. Where it may not and `reason` is empty, it waits for calls in flight,
    which may turn out cheaper than expected, or for the next day: `waits_for` says which limit is reached today.
    """

    may_ask: bool
    reason: str = ""
    waits_for: str = ""


def standing(run: Run) -> Standing:
    """The state of the run's budget, its project's caps and the operator's limits."""
    limits = _limits(run.pk, run.project_id, budgets=Budgets.of(run), caps=read_caps(run.project_id))
    by_operator = has_operator_limits()
    if not limits and not by_operator:
        return Standing(may_ask=True)
    tasks = JudgingTask.objects.filter(run=run)
    of_judge = JudgingTask.objects.filter(run=run, annotator=OuterRef("pk"), state=JudgingTask.State.OPEN)
    waiting = run.judges.filter(Exists(of_judge)).values_list("id", flat=True)
    judges = list(waiting) or list(run.judges.values_list("id", flat=True))
    found = [_least(judge, limits, by_operator=by_operator) for judge in judges]
    if not found or any(least.room > 0 for least in found):
        return Standing(may_ask=True)
    if renewing := next((least.reason for least in found if least.renews), ""):
        return Standing(may_ask=False, waits_for=renewing)
    is_waiting = any(least.is_waiting for least in found) or tasks.filter(state=JudgingTask.State.LEASED).exists()
    if is_waiting or ProviderBatch.objects.filter(run__project=run.project_id, state__in=ProviderBatch.OUT).exists():
        return Standing(may_ask=False)
    return Standing(may_ask=False, reason=found[0].reason)


@dataclass(frozen=True, slots=True)
class _Least:
    """The tightest limit of a judge: the fewest questions that any limit leaves it."""

    room: int
    reason: str
    renews: bool
    is_waiting: bool


def _least(annotator_id: int, limits: Sequence[SpendLimit], *, by_operator: bool) -> _Least:
    """Of limits that leave as much, one that does not renew: the run ends then."""
    rules = rules_of(annotator_id) if by_operator else OperatorRules()
    if rules.barred_from:
        return _Least(0, NOT_ALLOWED % {"endpoint": rules.barred_from}, renews=False, is_waiting=False)
    mine = [*limits, *limits_of(rules)]
    is_waiting = any(limit.is_waiting for limit in mine)
    rooms = [_Least(*limit.room(annotator_id), limit.renews, is_waiting) for limit in mine]
    return min(rooms, key=lambda each: (each.room, each.renews), default=_Least(NO_LIMIT, "", False, is_waiting))


def pairs_left(run: Run, judges: Sequence[int]) -> int:
    """Pairs that a round may still plan: what the budget of pairs leaves, and what the calls left can ask about.

    A call budget is rounded up to whole pairs, so that it is spent to the last call. Before a judge's first answer its calls
    count at the mean price of the run's estimate; without one, tokens and money do not limit the plan. They are enforced
    before each call.
    """
    budgets = Budgets.of(run)
    left = NO_LIMIT if budgets.pairs is None else max(0, budgets.pairs - run.pairs_planned)
    open_tasks: int | None = None
    ordered = replace(budgets, bound=None)  # the estimate's bound holds calls, and plans nothing
    presumed = expected_price(run.estimate)
    for limit in _limits(run.pk, run.project_id, budgets=ordered, caps=read_caps(run.project_id)):
        planned = replace(limit, presumed=presumed)
        rooms = [planned.room(judge)[0] for judge in judges if planned.knows_price(judge)]
        if not rooms:
            continue
        if open_tasks is None:
            open_tasks = _open_tasks(run)
        questions = max(0.0, sum(rooms) / len(rooms) - open_tasks)
        left = min(left, math.ceil(questions / calls_per_pair(run, judges)))
    return left


_OPEN = """
SELECT COALESCE((SELECT sum(tasks) FROM workers_taskcount WHERE run_id = %(run)s), 0)::bigint
       - (SELECT count(*) FROM workers_judgingtask WHERE state = 'leased' AND run_id = %(run)s)
       - (SELECT count(*) FROM workers_judgingtask WHERE state = 'dead' AND run_id = %(run)s)
"""


def _open_tasks(run: Run) -> int:
    """The run's open questions, without counting them one by one: a plan asks before each of its slices."""
    with connection.cursor() as cursor:
        cursor.execute(_OPEN, {"run": run.pk})
        return int(cursor.fetchone()[0])


def calls_per_pair(run: Run, judges: Sequence[int]) -> float:
    """Questions that one pair of this run takes, if `judges` answer its rounds."""
    return expected_calls_per_pair(
        run.allocation,
        run.orders,
        judges=max(len(judges), run.judges.count()),
        threshold=run.cascade_threshold,
        set_size=set_size_of(judges),
    )


def expected_calls_per_pair(
    allocation: str, orders: str, *, judges: int, threshold: float | None, set_size: int = 2
) -> float:
    """Questions a pair; in a cascade those of the first judge, and of the others on close calls. A question about a set of k
    documents counts as k - 1 pairs.

    How many are close is known only afterwards; preferences spread evenly over [0, 1] would be within t of one half
    in a share 2t of the pairs, and judges are mostly surer than that.
    """
    each = 1.0 / (set_size - 1)
    asked = {
        Run.Allocation.ALL.value: judges * each,
        Run.Allocation.ROTATE.value: each,
        Run.Allocation.INFORMATIVE.value: each,
        Run.Allocation.CASCADE.value: each + (judges - 1) * min(1.0, 2.0 * (threshold or 0.0)),
    }[str(allocation)]
    return asked * (2.0 if orders == Run.Orders.BOTH else 1.0)
