"""Gates in front of the connection to an endpoint: they delay calls until the limits allow them.

Every call passes a gate. `LocalGate` enforces the limits in this process alone; `SharedGate` enforces what
`workers.endpoints.limiter` grants to this process from the limits of all workers. Gates live on the loop of
`workers.endpoints.event_loop`; imports no Django.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

# After so many failed calls in a row the endpoint has an outage, and the questions are not to blame.
BREAK_AFTER = 5
# If a server accepts calls and fails them for so long, the questions may cause it: from then on attempts count.
PATIENCE_S = 900.0
# Questions wait during a shorter pause and are handed back for a longer one.
SHORT_PAUSE_S = 3.0


class Outcome(enum.Enum):
    """The state of the endpoint after a call. `ANSWERED` is any reply of a working server, even to a bad request."""

    ANSWERED = "answered"
    RATE_LIMITED = "rate limited"
    OUTAGE = "outage"


@dataclass(frozen=True, slots=True)
class Left:
    """The end of a call. `correction`: tokens by which its estimate was too low; `error`: its message, without keys."""

    outcome: Outcome
    correction: int = 0
    retry_after_s: float | None = None
    error: str = ""


class Held(Exception):
    """The gate opens too late for the deadline; `wait_s`: for how long it stays closed, if known."""

    def __init__(self, why: str, wait_s: float | None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of an endpoint: calls at the same time, requests and tokens a minute; `timeout_s` of a call."""

    concurrency: int
    rpm: float | None = None
    tpm: float | None = None
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Channel:
    """One endpoint as its provider counts calls. Processes that share its limits have the same `identity`, which holds no secret."""

    identity: str
    name: str
    base_url: str
    model: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class Grant:
    """The grant of a process until its next report; None for requests or tokens is no limit.

    `closed_s`: no call may start for so long. `failures`, `outage_s`: those of all processes so far.
    """

    epoch: int
    slots: int
    requests: int | None = None
    tokens: float | None = None
    closed_s: float = 0.0
    is_down: bool = False
    failures: int = 0
    outage_s: float = 0.0
    valid_s: float = 9.0
    renew_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Report:
    """The events under a grant since the last report. `slots`: as last granted; `outages`: since the last answer."""

    epoch: int = -1
    slots: int = 0
    in_flight: int = 0
    wanted: int = 0
    drawn_requests: int = 0
    drawn_tokens: float = 0.0
    requests: int = 0
    tokens: float = 0.0
    answered: int = 0
    rate_limited: int = 0
    all_rate_limited: int = 0
    retry_after_s: float | None = None
    outages: int = 0
    all_outages: int = 0
    error: str = ""


class Gate(Protocol):
    """The interface of gates: a connection calls `enter` before a call and `leave` after it."""

    async def enter(self, tokens: int, latest_start: float) -> int:
        """Wait until a call of about so many tokens may start, at most until `latest_start` (time.monotonic()). Raises Held."""
        ...

    def leave(self, entered: int, left: Left) -> None:
        """Record the end of a call; `entered` is the value of `enter`."""
        ...

    def excuses(self, *, reached: bool) -> bool:
        """Whether the endpoint caused a failed call; `reached`: it had accepted the question."""
        ...


class Pace:
    """Spreads a rate evenly over a minute; the unused part of a second may be used in a burst."""

    def __init__(self, per_minute: float) -> None:
        self.seconds_each = 60.0 / per_minute
        self._free_at = 0.0

    def wait_s(self, now: float) -> float:
        """Seconds until the next amount may be sent."""
        return max(0.0, self._free_at - now)

    def spend(self, amount: float, now: float) -> None:
        self._free_at = max(self._free_at, now - 1.0) + amount * self.seconds_each


class LocalGate:
    """Enforces the limits of an endpoint in this process alone."""

    def __init__(self, limits: Limits) -> None:
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._requests = Pace(limits.rpm) if limits.rpm else None
        self._tokens = Pace(limits.tpm) if limits.tpm else None
        self._closed_until = 0.0

    async def enter(self, tokens: int, latest_start: float) -> int:
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + latest_start - time.monotonic()):
                await self._slots.acquire()
        except TimeoutError:
            raise Held("no free slot", None) from None
        try:
            await self._wait_for_turn(tokens, latest_start)
        except BaseException:
            self._slots.release()
            raise
        return 0

    async def _wait_for_turn(self, tokens: int, latest_start: float) -> None:
        """Wait until the rates and the endpoint's own Retry-After allow a call."""
        while True:
            now = time.monotonic()
            wait = max(self._closed_until - now, *(pace.wait_s(now) for pace in self._paces()), 0.0)
            if now + wait >= latest_start:
                raise Held("rate limit", wait)
            if wait <= 0.0:
                break
            await asyncio.sleep(wait)
        if self._requests is not None:
            self._requests.spend(1, now)
        if self._tokens is not None:
            self._tokens.spend(tokens, now)

    def _paces(self) -> list[Pace]:
        return [pace for pace in (self._requests, self._tokens) if pace is not None]

    def leave(self, entered: int, left: Left) -> None:
        self._slots.release()
        if left.outcome is Outcome.RATE_LIMITED and left.retry_after_s:
            # The limit is the account's: the other waiting calls would be rejected as well.
            self._closed_until = max(self._closed_until, time.monotonic() + left.retry_after_s)

    def excuses(self, *, reached: bool) -> bool:
        return False


class SharedGate:
    """Enforces the part of an endpoint's limits that was granted to this process; it is closed without a valid grant.

    Call all methods on the event loop. The gate calls `urgent` when the next report should not wait.
    """

    def __init__(self, urgent: Callable[[], None] = lambda: None) -> None:
        self.urgent = urgent
        self.in_flight = 0
        self._grant = Grant(epoch=-1, slots=0)
        self._valid_until = self._closed_until = 0.0
        self._requests_left: float = 0
        self._tokens_left: float = 0
        self._waiting: deque[tuple[asyncio.Future[int], int]] = deque()
        self._told = 0
        self._begin_report()

    def _begin_report(self) -> None:
        self._requests = self._answered = self._rate_limited = self._all_rate_limited = 0
        self._outages = self._all_outages = 0
        self._tokens = 0.0
        self._retry_after_s: float | None = None
        self._error = ""

    # --- calls ---------------------------------------------------------------------------

    async def enter(self, tokens: int, latest_start: float) -> int:
        if (wait := self._closed_for()) > SHORT_PAUSE_S:
            raise Held("pause", wait)
        if not self._waiting and self._has_room():
            return self._let_in(tokens)
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, tokens))
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + latest_start - time.monotonic()):
                return await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.done() and not turn.cancelled():  # admitted at the moment of its timeout
                self.leave(turn.result(), Left(Outcome.ANSWERED, correction=-tokens))
            if isinstance(error, TimeoutError):
                raise Held("no free slot", self._closed_for() or None) from None
            raise

    def leave(self, entered: int, left: Left) -> None:
        outcome, retry_after_s = left.outcome, left.retry_after_s
        self.in_flight -= 1
        self._tokens += left.correction
        self._tokens_left -= left.correction
        is_current = entered == self._grant.epoch
        if outcome is Outcome.ANSWERED:
            self._answered += is_current
            self._outages = 0 if is_current else self._outages
        elif outcome is Outcome.RATE_LIMITED:
            self._rate_limited += is_current
            self._all_rate_limited += 1
            self._retry_after_s = max(self._retry_after_s or 0.0, retry_after_s or 0.0) or None
            self._close(retry_after_s or 1.0)
        else:
            self._outages += is_current
            self._all_outages += 1
        self._error = left.error if outcome is not Outcome.ANSWERED else self._error
        if is_current and (self._grant.is_down or outcome is not Outcome.ANSWERED):
            self.urgent()
        self._wake()

    def excuses(self, *, reached: bool) -> bool:
        grant = self._grant
        is_down = grant.is_down or self._failures() >= BREAK_AFTER
        return is_down and not (reached and grant.outage_s > PATIENCE_S)

    def _has_room(self) -> bool:
        now = time.monotonic()
        return (
            self.in_flight < self._grant.slots
            and self._closed_until <= now < self._valid_until
            and self._requests_left > 0
            and self._tokens_left > 0
            and (self._grant.is_down or self._failures() < BREAK_AFTER)
        )

    def _failures(self) -> int:
        """Calls in a row that reached no working endpoint: those in the last grant, reported since, and not reported yet."""
        return self._grant.failures + self._told + self._outages

    def _let_in(self, tokens: int) -> int:
        self.in_flight += 1
        self._requests_left -= 1
        self._tokens_left -= tokens
        self._requests += 1
        self._tokens += tokens
        return self._grant.epoch

    def _wake(self) -> None:
        while self._waiting and self._has_room():
            turn, tokens = self._waiting.popleft()
            if not turn.done():
                turn.set_result(self._let_in(tokens))

    def _closed_for(self) -> float:
        return max(0.0, self._closed_until - time.monotonic())

    def _close(self, seconds: float) -> None:
        if seconds > 0.0:
            self._closed_until = max(self._closed_until, time.monotonic() + seconds)
            asyncio.get_running_loop().call_later(seconds + 0.001, self._wake)

    # --- reports and grants --------------------------------------------------------------

    def report(self, wanted: int) -> Report:
        """The events since the last report; the next report begins here."""
        grant = self._grant
        report = Report(
            epoch=grant.epoch, slots=grant.slots, in_flight=self.in_flight, wanted=wanted,
            drawn_requests=grant.requests or 0, drawn_tokens=grant.tokens or 0.0,
            requests=self._requests, tokens=self._tokens, answered=self._answered, rate_limited=self._rate_limited,
            all_rate_limited=self._all_rate_limited, retry_after_s=self._retry_after_s, outages=self._outages,
            all_outages=self._all_outages, error=self._error,
        )  # fmt: skip
        self._told = self._outages
        self._begin_report()
        return report

    def take_back(self, report: Report) -> None:
        """Add a report that did not arrive to the next one."""
        self._told = 0
        self._requests += report.requests
        self._tokens += report.tokens
        self._answered += report.answered
        self._rate_limited += report.rate_limited
        self._all_rate_limited += report.all_rate_limited
        self._outages += report.outages
        self._all_outages += report.all_outages
        self._retry_after_s = max(self._retry_after_s or 0.0, report.retry_after_s or 0.0) or None
        self._error = self._error or report.error

    def apply(self, grant: Grant, asked_at: float) -> None:
        """Use this grant; `asked_at`: when its report was taken, by time.monotonic()."""
        self._grant = grant
        self._told = 0
        self._valid_until = asked_at + grant.valid_s
        self._closed_until = 0.0
        self._close(grant.closed_s)
        self._requests_left = float("inf") if grant.requests is None else grant.requests - self._requests
        self._tokens_left = float("inf") if grant.tokens is None else grant.tokens - self._tokens
        if grant.closed_s > SHORT_PAUSE_S:
            self.hand_back("pause", grant.closed_s)
        self._wake()

    def hand_back(self, why: str, wait_s: float | None = None) -> None:
        """Reject the calls that wait."""
        while self._waiting:
            turn, _ = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(Held(why, wait_s))
