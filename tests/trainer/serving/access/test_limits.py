"""One key cannot take a serving process: its requests at once and its tokens of a minute have limits."""

from __future__ import annotations

import pytest

from trainer.serving.access.limits import KeyLimits, OverLimit


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_requests_in_progress_are_counted_for_each_key() -> None:
    limits = KeyLimits(concurrency=2)
    with limits.request_of("a"), limits.request_of("a"):
        with pytest.raises(OverLimit, match="2 requests in progress") as refused, limits.request_of("a"):
            pass
        assert refused.value.retry_after_s == 1
        with limits.request_of("b"), limits.request_of(""), limits.request_of(""), limits.request_of(""):
            pass
    with limits.request_of("a"):
        pass
    assert not limits._usage, "keys that send nothing are forgotten"


def test_tokens_of_a_minute_are_counted_and_a_client_that_waits_goes_on() -> None:
    clock = Clock()
    limits = KeyLimits(tokens_per_minute=600, clock=clock)
    with limits.request_of("a"):
        limits.take("a", 500)
        with pytest.raises(OverLimit, match="500 tokens of its 600 a minute") as refused:
            limits.take("a", 200)
        assert refused.value.retry_after_s == 10
        limits.take("b", 600)
        clock.now += refused.value.retry_after_s
        limits.take("a", 200)


def test_one_request_may_be_larger_than_a_minute_and_the_next_one_waits() -> None:
    clock = Clock()
    limits = KeyLimits(tokens_per_minute=60, clock=clock)
    limits.take("a", 90)
    with pytest.raises(OverLimit) as refused:
        limits.take("a", 10)
    clock.now += refused.value.retry_after_s
    limits.take("a", 10)
    KeyLimits().take("a", 10**9)
