"""Expires hints by the broker's clock, so that a host whose own clock is wrong neither drops hints nor keeps them.

`workers.broker.hints` sets the expiry. Celery's workers use `HintRequest`, through the class named in `zelo_site.celery`,
which asks the broker for the time before it drops a hint.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from celery import Task
from celery.worker.request import Request

from workers.broker.client import broker_time

HINT_EXPIRES_S = 60


def expiry(broker_time: tuple[int, int]) -> datetime:
    """When a hint that is sent now expires; `broker_time` is the reply to the command TIME.

    Never in the past of our own clock, which Celery would reject: hints of a host that is ahead last longer.
    """
    return max(_moment(broker_time), datetime.now(UTC)) + timedelta(seconds=HINT_EXPIRES_S)


def _moment(broker_time: tuple[int, int]) -> datetime:
    seconds, micros = broker_time
    return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=micros)


class HintRequest(Request):
    """A hint that a worker has received."""

    def maybe_expire(self) -> bool:
        """Whether the hint has expired, by our clock and then by the broker's."""
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
