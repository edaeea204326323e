"""The page cache: shared by all web processes through Valkey. Every lookup is a miss while Valkey does not answer.

`settings.CACHES` uses it. It holds only figures that can be computed again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

import redis
from django.core.cache.backends.redis import RedisCache, RedisCacheClient
from redis.backoff import NoBackoff
from redis.retry import Retry

from zelo_site.cached_values import CachedValues, NotCacheable, Unreadable

log = logging.getLogger(__name__)

SILENCE_S = 2.0  # back-off after a failure, since a broker that drops packets costs a timeout per request
CONNECT_TIMEOUT_S, ANSWER_TIMEOUT_S = 1, 2
# Entries from an older version may not match the current classes.
MISSES = (redis.RedisError, OSError, Unreadable)
Answer = TypeVar("Answer")


class ForgivingClient(RedisCacheClient):
    """Django's client with errors turned into misses, so that pages work while the broker is down."""

    def __init__(self, servers: list[str], **options: Any) -> None:
        super().__init__(
            servers,
            serializer=CachedValues,  # type: ignore[arg-type]  # the stubs know no class as its factory
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=ANSWER_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            **options,
        )
        self._silent_until = 0.0

    def _forgiven(self, ask: Callable[[], Answer], missed: Answer) -> Answer:
        if time.monotonic() < self._silent_until:
            return missed
        try:
            return ask()
        except NotCacheable as error:
            log.error("%s", error)
            return missed
        except MISSES as error:
            if isinstance(error, redis.RedisError | OSError):
                self._silent_until = time.monotonic() + SILENCE_S
            log.debug("the cache does not answer: %s", error)
            return missed

    def add(self, key: Any, value: Any, timeout: Any) -> bool:
        """Return True while the cache does not answer, so that the caller does the work."""
        return self._forgiven(lambda: RedisCacheClient.add(self, key, value, timeout), True)

    def get(self, key: Any, default: Any) -> Any:
        return self._forgiven(lambda: RedisCacheClient.get(self, key, default), default)

    def set(self, key: Any, value: Any, timeout: Any) -> None:
        self._forgiven(lambda: RedisCacheClient.set(self, key, value, timeout), None)

    def touch(self, key: Any, timeout: Any) -> bool:
        return self._forgiven(lambda: RedisCacheClient.touch(self, key, timeout), False)

    def delete(self, key: Any) -> bool:
        return self._forgiven(lambda: RedisCacheClient.delete(self, key), False)

    def get_many(self, keys: Any) -> dict[Any, Any]:
        return self._forgiven(lambda: RedisCacheClient.get_many(self, keys), {})

    def has_key(self, key: Any) -> bool:
        return self._forgiven(lambda: RedisCacheClient.has_key(self, key), False)

    def incr(self, key: Any, delta: int) -> int:
        return self._forgiven(lambda: RedisCacheClient.incr(self, key, delta), delta)

    def set_many(self, data: Any, timeout: Any) -> None:
        self._forgiven(lambda: RedisCacheClient.set_many(self, data, timeout), None)

    def delete_many(self, keys: Any) -> None:
        self._forgiven(lambda: RedisCacheClient.delete_many(self, keys), None)

    def forget(self, pattern: str) -> bool:
        """Delete only the matching keys, because the broker's queues share the database."""

        def scan() -> bool:
            client = self.get_client(None, write=True)
            for key in client.scan_iter(match=pattern):
                client.delete(key)
            return True

        return self._forgiven(scan, False)


class ForgivingCache(RedisCache):
    """Django's Redis cache with the tolerant client."""

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self._class = ForgivingClient

    def clear(self) -> None:
        """Delete all page entries and nothing else in Valkey."""
        cast(ForgivingClient, self._cache).forget(f"{self.key_prefix}:*")
