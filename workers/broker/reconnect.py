"""Reconnects a worker to its broker within seconds, however long the broker was down. Named in the settings.

Celery by itself waits two seconds longer before each retry, up to half a minute.
"""

from __future__ import annotations

import functools
from typing import Any

from celery.worker.consumer import Consumer

FIRST_RETRY_S, STEP_S, LONGEST_RETRY_S = 0.5, 0.5, 2.0


class ReturningConsumer(Consumer):
    """Retries the broker at least every two seconds."""

    def ensure_connected(self, conn: Any) -> Any:
        conn.ensure_connection = functools.partial(
            conn.ensure_connection,
            interval_start=FIRST_RETRY_S,
            interval_step=STEP_S,
            interval_max=LONGEST_RETRY_S,
        )
        return super().ensure_connected(conn)
