"""A queue of questions to a judge with many calls in flight: add questions, take answers as they arrive, add more.

It connects the thread that claims and stores with the event loop that calls. Used by `openai_http` and
`workers.judging.streaming`; imports no Django.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, runtime_checkable

from labeling.records import Comparison, Failure, FailureKind, Verdict
from workers.endpoints.gates import Channel, Grant, Report, SharedGate
from workers.judges.openai.client import on_loop, run

log = logging.getLogger(__name__)

Answer = Verdict | Failure


class Conversation:
    """Open questions to one judge, behind one shared gate. `ask` answers one comparison; an exception fails only that one.

    Keys identify questions and must differ while they are unanswered.
    """

    def __init__(self, ask: Callable[[Comparison, SharedGate], Coroutine[Any, Any, Answer]]) -> None:
        self._ask = ask
        self._gate = SharedGate(self._hurry)
        self._changed = threading.Condition()
        self._answers: list[tuple[int, Answer]] = []
        self._enough = 1
        self._is_urgent = False
        self.unanswered = 0
        # Called on the loop with each answer as soon as it arrives.
        self.told: Callable[[int, Answer], None] = lambda key, answer: None

    def put(self, comparisons: Sequence[Comparison]) -> None:
        """Ask these questions in order, as soon as the gate allows."""
        self.unanswered += len(comparisons)
        on_loop(lambda: [self._answer(comparison) for comparison in comparisons])

    async def _answer(self, comparison: Comparison) -> None:
        try:
            answer = await self._ask(comparison, self._gate)
        except Exception as error:
            log.exception("a question failed")
            answer = Failure(FailureKind.JUDGE_ERROR, f"{type(error).__name__}: {error}", retryable=True)
        try:
            self.told(comparison.key, answer)
        except Exception:  # the taker stores the answer anyway; without it the taker would wait forever
            log.exception("cannot write an answer to the write-ahead log")
        with self._changed:
            self._answers.append((comparison.key, answer))
            if len(self._answers) >= self._enough:
                self._changed.notify()

    def take(self, *, enough: int, timeout_s: float) -> list[tuple[int, Answer]]:
        """(key, answer) pairs that have arrived; returns after so many, after so long, or when a report is urgent."""
        with self._changed:
            self._enough = max(1, min(enough, self.unanswered))
            self._changed.wait_for(lambda: self._is_urgent or len(self._answers) >= self._enough, timeout_s)
            taken, self._answers = self._answers, []
        self.unanswered -= len(taken)
        return taken

    def _hurry(self) -> None:
        with self._changed:
            self._is_urgent = True
            self._changed.notify()

    @property
    def is_urgent(self) -> bool:
        """Whether something happened that other processes must learn at once."""
        return self._is_urgent

    def report(self, wanted: int) -> Report:
        async def take() -> Report:
            return self._gate.report(wanted)

        self._is_urgent = False
        return run(take())

    def take_back(self, report: Report) -> None:
        """Keep the report for the next visit, because it was not delivered."""

        async def give() -> None:
            self._gate.take_back(report)

        run(give())

    def apply(self, grant: Grant, asked_at: float) -> None:
        async def put() -> None:
            self._gate.apply(grant, asked_at)

        run(put())

    def hand_back(self, why: str) -> None:
        """Answer all questions that were not asked yet with NotAsked; calls in flight continue."""

        async def back() -> None:
            self._gate.hand_back(why)

        run(back())


@runtime_checkable
class ConversingJudge(Protocol):
    """A judge that asks questions one by one and shares limits with other processes."""

    @property
    def calls_per_comparison(self) -> int: ...

    def channel(self) -> Channel:
        """The channel under which its limits are counted. Raises LookupError or ValueError if it cannot be called."""
        ...

    def converse(self) -> Conversation: ...
