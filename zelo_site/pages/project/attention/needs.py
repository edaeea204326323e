"""The form of a problem that needs action, as the top of a project's page shows it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


class Level(enum.IntEnum):
    """The urgency of a problem: work has stopped, work waits or is lost, or the result could be better."""

    NOTE = 0
    WARNING = 1
    ERROR = 2


class Audience(enum.StrEnum):
    """The people who may press a button, and therefore see it."""

    READERS = "readers"
    OWNERS = "owners"
    SUPERUSERS = "superusers"


@dataclass(frozen=True, slots=True)
class Button:
    """A link, or with `fields` a form that is posted; `key` is its id on the page."""

    label: str
    address: str
    fields: Mapping[str, Any] | None = None
    key: str = ""
    is_main: bool = False
    audience: Audience = Audience.OWNERS


@dataclass(frozen=True, slots=True)
class Need:
    """One problem. `what` happens, when it is tried `again`, what `todo`; `message`: the failing part's own words.

    `retry_at`: when the next call is made, where that is known. `job`: a failed job, whose error only owners see in full.
    `explains`: the reason of unanswered questions that this problem has caused.
    """

    key: str
    level: Level
    title: str
    what: str = ""
    again: str = ""
    todo: str = ""
    message: str = ""
    since: datetime | None = None
    retry_at: datetime | None = None
    command: str = ""
    job: Any = None
    buttons: tuple[Button, ...] = field(default=())
    explains: str = ""

    @property
    def kind(self) -> str:
        """The class of its box."""
        return {Level.ERROR: "error", Level.WARNING: "warning", Level.NOTE: "note"}[self.level]


def most_urgent_first(needs: list[Need]) -> list[Need]:
    """Return the problems by level; those of one level keep their order."""
    return sorted(needs, key=lambda need: -need.level)
