"""Access to rerankers: keys, scopes and names, checked from a cache that is at most FRESH_S old.

The web server and a serving process with a database admit requests through it, so that most requests ask no database. A
revoked key, a lost membership or a withdrawn reranker stops working within FRESH_S. Neighbours: `labeling.access.api_keys` finds
keys, `trainer.serving.registry` finds rerankers.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import close_old_connections

from labeling.access.api_keys import find_token, hashed
from labeling.models import ApiToken
from trainer.deployments.routing import Route, Target, deployment_name, find_target, usable_deployments
from trainer.serving.addresses import EMBED, EMBEDDINGS
from trainer.serving.model_cache import Artefact
from trainer.serving.protocols import RerankRefused
from trainer.serving.registry import UnknownReranker, form_of, full_name, usable_by

SCOPE = "rerank"
FRESH_S = 1.5
MOST_ENTRIES = 10_000
NO_KEY = (
    "the request has no valid key; send Authorization: Bearer zelo_... with a key made with "
    "`python manage.py token USERNAME --scopes rerank`"
)
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request that may be computed: what it gets, and the key that pays for it."""

    route: Route
    key_id: int

    @property
    def artefact(self) -> Artefact:
        return self.route.version.artefact


class AccessCache:
    """Checks keys and finds rerankers. Thread-safe."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: OrderedDict[str, tuple[float, ApiToken]] = OrderedDict()
        self._targets: OrderedDict[tuple[int, str, bool], tuple[float, Target]] = OrderedDict()

    def key_of(self, authorization: str, *, fresh: bool = False) -> ApiToken:
        """The valid key in an Authorization header, with its user; `fresh` asks the database. Raises RerankRefused."""
        token = bearer(authorization)
        if not token:
            raise RerankRefused(401, NO_KEY)
        key = self._kept(self._keys, hashed(token), lambda: _valid(token), fresh=fresh)
        if SCOPE not in key.scopes:
            raise RerankRefused(
                403, f"this key has the scopes {key.scopes}; ranking needs {SCOPE!r}; create another key"
            )
        return key

    def admit(self, key: ApiToken, path: str, name: str, *, fresh: bool = False) -> Admitted:
        """The deployment or reranker that the key's user calls `name`. Raises RerankRefused."""
        embeds = path in (EMBEDDINGS, EMBED)
        entry = (key.user_id, name, embeds)
        try:
            target = self._kept(self._targets, entry, lambda: find_target(key.user, name, embeds=embeds), fresh=fresh)
        except UnknownReranker as error:
            raise RerankRefused(404, str(error)) from error
        return Admitted(target.route(str(key.pk)), key.pk)

    def has_seen(self, authorization: str) -> bool:
        """Whether the key in the header was valid here when it was last looked up."""
        token = bearer(authorization)
        with self._lock:
            return bool(token) and hashed(token) in self._keys

    def _kept(
        self, entries: OrderedDict[Any, tuple[float, Found]], entry: Any, find: Callable[[], Found], *, fresh: bool
    ) -> Found:
        """The value of an entry, found again if it is older than FRESH_S; an entry that raises is forgotten."""
        now = self._clock()
        with self._lock:
            kept = entries.get(entry)
        if kept is not None and not fresh and now - kept[0] < FRESH_S:
            return kept[1]
        try:
            found = find()
        except (RerankRefused, UnknownReranker):
            with self._lock:
                entries.pop(entry, None)
            raise
        with self._lock:
            entries[entry] = (now, found)
            entries.move_to_end(entry)
            while len(entries) > MOST_ENTRIES:
                entries.popitem(last=False)
        return found


class ProcessAccess:
    """Access for threads outside of Django's requests; a gate of `trainer.serving.server`."""

    def __init__(self) -> None:
        self._cache = AccessCache()

    def key_of(self, authorization: str) -> ApiToken:
        with own_connection():
            return self._cache.key_of(authorization)

    def admit(self, key: ApiToken, path: str, name: str) -> Admitted:
        with own_connection():
            return self._cache.admit(key, path, name)

    def models_of(self, key: ApiToken) -> list[dict[str, Any]]:
        with own_connection():
            return listed(key.user)


def _valid(token: str) -> ApiToken:
    found = find_token(token)
    if found is None:
        raise RerankRefused(401, NO_KEY)
    return found


@contextlib.contextmanager
def own_connection() -> Iterator[None]:
    """Close database connections that are too old or broken, which Django does around its own requests only."""
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()


def listed(user: Any) -> list[dict[str, Any]]:
    """The models that the user may use, in OpenAI's format: rerankers, and deployments with their current version."""
    named: list[tuple[str, Any, Any, dict[str, Any]]] = [
        (full_name(each), each.created_at, each, {}) for each in usable_by(user)
    ]
    named += [
        (deployment_name(each), each.created_at, each.current, {"version": full_name(each.current)})
        for each in usable_deployments(user)
    ]
    return [
        {
            "id": name,
            "object": "model",
            "created": int(created_at.timestamp()),
            "owned_by": "zelo",
            "form": form_of(reranker),
            "release": reranker.release,
            **more,
        }
        for name, created_at, reranker, more in named
    ]


def bearer(authorization: str) -> str:
    """The token of a Bearer header, or an empty text."""
    kind, _, token = authorization.partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""
