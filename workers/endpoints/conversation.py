"""Keeps many questions to one judge in flight: put some, take answers as they arrive, put more.

It connects the thread that claims and stores (`workers.judging.streaming`) with the event loop that makes the calls. The
judge `openai-http` creates it; imports no Django.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, runtime_checkable

from labeling.records import Comparison, Failure, FailureKind, Verdict
from workers.endpoints import exchanges
from workers.endpoints.event_loop import on_loop, run
from workers.endpoints.gates import Channel, Grant, Report, SharedGate

log = logging.getLogger(__name__)

Answer = Verdict | Failure


class Conversation:
    """The open questions to one judge, behind one shared gate. `ask` answers one comparison; an exception fails that one.

    Unanswered questions need different keys.
    """

    def __init__(self, ask: Callable[[Comparison, SharedGate], Coroutine[Any, Any, Answer]]) -> None:
        self._ask = ask
        self._gate = SharedGate(self._hurry)
        self._changed = threading.Condition()
        self._answers: list[tuple[int, Answer]] = []
        self._enough = 1
        self._is_urgent = False
        self.unanswered = 0
        # Called on the loop with each answer, as soon as it arrives.
        self.on_answer: Callable[[int, Answer], None] = lambda key, answer: None

    def put(self, comparisons: Sequence[Comparison]) -> None:
        """Ask these in their order, as soon as the gate allows."""
        self.unanswered += len(comparisons)
        on_loop(lambda: [self._answer(comparison) for comparison in comparisons])

    async def _answer(self, comparison: Comparison) -> None:
        exchanges.question.set(comparison.key)
        try:
            answer = await self._ask(comparison, self._gate)
        except Exception as error:
            log.exception("a question failed")
            answer = Failure(FailureKind.JUDGE_ERROR, f"{type(error).__name__}: {error}", retryable=True)
        try:
            self.on_answer(comparison.key, answer)
        except Exception:  # `take` still returns the answer, and it is stored then
            log.exception("an answer was not kept")
        with self._changed:
            self._answers.append((comparison.key, answer))
            if len(self._answers) >= self._enough:
                self._changed.notify()

    def take(self, *, enough: int, timeout_s: float) -> list[tuple[int, Answer]]:
        """(key, answer) of the answers so far; waits for `enough` of them, for `timeout_s`, or for an urgent report."""
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
        """Whether an event should be reported to other processes at once."""
        return self._is_urgent

    def report(self, wanted: int) -> Report:
        async def take() -> Report:
            return self._gate.report(wanted)

        self._is_urgent = False
        return run(take())

    def take_back(self, report: Report) -> None:
        """Add a report that did not arrive to the next one."""

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
    """A judge that answers one question at a time, under limits that it shares with other processes."""

    @property
    def calls_per_comparison(self) -> int: ...

    def channel(self) -> Channel:
        """The channel under which its limits are counted. Raises LookupError or ValueError where it cannot be called."""
        ...

    def converse(self) -> Conversation: ...
