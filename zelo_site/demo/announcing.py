"""Shows the story of a terminal command on the project's page: its steps in plain sentences, and the table so far.

The story is a cache entry that the command renews at each step, so that the page computes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from django.core.cache import cache

KEPT_S = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class StoryRow:
    """One ranking of the table: NDCG@10 with its interval. `kind`: baseline, panel, elo or student."""

    name: str
    kind: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Story:
    """The sentences of the finished steps and of the present one; `rows` of the table; where the training and the student are.

    `training` and `student` are ids, 0 before there is one. `is_over`: nothing more happens.
    """

    done: tuple[str, ...] = ()
    now: str = ""
    rows: tuple[StoryRow, ...] = ()
    training: int = 0
    student: int = 0
    is_over: bool = False


def story_of(project_id: int) -> Story | None:
    """Return the story of a project, None if no command told one."""
    found: Story | None = cache.get(_key(project_id))
    return found


def begin_step(project_id: int, sentence: str) -> None:
    """Begin a step; the one before is done."""
    before = story_of(project_id) or Story()
    done = (*before.done, before.now) if before.now and before.now != sentence else before.done
    cache.set(_key(project_id), replace(before, done=done, now=sentence), KEPT_S)


def add_to_story(project_id: int, **values: object) -> None:
    """Change fields of the story."""
    before = story_of(project_id) or Story()
    cache.set(_key(project_id), replace(before, **values), KEPT_S)  # type: ignore[arg-type]


def forget_story(project_id: int) -> None:
    """Delete the story, as before a new start."""
    cache.delete(_key(project_id))


def _key(project_id: int) -> str:
    return f"zelo:story:{project_id}"
