"""The rules of flow control under a clock of our own: several processes, one endpoint, minutes in no time."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import pytest

from workers.endpoints.gates import BREAK_AFTER, Grant, Limits, Report
from workers.endpoints.limiter_rules import CLOSED, HALF_OPEN, OPEN, PAUSED, SHARE_S, Share, State, decide

LIMITS = Limits(concurrency=32)


@dataclass
class Endpoint:
    """What `workers.endpoints.limiter` does with rows, in memory."""

    limits: Limits = LIMITS
    now: float = 1_000_000.0
    state: State = field(default_factory=State)
    shares: dict[str, tuple[Share, float]] = field(default_factory=dict)
    grants: dict[str, Grant] = field(default_factory=dict)

    def visit(self, holder: str, **report: object) -> Grant:
        """A visit of a process that has applied its last grant, in whose report only what is named happened."""
        last = self.grants.get(holder, Grant(epoch=-1, slots=0))
        known = {"epoch": last.epoch, "slots": last.slots, "wanted": 32, "drawn_requests": last.requests or 0}
        known["drawn_tokens"] = last.tokens or 0.0
        others = [share for name, (share, until) in self.shares.items() if name != holder and until > self.now]
        said = Report(**(known | report))  # type: ignore[arg-type]
        self.state, grant, booked = decide(
            self.state, said, holder=holder, others=others, limits=self.limits, now=self.now, luck=0.5
        )
        self.shares[holder] = Share(booked, said.wanted), self.now + SHARE_S
        self.grants[holder] = grant
        return grant

    def booked(self) -> int:
        return sum(share.slots for share, until in self.shares.values() if until > self.now)


def test_slots_go_to_whoever_wants_them_and_are_shared_when_others_come() -> None:
    endpoint = Endpoint()
    assert endpoint.visit("a", in_flight=0).slots == 32
    assert endpoint.visit("b").slots == 0  # all are in use
    assert endpoint.visit("a", in_flight=32).slots == 16  # and begins no further call until 16 are in flight
    assert endpoint.visit("b").slots == 0
    assert endpoint.visit("a", in_flight=20).slots == 16
    assert endpoint.visit("b").slots == 12
    endpoint.visit("a", in_flight=16)
    assert endpoint.visit("b", in_flight=12).slots == 16


def test_who_wants_little_leaves_the_rest_to_others() -> None:
    endpoint = Endpoint()
    endpoint.visit("a", wanted=3)
    assert endpoint.visit("b").slots == 29


@pytest.mark.parametrize("seed", range(20))
def test_no_more_slots_are_booked_than_there_are_whatever_processes_do(seed: int) -> None:
    rng = random.Random(seed)
    endpoint = Endpoint(limits=Limits(concurrency=rng.randint(1, 40)))
    flights = dict.fromkeys("abcde", 0)
    for _ in range(400):
        endpoint.now += rng.random()
        holder = rng.choice(list(flights))
        before = endpoint.grants.get(holder, Grant(epoch=-1, slots=0)).slots
        flights[holder] = rng.randint(0, max(before, flights[holder]))
        alive = endpoint.shares.get(holder, (None, 0.0))[1] > endpoint.now
        if not alive:  # a process that was silent for too long begins anew
            flights[holder], endpoint.grants[holder] = 0, Grant(epoch=-1, slots=0)
        endpoint.visit(holder, in_flight=flights[holder], wanted=rng.choice([0, 1, 5, 40]))
        assert endpoint.booked() <= endpoint.limits.concurrency


def test_a_dead_process_gives_its_slots_back() -> None:
    endpoint = Endpoint()
    endpoint.visit("a")
    assert endpoint.visit("b").slots == 0
    endpoint.now += SHARE_S + 0.1
    assert endpoint.visit("b").slots == 32


def test_retry_after_closes_the_endpoint_for_everybody() -> None:
    endpoint = Endpoint()
    endpoint.visit("a", wanted=16)
    endpoint.visit("b", wanted=16)
    assert endpoint.visit("a", answered=3, rate_limited=1, all_rate_limited=1, retry_after_s=60.0).closed_s == 60.0
    endpoint.now += 20.0
    assert endpoint.visit("b").closed_s == 40.0
    assert endpoint.state.mode == PAUSED
    endpoint.now += 40.0
    assert endpoint.visit("b").slots >= 1


def test_calls_of_before_the_pause_do_not_lengthen_it() -> None:
    endpoint = Endpoint()
    stale = endpoint.visit("a", wanted=16).epoch
    endpoint.visit("b", wanted=16)
    endpoint.visit("b", rate_limited=1)
    until = endpoint.state.until
    for _ in range(5):
        endpoint.visit("a", epoch=stale, rate_limited=16, all_rate_limited=16)
    assert endpoint.state.until == until and endpoint.state.trips == 1


def test_without_retry_after_each_vain_try_doubles_the_pause_and_an_answer_ends_that() -> None:
    endpoint = Endpoint()
    endpoint.visit("a")
    pauses = []
    for _ in range(9):
        pauses.append(endpoint.visit("a", rate_limited=1).closed_s)
        endpoint.now = endpoint.state.until
        assert endpoint.visit("a").closed_s == 0.0
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60, 60])
    endpoint.visit("a", answered=1)
    assert endpoint.visit("a", rate_limited=1).closed_s == pytest.approx(1.0)


def test_a_minute_of_429_costs_few_calls_and_the_flow_comes_back() -> None:
    """Four processes that fill whatever they are granted; each call takes 0.1 s and is turned away with `1 second`."""
    endpoint = Endpoint()
    calls = 0
    flights = dict.fromkeys("abcd", 0)
    for tick in range(600):
        endpoint.now += 0.1
        for holder, flying in flights.items():
            last = endpoint.grants.get(holder)
            is_due = last is None or flying or tick % 10 == 0
            if is_due:
                grant = endpoint.visit(holder, rate_limited=flying, retry_after_s=1.0 if flying else None)
                flights[holder] = 0 if grant.closed_s else grant.slots
                calls += flights[holder]
    assert 20 < calls < 150
    for _ in range(100):
        endpoint.now += 0.5
        for holder in flights:
            grant = endpoint.visit(holder, answered=flights[holder])
            flights[holder] = grant.slots
    assert sum(flights.values()) == 32


def test_outages_open_the_breaker_and_one_call_tries() -> None:
    endpoint = Endpoint()
    endpoint.visit("a", wanted=16)
    endpoint.visit("b", wanted=16)
    assert endpoint.visit("a", outages=BREAK_AFTER - 1).slots == 16
    grant = endpoint.visit("b", outages=1)
    assert (endpoint.state.mode, grant.slots, grant.is_down) == (OPEN, 0, True)
    endpoint.now += grant.closed_s
    assert [endpoint.visit(holder).requests for holder in "ab"] == [1, 0]
    assert endpoint.visit("a", in_flight=1, requests=1).requests == 0
    assert endpoint.visit("b").slots == 0
    assert endpoint.state.mode == HALF_OPEN
    assert endpoint.visit("a", answered=1).slots == 16
    assert endpoint.state == State(
        mode=CLOSED, epoch=endpoint.state.epoch, until=endpoint.state.until, usage=endpoint.state.usage,
        probe_until=endpoint.state.probe_until,
    )  # fmt: skip


def test_a_vain_try_opens_the_breaker_for_longer() -> None:
    endpoint = Endpoint()
    endpoint.visit("a")
    waits = [endpoint.visit("a", outages=BREAK_AFTER).closed_s]
    for _ in range(4):
        endpoint.now = endpoint.state.until
        assert endpoint.visit("a").requests == 1
        waits.append(endpoint.visit("a", outages=1, requests=1).closed_s)
    assert waits == pytest.approx([1, 2, 4, 8, 16])


def test_when_the_trying_process_dies_another_tries() -> None:
    endpoint = Endpoint()
    endpoint.visit("a")
    endpoint.visit("a", outages=BREAK_AFTER)
    endpoint.now = endpoint.state.until
    assert endpoint.visit("a").requests == 1
    assert endpoint.visit("b").requests == 0
    endpoint.now += LIMITS.timeout_s + SHARE_S + 1
    assert endpoint.visit("b").requests == 1


def test_single_failures_between_answers_are_no_outage() -> None:
    endpoint = Endpoint()
    endpoint.visit("a")
    for _ in range(50):
        assert endpoint.visit("a", answered=3, outages=2, all_outages=2).slots == 32
    assert endpoint.state.mode == CLOSED


@pytest.mark.parametrize("rpm", [30.0, 600.0, 6000.0])
def test_requests_a_minute_hold_over_all_processes_and_are_used(rpm: float) -> None:
    endpoint = Endpoint(limits=Limits(concurrency=1000, rpm=rpm))
    sent = []
    for step in range(1200):
        endpoint.now += 0.05
        holder = "abc"[step % 3]
        last = endpoint.grants.get(holder)
        used = int((last.requests or 0) * random.Random(step).choice([0.5, 1.0, 1.0])) if last else 0
        endpoint.visit(holder, requests=used, answered=used)
        sent += [endpoint.now] * used
    assert len(sent) <= rpm + rpm / 60 * 3 + 3
    assert len(sent) >= 0.9 * rpm
    for start, end in itertools.pairwise(range(0, 60, 10)):
        window = [at for at in sent if start <= at - 1_000_000.0 < end]
        assert len(window) <= rpm / 6 + rpm / 60 * 3 + 3


def test_tokens_a_minute_hold_although_calls_are_larger_than_what_is_left() -> None:
    endpoint = Endpoint(limits=Limits(concurrency=1000, tpm=60_000.0))
    spent = 0.0
    for _ in range(600):
        endpoint.now += 0.1
        last = endpoint.grants.get("a")
        used = 1500.0 if last and (last.tokens or 0.0) > 0.0 else 0.0
        endpoint.visit("a", tokens=used, requests=int(used > 0), answered=1)
        spent += used
    assert 0.95 * 60_000 < spent < 60_000 + 3 * 1500


def test_what_a_rate_leaves_no_room_for_is_not_waited_for() -> None:
    endpoint = Endpoint(limits=Limits(concurrency=8, rpm=1.0))
    assert endpoint.visit("a", wanted=1).requests == 1
    grant = endpoint.visit("b")
    assert grant.requests == 0 and 50.0 < grant.closed_s < 60.0
