"""Shows a terminal command's current activity on the project's pages.

The activity is a cache entry with a short timeout, so that a command that crashes leaves nothing behind.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.core.cache import cache

KEPT_S = 30


@dataclass(frozen=True, slots=True)
class Announced:
    """Progress of embedding: `done` of `total` documents, 0 of 0 before it starts. Retrieval follows."""

    done: int
    total: int


def announce_embedding(project_id: int, *, done: int = 0, total: int = 0) -> None:
    """Announce that a command is retrieving candidates; repeat within KEPT_S."""
    cache.set(_key(project_id), Announced(done, total), KEPT_S)


def announced_embedding(project_id: int) -> Announced | None:
    """Return the last announcement, None if it has expired or ended."""
    found: Announced | None = cache.get(_key(project_id))
    return found


def end_announcement(project_id: int) -> None:
    """Remove the announcement."""
    cache.delete(_key(project_id))


def _key(project_id: int) -> str:
    return f"zelo:embedding:{project_id}"
