"""Reads the endpoints that superusers have added, for all look-ups of `workers.endpoints.registry`.

Each process reads the table again after CACHED_S, so that a change reaches every worker without a restart.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pydantic
from django.conf import settings
from django.db import Error, connection

from workers.endpoints.registry import Endpoint, KeyMissing, StoredEndpoints
from workers.endpoints.stored.encryption import EncryptionUnavailable, SecretsUnreadable, decrypt
from workers.models import EndpointDefinition

log = logging.getLogger(__name__)

CACHED_S = 2.0
# A stored definition must not name variables and files of the server: their contents could be sent to any address.
NOT_STORED = frozenset({"name", "base_url", "api_key_env", "api_key_file", "stored_key", "problem"})
# Fields whose values are encrypted with the key, because a header or a parameter may be the key of a gateway.
SECRET_FIELDS = ("headers", "query")


class StoredEndpoint(Endpoint):
    """An endpoint of the database with its decrypted key. `problem`: why the key cannot be read."""

    stored_key: pydantic.SecretStr | None = pydantic.Field(default=None, repr=False, exclude=True)
    problem: str = ""

    def api_key(self) -> pydantic.SecretStr | None:
        """The key, None if the endpoint needs none. Raises KeyMissing if it cannot be decrypted."""
        if self.problem:
            raise KeyMissing(self.problem)
        return self.stored_key


def encryption_secrets() -> list[str]:
    """The secrets from which keys are derived: the first one encrypts, all of them decrypt."""
    given = [*settings.ZELO_ENDPOINTS_KEYS, settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    return [str(secret) for secret in given if secret]


def bound_to(name: str, base_url: str) -> str:
    """The context under which a key is encrypted: the endpoint and the server that receives it."""
    return f"{name} {origin_of(base_url)}"


def origin_of(base_url: str) -> str:
    """Scheme, host and port of an address."""
    parts = urlsplit(base_url)
    port = parts.port or (443 if parts.scheme.lower() == "https" else 80)
    return f"{parts.scheme.lower()}://{(parts.hostname or '').lower()}:{port}"


def endpoint_of(row: EndpointDefinition) -> StoredEndpoint:
    """The endpoint of a row; a key that cannot be decrypted becomes its `problem`. Raises pydantic.ValidationError."""
    values: dict[str, Any] = {**row.settings, "name": row.name, "base_url": row.base_url}
    if not row.secrets:
        return StoredEndpoint(**values)
    try:
        secrets = decrypt(row.secrets, bound_to=bound_to(row.name, row.base_url), secrets=encryption_secrets())
    except SecretsUnreadable as error:
        remedy = (
            "give this process the ZELO_SECRET_KEY or ZELO_ENDPOINTS_KEY of the process that stored it, "
            "or enter the key again on the page Endpoints"
        )
        return StoredEndpoint(**values, problem=f"endpoint {row.name!r}: its key cannot be read ({error}); {remedy}")
    except EncryptionUnavailable as error:
        return StoredEndpoint(**values, problem=f"endpoint {row.name!r}: its key cannot be read: {error}")
    key = secrets.pop("key", None)
    return StoredEndpoint(**values, **secrets, stored_key=key)


def read_stored() -> StoredEndpoints:
    """All rows, read from the database. Raises django.db.Error."""
    endpoints: dict[str, Endpoint] = {}
    retired, problems = set(), []
    for row in EndpointDefinition.objects.order_by("pk"):
        if row.retired_at is not None:
            retired.add(row.name)
            continue
        try:
            endpoints[row.name] = endpoint_of(row)
        except pydantic.ValidationError as error:
            fields = ", ".join(sorted({str(each["loc"][0]) for each in error.errors() if each["loc"]}))
            problems.append(f"endpoint {row.name!r}: {fields} not valid; change it on the page Endpoints")
    return StoredEndpoints(endpoints, frozenset(retired), tuple(problems))


class _Cache:
    """The rows that this process read last, and the time until which they are fresh."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.kept: StoredEndpoints | None = None
        self.until = 0.0

    def get(self) -> StoredEndpoints:
        """As `stored_endpoints`. An event loop must not wait for the database: it gets what was read last, however old,
        and only before the first read a thread reads for it.
        """
        if not _is_on_a_loop():
            return self._fresh()
        kept = self.kept
        if kept is not None:
            return kept
        with ThreadPoolExecutor(1) as beside:
            return beside.submit(self._read_beside).result()

    def _read_beside(self) -> StoredEndpoints:
        """Read in a thread of its own, which leaves no connection behind."""
        try:
            return self._fresh()
        finally:
            connection.close()

    def _fresh(self) -> StoredEndpoints:
        with self.lock:
            if self.kept is None or time.monotonic() >= self.until:
                try:
                    self.kept = read_stored()
                except Error as error:
                    if self.kept is None:
                        raise
                    log.warning("cannot read the stored endpoints (%s); using those read before", type(error).__name__)
                self.until = time.monotonic() + CACHED_S
            return self.kept

    def forget(self) -> None:
        with self.lock:
            self.kept = None


def _is_on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_cache = _Cache()


def _new_cache() -> None:
    """A child of a fork may have copied a lock that is held."""
    global _cache
    _cache = _Cache()


os.register_at_fork(after_in_child=_new_cache)


def stored_endpoints() -> StoredEndpoints:
    """All stored endpoints, at most CACHED_S old; while the database does not answer, and on an event loop, those read
    before.
    """
    return _cache.get()


def forget_stored() -> None:
    """Let the next look-up of this process read the database again."""
    _cache.forget()
