"""When a hint is too old, by the broker's clock: a host whose own clock is wrong neither kills hints nor keeps them.

`workers.broker.hints` stamps hints with it; Celery's workers, through the class named in `zelo_site.celery`, doubt their
own clock before they throw one away.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Task
from celery.worker.request import Request

from workers.broker.client import broker_time

HINT_EXPIRES_S = 60


def expiry(broker_time: tuple[int, int]) -> datetime:
    """The moment at which a hint that is left now expires; `broker_time` as the command TIME tells it.

    Celery takes a moment that our own clock has passed for a mistake, so a host that is ahead leaves hints that last.
    """
    return max(_moment(broker_time), datetime.now(UTC)) + timedelta(seconds=HINT_EXPIRES_S)


def _moment(broker_time: tuple[int, int]) -> datetime:
    seconds, micros = broker_time
    return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=micros)


class HintRequest(Request):
    """A hint that a worker has received."""

    def maybe_expire(self) -> bool:
        """Whether it is too old; where our clock says so, the broker is asked."""
        if not self.expires or datetime.now(UTC) <= self.expires:
            return False
        now = broker_time()
        if now is not None and _moment(now) <= self.expires:
            return False
        return bool(super().maybe_expire())


class HintTask(Task):
    """Any task of ours."""

    abstract = True
    Request: Any = "workers.broker.expiry:HintRequest"
