"""The connection of this process to Valkey, the broker, and two questions to it: its clock, and whether it answers."""

from __future__ import annotations

import functools

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

# redis-py retries for seconds by default; a commit must not wait that long for a hint.
NO_RETRY = Retry(NoBackoff(), 0)


@functools.cache
def valkey() -> redis.Redis:
    """The client of this process; it fails at once instead of retrying."""
    return redis.Redis.from_url(settings.ZELO_REDIS_URL, socket_connect_timeout=1, socket_timeout=2, retry=NO_RETRY)


def broker_time() -> tuple[int, int] | None:
    """The broker's clock in seconds and microseconds; None where it does not answer."""
    try:
        seconds, micros = valkey().time()
        return int(seconds), int(micros)
    except redis.RedisError:
        return None


def broker_answers() -> bool:
    """Whether the broker answers a ping now."""
    try:
        return bool(valkey().ping())
    except redis.RedisError:
        return False
