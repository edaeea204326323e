"""Caches results in proportion to what they cost, so that a page that reads large tables each second stays cheap."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from django.core.cache import cache

Answer = TypeVar("Answer")
# A result is kept for twenty times as long as it took, at most half a minute.
KEPT_FACTOR, LONGEST_KEPT_S = 20.0, 30.0
QUICK_S = 0.05


def costly(key: str, compute: Callable[[], Answer]) -> Answer:
    """The result of `compute`; computed at each call while that is quick, and from the cache where it is slow."""
    kept: tuple[Answer] | None = cache.get(key)
    if kept is not None:
        return kept[0]
    began = time.monotonic()
    answer = compute()
    took = time.monotonic() - began
    if took > QUICK_S:
        cache.set(key, (answer,), min(LONGEST_KEPT_S, KEPT_FACTOR * took))
    return answer
