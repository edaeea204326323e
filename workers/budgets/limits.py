"""What a run and a project may spend: pairs, calls, tokens, money; how much is left, and when it is spent.

Pairs are bounded when a round is planned (`workers.runs.query_budgets`); calls, tokens and money before each call, by
`workers.judging.queue.claim`, which asks here how many questions of a run it may hand out. What was spent is in
`workers.budgets.spend`. `workers.runs.advancing` ends a run whose budget is spent, `workers.budgets.changes` raises one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from labeling.stored_texts import stored_text
from workers.budgets.spend import (
    JudgeBooks,
    books_of_project,
    books_of_run,
    calls_a_question,
    lock_project,
    lock_run,
    recent_price,
)
from workers.models import Caps, JudgingTask, Run

NO_LIMIT = 2**31 - 1
MOST = 2**63 - 1
# Until a judge's first answers tell what a call costs, so many of its questions are out at once.
FIRST_QUESTIONS = 4

# What is told of a purse that is empty, by whose it is.
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
    """What a project may spend leaves no room for what was to be asked."""


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
        """Whether something must be looked up before each call."""
        return self.calls is not None or self.bounds_price

    @property
    def bounds_price(self) -> bool:
        """Whether it matters what a call costs."""
        return self.tokens is not None or self.cost_micros is not None


@dataclass(frozen=True, slots=True)
class _Purse:
    """Budgets with what has been spent of them; `whose` names them in the reason of a run's end."""

    budgets: Budgets
    books: Mapping[int, JudgeBooks]
    whose: str

    @property
    def is_waiting(self) -> bool:
        """Whether calls in flight may yet turn out cheaper than they are reckoned."""
        return any(each.in_flight for each in self.books.values())


def read_caps(project_id: int) -> Budgets:
    """What all runs of a project may spend together."""
    caps = Caps.objects.filter(project_id=project_id).values_list("calls", "tokens", "cost_micros").first()
    return Budgets(None, *caps) if caps else Budgets()


def questions_left(run_id: int, project_id: int, annotator_id: int, *, budgets: Budgets, caps: Budgets) -> int:
    """How many questions this judge may be asked now, at what its calls are expected to cost. Locks the books until
    the transaction ends, so that no two claims spend the same room.
    """
    if caps.bounds_calls:
        lock_project(project_id)
    if budgets.bounds_calls:
        lock_run(run_id)
    purses = _purses(run_id, project_id, budgets=budgets, caps=caps)
    return min((_room(purse, annotator_id)[0] for purse in purses), default=NO_LIMIT)


def check_caps(project_id: int, annotator_id: int, questions: int) -> None:
    """Raise CapReached where the project's caps do not allow so many more questions to this judge. Locks the project's
    books until the transaction ends; the caller books the calls in it.
    """
    caps = read_caps(project_id)
    if not caps.bounds_calls:
        return
    lock_project(project_id)
    room, reason = _room(_Purse(caps, books_of_project(project_id), THE_CAP), annotator_id)
    if room < questions:
        raise CapReached(f"{questions} more questions are too many, {room} can be asked: {reason}; raise it first")


def _purses(run_id: int, project_id: int, *, budgets: Budgets, caps: Budgets) -> list[_Purse]:
    purses = []
    if caps.bounds_calls:
        purses.append(_Purse(caps, books_of_project(project_id), THE_CAP))
    if budgets.bounds_calls:
        purses.append(_Purse(budgets, books_of_run(run_id), THE_BUDGET))
    return purses


def _with_earlier_price(books: JudgeBooks, annotator_id: int) -> JudgeBooks:
    """Before its first answer in a run, a judge is expected to cost what it cost lately in others."""
    if books.tokens_a_call is not None or annotator_id == 0:
        return books
    tokens, cost = recent_price(annotator_id)
    return replace(books, tokens_a_call=tokens, cost_a_call=cost)


def _room(purse: _Purse, annotator_id: int) -> tuple[int, str]:
    """Questions that this judge has left, and the limit that leaves the fewest.

    A question is reckoned with all its calls at their mean price from the moment it is handed out, and settled by what
    they cost. Questions that were lost with their worker stay reckoned: they may have been paid.
    """
    budgets, whose = purse.budgets, purse.whose
    mine = purse.books.get(annotator_id, JudgeBooks())
    if budgets.bounds_price:
        mine = _with_earlier_price(mine, annotator_id)
    known = {**purse.books, annotator_id: mine}
    each = calls_a_question(annotator_id)
    reckoned = {judge: books.unpriced * calls_a_question(judge) for judge, books in known.items() if books.unpriced}
    rooms = [(NO_LIMIT, "")]
    if budgets.calls is not None:
        left = budgets.calls - sum(books.calls - books.unpriced for books in known.values()) - sum(reckoned.values())
        rooms.append((left // each, SPENT[whose, "calls"] % {"n": f"{budgets.calls:,}"}))
    if budgets.tokens is not None:
        expected = sum(calls * (known[judge].tokens_a_call or 0) for judge, calls in reckoned.items())
        left_tokens = budgets.tokens - sum(books.tokens for books in known.values()) - expected
        reason = SPENT[whose, "tokens"] % {"n": f"{budgets.tokens:,}"}
        rooms.append((_affordable(left_tokens, mine.tokens_a_call, each, mine), reason))
    if budgets.cost_micros is not None:
        expected = sum(calls * (known[judge].cost_a_call or 0) for judge, calls in reckoned.items())
        left_micros = budgets.cost_micros - sum(books.cost_micros for books in known.values()) - expected
        reason = SPENT[whose, "cost"] % {"n": f"{budgets.cost_micros / 1e6:,.2f}"}
        rooms.append((_affordable(left_micros, mine.cost_a_call, each, mine), reason))
    room, least = min(rooms, key=lambda each: each[0])
    return max(0, room), least


def _affordable(left: float, price: float | None, calls: int, mine: JudgeBooks) -> int:
    """Questions of so many `calls` at `price` that `left` pays for; of a judge whose price nobody knows, a few at a time."""
    if left <= 0:
        return 0
    if price is None:
        return max(0, FIRST_QUESTIONS - mine.in_flight)
    return min(NO_LIMIT, math.floor(left / (price * calls))) if price > 0 else NO_LIMIT


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a run may ask another question now. Where it may not and `reason` is empty, calls in flight, which
    may turn out cheaper than they are reckoned, are waited for.
    """

    may_ask: bool
    reason: str = ""


def standing(run: Run) -> Standing:
    """How the run stands with its budget and its project's caps."""
    purses = _purses(run.pk, run.project_id, budgets=Budgets.of(run), caps=read_caps(run.project_id))
    if not purses:
        return Standing(may_ask=True)
    tasks = JudgingTask.objects.filter(run=run)
    waiting = tasks.filter(state=JudgingTask.State.OPEN).order_by().values_list("annotator_id", flat=True).distinct()
    judges = list(waiting) or list(run.judges.values_list("id", flat=True))
    # Of each judge the limit that leaves it least.
    least = [min((_room(purse, judge) for purse in purses), key=lambda each: each[0]) for judge in judges]
    if not least or any(room > 0 for room, _ in least):
        return Standing(may_ask=True)
    if any(purse.is_waiting for purse in purses) or tasks.filter(state=JudgingTask.State.LEASED).exists():
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
    for purse in _purses(run.pk, run.project_id, budgets=budgets, caps=read_caps(run.project_id)):
        rooms = [_room(purse, judge)[0] for judge in judges if _is_priced(purse, judge)]
        if not rooms:
            continue
        if open_tasks is None:
            open_tasks = JudgingTask.objects.filter(run=run, state=JudgingTask.State.OPEN).count()
        questions = max(0.0, sum(rooms) / len(rooms) - open_tasks)
        left = min(left, math.ceil(questions / calls_per_pair(run, len(judges))))
    return left


def _is_priced(purse: _Purse, judge: int) -> bool:
    if not purse.budgets.bounds_price:
        return True
    return _with_earlier_price(purse.books.get(judge, JudgeBooks()), judge).tokens_a_call is not None


def calls_per_pair(run: Run, judges: int) -> float:
    """Questions that one pair of this run takes."""
    return expected_calls_per_pair(
        run.allocation, run.orders, judges=max(judges, run.judges.count()), threshold=run.cascade_threshold
    )


def expected_calls_per_pair(allocation: str, orders: str, *, judges: int, threshold: float | None) -> float:
    """Questions a pair; in a cascade those of the first judge, and of the others on close calls.

    How many are close is known only afterwards; preferences spread evenly over [0, 1] would be within t of one half
    in a share 2t of the pairs, and judges are mostly surer than that.
    """
    asked = {
        Run.Allocation.ALL.value: float(judges),
        Run.Allocation.ROTATE.value: 1.0,
        Run.Allocation.CASCADE.value: 1.0 + (judges - 1) * min(1.0, 2.0 * (threshold or 0.0)),
    }[str(allocation)]
    return asked * (2.0 if orders == Run.Orders.BOTH else 1.0)
