"""How long a worker waits between its tries to reach a broker that is away; `test_broker` has a real one come back."""

from __future__ import annotations

import socket

import pytest
from django.conf import settings
from kombu.utils import functional

from workers.broker.reconnect import LONGEST_RETRY_S, ReturningConsumer
from zelo_site.celery import app


class Ended(Exception):
    """The test has seen enough tries."""


def test_a_broker_that_is_away_is_tried_every_two_seconds_at_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if sum(slept) > 120.0:
            raise Ended

    monkeypatch.setattr(functional, "sleep", sleep)
    assert app.conf.worker_consumer == settings.CELERY_WORKER_CONSUMER == "workers.broker.reconnect:ReturningConsumer"
    consumer = ReturningConsumer.__new__(ReturningConsumer)  # of itself alone, without a whole worker around it
    consumer.app = app
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        away = app.connection_for_read(url=f"redis://127.0.0.1:{bound.getsockname()[1]}/0")
        with pytest.raises(Ended):
            consumer.ensure_connected(away)
    assert LONGEST_RETRY_S == 2.0
    assert consumer.broker_connection_retry_attempt >= 120.0 / LONGEST_RETRY_S
