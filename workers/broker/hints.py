"""Hints: small Celery messages that say "there is work". They carry no data, and all may be lost.

A hint that waits already is not sent twice: a key in Valkey exists while it waits. The worker deletes the key before it
reads the tables, so that a later change sends a new hint. While the broker is down hints are dropped with a warning, and
the reconciler finds the work in the tables.
"""

from __future__ import annotations

import logging
import time
from typing import Any

import redis
from celery import current_app
from django.db import transaction
from django.db.models import Model
from django.dispatch import receiver
from kombu.exceptions import OperationalError

from labeling.models import Project
from labeling.signals import judgments_recorded, rater_changed
from workers.broker import client, request_ids  # noqa: F401  (its signals put request ids on messages)
from workers.broker.expiry import expiry
from workers.broker.routing import queue_of

log = logging.getLogger(__name__)

WAITING_MS = 3_000
# After a failure no hint is sent for so long: each commit would otherwise wait for a timeout.
SILENCE_S = 2.0
_silent_until = 0.0


def _key(task: str, subject: int) -> str:
    return f"zelo:hint:{task}:{subject}"


def leave_hint(task: str, subject: int) -> bool:
    """Send `workers.tasks.<task>(subject)` unless such a hint waits already. True when the broker has one."""
    if time.monotonic() < _silent_until:
        return False
    try:
        pipe = client.valkey().pipeline(transaction=False)
        pipe.set(_key(task, subject), 1, nx=True, px=WAITING_MS)
        pipe.time()
        is_new, now = pipe.execute()
        if is_new:
            current_app.send_task(
                f"workers.tasks.{task}",
                args=[subject],
                expires=expiry(now),
                retry=False,
                queue=queue_of(task, subject),
            )
        return True
    except (redis.RedisError, OperationalError, OSError) as error:
        _fall_silent()
        log.warning(
            "broker unreachable, hint %s(%s) dropped (the reconciler will find the work): %s", task, subject, error
        )
        return False


def _fall_silent() -> None:
    global _silent_until
    _silent_until = time.monotonic() + SILENCE_S


def hint_taken(task: str, subject: int) -> None:
    """Delete the key of a hint, before its worker reads the tables: later changes send a new hint."""
    try:
        client.valkey().delete(_key(task, subject))
    except redis.RedisError as error:
        log.warning("broker unreachable while taking a hint: %s", error)


@receiver(judgments_recorded)
def hint_refit(sender: type[Model], project_ids: tuple[int, ...], **kwargs: Any) -> None:
    """Send a hint to fit the projects whose judgments changed."""
    for project_id in project_ids:
        leave_hint("rate", project_id)


@receiver(rater_changed)
def hint_fit_anew(sender: type[Project], project_id: int, **kwargs: Any) -> None:
    """Send hints to choose the prior again and to refit every query, once the change is committed."""
    for task in ("calibrate", "rate"):
        transaction.on_commit(lambda task=task: leave_hint(task, project_id))  # type: ignore[misc]
