"""What a run may spend: pairs, calls, tokens, money; how much of it is left, and when it is spent.

Pairs are bounded when a round is planned (`workers.shares`); calls, tokens and money before each call, by
`workers.queue.claim`, which asks here how many questions of a run it may hand out. `workers.pipeline` ends a
run whose budget is spent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection

from workers.models import JudgingTask, Run

NO_LIMIT = 2**31 - 1
MOST = 2**63 - 1
# Until a judge's first answers tell what a call costs, so many of its questions are out at once.
FIRST_CALLS = 4
RECENT_CALLS = 500


class BadBudget(ValueError):
    """A budget that allows nothing; no budget at all is None."""


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
class JudgeBooks:
    """One judge's calls in a run. `unpriced`: in flight, or lost with their worker and perhaps paid. `tokens` and
    `cost_micros`, totals and expected by a call; the latter are None before any call was answered.
    """

    calls: int
    unpriced: int
    tokens: int
    cost_micros: int
    tokens_a_call: float | None
    cost_a_call: float | None


NO_CALLS = JudgeBooks(0, 0, 0, 0, None, None)

_BOOKS = """
SELECT annotator_id, count(*), count(*) FILTER (WHERE outcome IN ('', 'lost')),
       COALESCE(sum(input_tokens::bigint + output_tokens), 0)::bigint, COALESCE(sum(cost_micros), 0)::bigint,
       (avg(input_tokens::bigint + output_tokens) FILTER (WHERE outcome IN ({answers})))::float8,
       (avg(cost_micros) FILTER (WHERE outcome IN ({answers})))::float8
FROM {attempts} GROUP BY annotator_id
""".replace("{answers}", "'preference', 'both_irrelevant', 'cannot_judge'")

_OF_RUN = "workers_attempt WHERE run_id = %s"
_RECENT = "(SELECT * FROM workers_attempt WHERE annotator_id = %s AND outcome <> '' ORDER BY id DESC LIMIT %s) recent"


def read_books(run_id: int) -> dict[int, JudgeBooks]:
    """The books of a run by judge."""
    with connection.cursor() as cursor:
        cursor.execute(_BOOKS.replace("{attempts}", _OF_RUN), [run_id])
        return {row[0]: JudgeBooks(*row[1:]) for row in cursor.fetchall()}


def _with_earlier_price(books: JudgeBooks, annotator_id: int) -> JudgeBooks:
    """Before its first answer in a run, a judge is expected to cost what it cost lately in others."""
    if books.tokens_a_call is not None:
        return books
    with connection.cursor() as cursor:
        cursor.execute(_BOOKS.replace("{attempts}", _RECENT), [annotator_id, RECENT_CALLS])
        row = cursor.fetchone()
    tokens, cost = row[5:] if row else (None, None)
    return JudgeBooks(books.calls, books.unpriced, books.tokens, books.cost_micros, tokens, cost)


def lock_books(run_id: int) -> None:
    """One claimer of a run at a time until the transaction ends: two would spend the same room."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('zelo.budget'), %s)", [run_id])


def calls_left(budgets: Budgets, run_id: int, annotator_id: int) -> int:
    """How many questions this judge may be asked now, at what its calls are expected to cost."""
    return _room(budgets, read_books(run_id), annotator_id)[0] if budgets.bounds_calls else NO_LIMIT


def _room(budgets: Budgets, books: dict[int, JudgeBooks], annotator_id: int) -> tuple[int, str]:
    """Calls that this judge has left, and the budget that leaves the fewest."""
    mine = books.get(annotator_id, NO_CALLS)
    if budgets.bounds_price:
        mine = _with_earlier_price(mine, annotator_id)
    known = {**books, annotator_id: mine}
    rooms = [(NO_LIMIT, "")]
    if budgets.calls is not None:
        left = budgets.calls - sum(each.calls for each in known.values())
        rooms.append((left, f"the budget of {budgets.calls:,} calls is spent"))
    if budgets.tokens is not None:
        read = sum(each.tokens + each.unpriced * (each.tokens_a_call or 0) for each in known.values())
        reason = f"the budget of {budgets.tokens:,} tokens is spent"
        rooms.append((_affordable(budgets.tokens - read, mine.tokens_a_call, mine), reason))
    if budgets.cost_micros is not None:
        spent = sum(each.cost_micros + each.unpriced * (each.cost_a_call or 0) for each in known.values())
        reason = f"the budget of ${budgets.cost_micros / 1e6:,.2f} is spent"
        rooms.append((_affordable(budgets.cost_micros - spent, mine.cost_a_call, mine), reason))
    room, reason = min(rooms, key=lambda each: each[0])
    return max(0, room), reason


def _affordable(left: float, price: float | None, mine: JudgeBooks) -> int:
    """Calls at `price` that `left` pays for; a judge whose price nobody knows gets a few at a time."""
    if left <= 0:
        return 0
    if price is None:
        return max(0, FIRST_CALLS - mine.unpriced)
    return min(NO_LIMIT, math.floor(left / price)) if price > 0 else NO_LIMIT


def spent_reason(run: Run) -> str:
    """Why no further call of this run can be paid; empty while one can, or while some are in flight."""
    budgets = Budgets.of(run)
    if not budgets.bounds_calls:
        return ""
    tasks = JudgingTask.objects.filter(run=run)
    if tasks.filter(state=JudgingTask.State.LEASED).exists():
        return ""
    waiting = tasks.filter(state=JudgingTask.State.OPEN).order_by().values_list("annotator_id", flat=True).distinct()
    judges = list(waiting) or list(run.judges.values_list("id", flat=True))
    books = read_books(run.pk)
    rooms = [_room(budgets, books, judge) for judge in judges]
    return "" if any(room > 0 for room, _ in rooms) else next((reason for _, reason in rooms), "")


def pairs_left(run: Run, judges: Sequence[int]) -> int:
    """Pairs that a round may still plan: what the budget of pairs leaves, and what the calls left can ask about.

    A call budget is rounded up to whole pairs, so that it is spent to the last call. Where a judge's price is
    unknown, tokens and money set no limit to the plan; they are enforced before each call.
    """
    budgets = Budgets.of(run)
    left = NO_LIMIT if budgets.pairs is None else max(0, budgets.pairs - run.pairs_planned)
    if not budgets.bounds_calls:
        return left
    books = read_books(run.pk)
    open_tasks = JudgingTask.objects.filter(run=run, state=JudgingTask.State.OPEN).count()
    rooms = [_room(budgets, books, judge)[0] for judge in judges if _is_priced(budgets, books, judge)]
    if not rooms:
        return left
    questions = max(0.0, sum(rooms) / len(rooms) - open_tasks)
    return min(left, math.ceil(questions / calls_per_pair(run, len(judges))))


def _is_priced(budgets: Budgets, books: dict[int, JudgeBooks], judge: int) -> bool:
    if not budgets.bounds_price:
        return True
    return _with_earlier_price(books.get(judge, NO_CALLS), judge).tokens_a_call is not None


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
