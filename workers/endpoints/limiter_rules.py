"""The rules of rate limiting: from the state of an endpoint and a report to its next state and a grant.

Pure, so that tests can set the clock; `workers.endpoints.limiter` runs them under the lock of the endpoint's row. Times are
seconds since 1970 by the database's clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from workers.endpoints.gates import BREAK_AFTER, Grant, Limits, Report

CLOSED, PAUSED, OPEN, HALF_OPEN = "closed", "paused", "open", "half_open"

SHARE_S = 10.0
RENEW_S, RENEW_SOON_S = 1.0, 0.25
BACKOFF_BASE_S, BACKOFF_MOST_S = 1.0, 60.0
MOST_PAUSE_S = 3600.0
# Rates are drawn for twice the time to the next report; one second's unused share may be sent in a burst.
AHEAD_S, BURST_S = 0.5, 0.5


@dataclass(frozen=True, slots=True)
class Share:
    """Another process at the endpoint: the slots that it holds, and how many it can use."""

    slots: int
    wanted: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests and tokens of this minute and of the one before."""

    minute: int = 0
    requests: int = 0
    tokens: float = 0.0
    last_requests: int = 0
    last_tokens: float = 0.0

    def at(self, now: float) -> Usage:
        """The counts moved to the minute of `now`."""
        minute = int(now // 60)
        if minute == self.minute:
            return self
        if minute == self.minute + 1:
            return Usage(minute, 0, 0.0, self.requests, self.tokens)
        return Usage(minute)

    def last_minute(self, now: float) -> tuple[float, float]:
        """(requests, tokens) of the last sixty seconds; assumes that the minute before was evenly used."""
        usage, rest = self.at(now), 1.0 - (now % 60) / 60
        return usage.requests + rest * usage.last_requests, usage.tokens + rest * usage.last_tokens


@dataclass(frozen=True, slots=True)
class State:
    """The state of an endpoint that all workers share.

    `mode`: closed (working), paused (after a 429), open (not answering), half open (testing with one call). `epoch`
    rises with each change of mode, so that older calls do not affect the new one. `ceiling`: how many calls
    at a time it bears after a 429. `trips`: pauses without an answer between them; `failures`: outages likewise.
    """

    mode: str = CLOSED
    epoch: int = 0
    until: float = 0.0
    trips: int = 0
    failures: int = 0
    down_since: float | None = None
    ceiling: float = math.inf
    probe_by: str = ""
    probe_until: float = 0.0
    requests_from: float = 0.0
    tokens_from: float = 0.0
    usage: Usage = field(default_factory=Usage)


def decide(
    state: State, report: Report, *, holder: str, others: Sequence[Share], limits: Limits, now: float, luck: float
) -> tuple[State, Grant, int]:
    """The next state, the grant of the holder, and the number of slots to store for it.

    `others`: live shares of other processes. `luck` in [0, 1) adds jitter to pauses without a Retry-After.
    """
    state = _settle(state, report, limits, now)
    state = _learn(state, report, holder=holder, limits=limits, now=now, luck=luck)
    if state.mode == PAUSED and now >= state.until:
        state = replace(state, mode=CLOSED, epoch=state.epoch + 1)
    if state.mode == OPEN and now >= state.until:
        state = replace(state, mode=HALF_OPEN, epoch=state.epoch + 1, probe_by="")
    if state.mode == HALF_OPEN:
        state, slots, requests = _probe(state, report, holder=holder, limits=limits, now=now)
    elif state.mode == CLOSED:
        slots, requests = _fair_share(state, report, others, limits), None
    else:
        slots, requests = 0, None
    tokens: float | None = None
    rate_s = 0.0
    if slots and state.mode == CLOSED:
        state, requests, tokens, rate_s = _draw(state, report, limits, now)
    # A process that must give up slots may be using them: they are free once it reports so.
    booked = max(slots, report.slots, report.in_flight)
    is_short = slots < min(report.wanted, limits.concurrency) or booked > slots
    grant = Grant(
        epoch=state.epoch,
        slots=slots,
        requests=requests,
        tokens=tokens,
        closed_s=max(0.0, state.until - now) if state.mode in {PAUSED, OPEN} else rate_s,
        is_down=state.mode in {OPEN, HALF_OPEN},
        failures=state.failures,
        outage_s=now - state.down_since if state.down_since is not None else 0.0,
        valid_s=SHARE_S - 1.0,
        renew_s=RENEW_SOON_S if is_short or requests is not None or tokens is not None else RENEW_S,
    )
    return state, grant, booked


def _settle(state: State, report: Report, limits: Limits, now: float) -> State:
    """Replace what the process had drawn by what it used."""
    usage = state.usage.at(now)
    usage = replace(usage, requests=usage.requests + report.requests, tokens=usage.tokens + report.tokens)
    requests_from, tokens_from = state.requests_from, state.tokens_from
    if limits.rpm:
        requests_from += (report.requests - report.drawn_requests) * 60.0 / limits.rpm
    if limits.tpm:
        tokens_from += (report.tokens - report.drawn_tokens) * 60.0 / limits.tpm
    return replace(state, usage=usage, requests_from=requests_from, tokens_from=tokens_from)


def _learn(state: State, report: Report, *, holder: str, limits: Limits, now: float, luck: float) -> State:
    """The state after the outcomes of the reported calls."""
    if report.epoch != state.epoch:
        if state.mode == PAUSED and report.retry_after_s:
            return replace(state, until=max(state.until, now + min(report.retry_after_s, MOST_PAUSE_S)))
        return state
    if report.rate_limited and state.mode in {CLOSED, HALF_OPEN}:
        trips = 0 if report.answered else state.trips
        asked = min(report.retry_after_s, MOST_PAUSE_S) if report.retry_after_s else _backoff_s(trips, luck)
        borne = min(state.ceiling, limits.concurrency, max(report.in_flight + report.rate_limited, 1))
        return replace(
            state, mode=PAUSED, epoch=state.epoch + 1, until=now + asked, trips=trips + 1, ceiling=max(1.0, borne / 2),
            failures=0, down_since=None, probe_by="",
        )  # fmt: skip
    if report.answered:
        grown = state.ceiling + report.answered / math.sqrt(state.ceiling)
        is_back = state.mode != CLOSED
        state = replace(
            state, mode=CLOSED, epoch=state.epoch + is_back, trips=0, failures=0, down_since=None, probe_by="",
            ceiling=grown if grown < limits.concurrency else math.inf,
        )  # fmt: skip
        if is_back:
            return state
    failures = state.failures + report.outages
    if report.outages and state.down_since is None:
        state = replace(state, down_since=now)
    if report.outages and (state.mode == HALF_OPEN or failures >= BREAK_AFTER):
        return replace(
            state, mode=OPEN, epoch=state.epoch + 1, until=now + _backoff_s(state.trips, luck), trips=state.trips + 1,
            failures=failures, probe_by="",
        )  # fmt: skip
    return replace(state, failures=failures)


def _backoff_s(trips: int, luck: float) -> float:
    """Exponential backoff, with a jitter of a half to either side."""
    return float(min(BACKOFF_MOST_S, BACKOFF_BASE_S * 2.0 ** min(trips, 30)) * (0.5 + luck))


def _probe(state: State, report: Report, *, holder: str, limits: Limits, now: float) -> tuple[State, int, int]:
    """(state, slots, requests): one process tests with one call; if it crashes, another does."""
    if state.probe_by == holder and report.epoch == state.epoch:
        is_unused = report.requests == 0 and report.in_flight == 0
        return state, 1, 1 if is_unused else 0
    if (state.probe_by and now < state.probe_until) or report.wanted == 0:
        return state, 0, 0
    return replace(state, probe_by=holder, probe_until=now + limits.timeout_s + SHARE_S), 1, 1


def _fair_share(state: State, report: Report, others: Sequence[Share], limits: Limits) -> int:
    """As many slots as wanted; where they are scarce, an equal share, and none that others still hold."""
    most = int(min(limits.concurrency, state.ceiling))
    free = max(0, most - sum(share.slots for share in others))
    left, wants = most, sorted(share.wanted for share in others if share.wanted)
    for place, wanted in enumerate(wants):
        fair = left // (len(wants) + 1 - place)
        if wanted > fair:
            return min(report.wanted, max(1, -(-left // (len(wants) + 1 - place))), free)
        left -= wanted
    return min(report.wanted, left, free)


def _draw(state: State, report: Report, limits: Limits, now: float) -> tuple[State, int | None, float | None, float]:
    """(state, requests, tokens, wait_s): amounts that may start until the next report, None without such a limit,
    and the wait before the next call.
    """
    wait_s = 0.0
    requests: int | None = None
    tokens: float | None = None
    if limits.rpm:
        each = 60.0 / limits.rpm
        start = max(state.requests_from, now - BURST_S)
        requests = max(0, min(report.wanted, math.floor((now + AHEAD_S - start) / each) + 1))
        wait_s = max(wait_s, start - now - AHEAD_S)
        state = replace(state, requests_from=start + requests * each)
    if limits.tpm:
        start = max(state.tokens_from, now - BURST_S)
        tokens = max(0.0, min((now + AHEAD_S - start) * limits.tpm / 60.0, _tokens_wanted(state.usage, report)))
        wait_s = max(wait_s, start - now - AHEAD_S)
        state = replace(state, tokens_from=start + tokens * 60.0 / limits.tpm)
    return state, requests, tokens, wait_s


def _tokens_wanted(usage: Usage, report: Report) -> float:
    """The tokens that the wanted calls will probably take, by those of the last minutes."""
    calls = usage.requests + usage.last_requests
    return 1.5 * report.wanted * (usage.tokens + usage.last_tokens) / calls if calls else math.inf
