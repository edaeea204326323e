"""Limits of one key in a serving process, at once and per minute, so that no client takes all of it. Imports no Django."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

PERIOD_S = 60.0


class OverLimit(RuntimeError):
    """The key has reached a limit; `retry_after_s` says when to try again."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


@dataclass
class _Usage:
    requests: int = 0
    tokens: float = 0.0  # those of the last minute, which fade evenly
    at: float = 0.0


class KeyLimits:
    """Counts requests in progress and tokens of each key; 0 means no limit. Thread-safe.

    The tokens of a key fall evenly, `tokens_per_minute` in a minute, so a client that waits as long as it is told continues.
    """

    def __init__(
        self, *, concurrency: int = 0, tokens_per_minute: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._concurrency, self._tokens = concurrency, tokens_per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._usage: defaultdict[str, _Usage] = defaultdict(_Usage)

    @contextlib.contextmanager
    def request_of(self, key: str) -> Iterator[None]:
        """Count a request of the key until the block ends; an empty key has no limits. Raises OverLimit."""
        if not key:
            yield
            return
        with self._lock:
            usage = self._usage[key]
            if self._concurrency and usage.requests >= self._concurrency:
                raise OverLimit(
                    f"the key has {usage.requests} requests in progress; expected at most {self._concurrency}; wait for one",
                    retry_after_s=1,
                )
            usage.requests += 1
        try:
            yield
        finally:
            with self._lock:
                usage.requests -= 1
                if not usage.requests and not self._left(usage):
                    self._usage.pop(key, None)

    def take(self, key: str, tokens: int) -> None:
        """Count the tokens of a request. Raises OverLimit if the key has used up its minute.

        A single request may exceed the limit; the next one waits for it.
        """
        if not self._tokens or not key:
            return
        with self._lock:
            usage = self._usage[key]
            left = self._left(usage)
            if left >= self._tokens or (left and left + tokens > self._tokens):
                wait_s = PERIOD_S * max(0.0, min(left, left + tokens - self._tokens)) / self._tokens
                raise OverLimit(
                    f"the key has used {left:,.0f} tokens of its {self._tokens:,} a minute and this request has {tokens:,}; "
                    "retry later or send fewer documents",
                    retry_after_s=max(1, math.ceil(wait_s)),
                )
            usage.tokens, usage.at = left + tokens, self._clock()

    def give_back(self, key: str, tokens: int) -> None:
        """Uncount the tokens of a request that was refused after `take`."""
        if not self._tokens or not key:
            return
        with self._lock:
            usage = self._usage[key]
            usage.tokens, usage.at = max(0.0, self._left(usage) - tokens), self._clock()

    def _left(self, usage: _Usage) -> float:
        """The tokens of the last minute that still count."""
        return max(0.0, usage.tokens - (self._clock() - usage.at) * self._tokens / PERIOD_S)
