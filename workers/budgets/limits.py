"""Budgets of runs and caps of projects: how much of them is left, and when they are spent.

The budget of pairs is enforced when a round is planned (`workers.runs.query_budgets`). Those of calls, tokens and money
are enforced before each call: `workers.judging.queue.claim` asks here how many questions of a run it may hand out.
`workers.budgets.spend` has what was spent, `workers.runs.advancing` ends a run whose budget is spent, and
`workers.budgets.changes` raises one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from labeling.stored_texts import stored_text
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
SPENT = {
    (THE_BUDGET, "calls"): stored_text("the budget of %(n)s calls is spent"),
    (THE_BUDGET, "tokens"): stored_text("the budget of %(n)s tokens is spent"),
    (THE_BUDGET, "cost"): stored_text("the budget of $%(n)s is spent"),
    (THE_CAP, "calls"): stored_text("the project's cap of %(n)s calls is spent"),
    (THE_CAP, "tokens"): stored_text("the project's cap of %(n)s tokens is spent"),
    (THE_CAP, "cost"): stored_text("the project's cap of $%(n)s is spent"),
}


class BadBudget(ValueError):
    """A budget that allows nothing; no budget at all is None."""


class CapReached(RuntimeError):
    """The caps of the project do not allow the calls that were about to be made."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """The most that a run may plan (`pairs`) or spend; None sets no limit, money in millionths of a dollar."""

    pairs: int | None = None
    calls: int | None = None
    tokens: int | None = None
    cost_micros: int | None = None

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
        return cls(run.pair_budget, run.call_budget, run.token_budget, run.cost_budget_micros)

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
    """What is left of a limit, below zero where more was reserved; None without a limit."""

    calls: int | None = None
    tokens: float | None = None
    cost_micros: float | None = None

    def covers(self, bounds: Sequence[tuple[int, int]]) -> int:
        """How many of these questions, from the first, it pays for at their bounds of (tokens, millionths of a dollar)."""
        tokens = cost = 0
        for number, (more_tokens, more_cost) in enumerate(bounds):
            tokens, cost = tokens + more_tokens, cost + more_cost
            used = (number + 1, self.calls), (tokens, self.tokens), (cost, self.cost_micros)
            if any(most is not None and each > most for each, most in used):
                return number
        return len(bounds)


@dataclass(frozen=True, slots=True)
class SpendLimit:
    """Budgets and what each judge has spent of them; `whose` names them in the reason with which a run ends."""

    budgets: Budgets
    spent: Mapping[int, JudgeSpend]
    whose: str

    @property
    def is_waiting(self) -> bool:
        """Whether calls in flight may turn out cheaper than expected."""
        return any(each.in_flight for each in self.spent.values())

    def room(self, annotator_id: int) -> tuple[int, str]:
        """How many questions this judge has left, and the reason of the limit that leaves the fewest.

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
            reason = SPENT[self.whose, "calls"] % {"n": f"{budgets.calls:,}"}
            rooms.append((left.calls // each, reason))
        if budgets.tokens is not None and left.tokens is not None:
            reason = SPENT[self.whose, "tokens"] % {"n": f"{budgets.tokens:,}"}
            rooms.append((_affordable(left.tokens, mine.tokens_a_call, each, mine), reason))
        if budgets.cost_micros is not None and left.cost_micros is not None:
            reason = SPENT[self.whose, "cost"] % {"n": f"{budgets.cost_micros / 1e6:,.2f}"}
            rooms.append((_affordable(left.cost_micros, mine.cost_a_call, each, mine), reason))
        room, least = min(rooms, key=lambda pair: pair[0])
        return max(0, room), least

    def left(self, annotator_id: int) -> Left:
        """What is left once the calls in flight have cost their mean price."""
        budgets = self.budgets
        known = {**self.spent, annotator_id: self._expected(annotator_id)}
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
        """The judge's spend here; before its first answer, its price is that of its latest calls elsewhere."""
        spend = self.spent.get(annotator_id, JudgeSpend())
        if not self.budgets.bounds_price or spend.tokens_a_call is not None or annotator_id == 0:
            return spend
        tokens, cost = recent_price(annotator_id)
        return replace(spend, tokens_a_call=tokens, cost_a_call=cost)


def read_caps(project_id: int) -> Budgets:
    """What all runs of a project may spend together."""
    caps = Caps.objects.filter(project_id=project_id).values_list("calls", "tokens", "cost_micros").first()
    return Budgets(None, *caps) if caps else Budgets()


def questions_left(run_id: int, project_id: int, annotator_id: int, *, budgets: Budgets, caps: Budgets) -> int:
    """How many questions this judge may be asked now, at the expected price of its calls. Locks the run and the project
    until the transaction ends, so that no two claims spend the same money.
    """
    if caps.bounds_calls:
        lock_project(project_id)
    if budgets.bounds_calls:
        lock_run(run_id)
    limits = _limits(run_id, project_id, budgets=budgets, caps=caps)
    return min((limit.room(annotator_id)[0] for limit in limits), default=NO_LIMIT)


def questions_covered(
    run_id: int, project_id: int, annotator_id: int, bounds: Sequence[tuple[int, int]], *, is_alone: bool
) -> int:
    """How many of these questions, from the first, may go out in a batch that reserves their bounds: (tokens, millionths
    of a dollar) each. Locks as `questions_left` does.

    Where they do not fit and the run has nothing out (`is_alone`), the mean price of the judge's calls counts instead:
    bounds are well above it, and the rest of a budget would otherwise go out in ever smaller batches.
    """
    budgets, caps = Budgets.of(Run.objects.get(pk=run_id)), read_caps(project_id)
    at_the_mean = questions_left(run_id, project_id, annotator_id, budgets=budgets, caps=caps)
    limits = _limits(run_id, project_id, budgets=budgets, caps=caps)
    covered = min((limit.left(annotator_id).covers(bounds) for limit in limits), default=len(bounds))
    if is_alone:
        covered = max(covered, at_the_mean)
    return min(covered, len(bounds))


def check_caps(project_id: int, annotator_id: int, questions: int) -> None:
    """Raise CapReached where the project's caps do not allow so many more questions to this judge. Locks the project
    until the transaction ends, in which the caller stores the calls.
    """
    caps = read_caps(project_id)
    if not caps.bounds_calls:
        return
    lock_project(project_id)
    room, reason = SpendLimit(caps, spend_of_project(project_id), THE_CAP).room(annotator_id)
    if room < questions:
        raise CapReached(f"{questions} more questions are too many, {room} can be asked: {reason}; raise it first")


def _limits(run_id: int, project_id: int, *, budgets: Budgets, caps: Budgets) -> list[SpendLimit]:
    limits = []
    if caps.bounds_calls:
        limits.append(SpendLimit(caps, spend_of_project(project_id), THE_CAP))
    if budgets.bounds_calls:
        limits.append(SpendLimit(budgets, spend_of_run(run_id), THE_BUDGET))
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
    which may turn out cheaper than expected.
    """

    may_ask: bool
    reason: str = ""


def standing(run: Run) -> Standing:
    """How the run stands with its budget and its project's caps."""
    limits = _limits(run.pk, run.project_id, budgets=Budgets.of(run), caps=read_caps(run.project_id))
    if not limits:
        return Standing(may_ask=True)
    tasks = JudgingTask.objects.filter(run=run)
    waiting = tasks.filter(state=JudgingTask.State.OPEN).order_by().values_list("annotator_id", flat=True).distinct()
    judges = list(waiting) or list(run.judges.values_list("id", flat=True))
    # For each judge, the limit that leaves it the fewest questions.
    least = [min((limit.room(judge) for limit in limits), key=lambda each: each[0]) for judge in judges]
    if not least or any(room > 0 for room, _ in least):
        return Standing(may_ask=True)
    is_waiting = any(limit.is_waiting for limit in limits) or tasks.filter(state=JudgingTask.State.LEASED).exists()
    if is_waiting or ProviderBatch.objects.filter(run__project=run.project_id, state__in=ProviderBatch.OUT).exists():
        return Standing(may_ask=False)
    return Standing(may_ask=False, reason=least[0][1])


def pairs_left(run: Run, judges: Sequence[int]) -> int:
    """Pairs that a round may still plan: what the budget of pairs leaves, and what the calls left can ask about.

    A call budget is rounded up to whole pairs, so that it is spent to the last call. Where a judge's price is
    unknown, tokens and money set no limit to the plan; they are enforced before each call.
    """
    budgets = Budgets.of(run)
    left = NO_LIMIT if budgets.pairs is None else max(0, budgets.pairs - run.pairs_planned)
    open_tasks: int | None = None
    for limit in _limits(run.pk, run.project_id, budgets=budgets, caps=read_caps(run.project_id)):
        rooms = [limit.room(judge)[0] for judge in judges if limit.knows_price(judge)]
        if not rooms:
            continue
        if open_tasks is None:
            open_tasks = JudgingTask.objects.filter(run=run, state=JudgingTask.State.OPEN).count()
        questions = max(0.0, sum(rooms) / len(rooms) - open_tasks)
        left = min(left, math.ceil(questions / calls_per_pair(run, judges)))
    return left


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
