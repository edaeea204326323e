"""What a command in the terminal does for a project at this moment, told to the project's pages.

It is kept in the cache and forgotten by itself soon after it was last said: a command that dies leaves nothing behind.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.core.cache import cache

KEPT_S = 30


@dataclass(frozen=True, slots=True)
class Announced:
    """`done` of `total` documents are embedded, before candidates are found by them; 0 of 0 before it begins."""

    done: int
    total: int


def announce_embedding(project_id: int, *, done: int = 0, total: int = 0) -> None:
    """Say that candidates come by themselves; to be repeated within KEPT_S."""
    cache.set(_key(project_id), Announced(done, total), KEPT_S)


def announced_embedding(project_id: int) -> Announced | None:
    """What was said last, unless it has ended."""
    found: Announced | None = cache.get(_key(project_id))
    return found


def end_announcement(project_id: int) -> None:
    """The candidates are there, or nobody brings them any more."""
    cache.delete(_key(project_id))


def _key(project_id: int) -> str:
    return f"zelo:embedding:{project_id}"
