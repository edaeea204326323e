"""Hints: small Celery messages that say "there is work". None carries data, all may be lost.

A hint that is already waiting is not sent twice: a key in Valkey stands while it waits and is taken
down by the worker before it looks at the tables, so that a change made later leaves a new hint.
With the broker down a hint is dropped with a warning, and the reconciler finds the work in the tables.
"""

from __future__ import annotations

import functools
import logging
import time
from typing import Any

import redis
from celery import current_app
from django.conf import settings
from django.db import transaction
from django.db.models import Model
from django.dispatch import receiver
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from labeling.models import Project
from labeling.signals import judgments_recorded, rater_changed
from workers.broker.expiry import expiry
from workers.broker.routing import queue_of

log = logging.getLogger(__name__)

WAITING_MS = 3_000
# After a failure no hint is tried for so long: a broker that swallows packets would cost each commit a timeout.
SILENCE_S = 2.0
_silent_until = 0.0


# redis-py tries again for seconds by default; a commit must not wait that long for a hint.
NEVER_AGAIN = Retry(NoBackoff(), 0)


@functools.cache
def _valkey() -> redis.Redis:
    return redis.Redis.from_url(settings.ZELO_REDIS_URL, socket_connect_timeout=1, socket_timeout=2, retry=NEVER_AGAIN)


def _key(task: str, subject: int) -> str:
    return f"zelo:hint:{task}:{subject}"


def leave_hint(task: str, subject: int) -> bool:
    """Send `workers.tasks.<task>(subject)` unless one is waiting. True when the broker has it."""
    if time.monotonic() < _silent_until:
        return False
    try:
        pipe = _valkey().pipeline(transaction=False)
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
    """Say that a worker is about to look: whatever changes from here on leaves a new hint."""
    try:
        _valkey().delete(_key(task, subject))
    except redis.RedisError as error:
        log.warning("broker unreachable while taking a hint: %s", error)


def broker_time() -> tuple[int, int] | None:
    """The broker's clock in seconds and microseconds; None where it does not answer."""
    try:
        seconds, micros = _valkey().time()
        return int(seconds), int(micros)
    except redis.RedisError:
        return None


def broker_answers() -> bool:
    """Whether the broker answers a ping now."""
    try:
        return bool(_valkey().ping())
    except redis.RedisError:
        return False


@receiver(judgments_recorded)
def hint_refit(sender: type[Model], project_ids: tuple[int, ...], **kwargs: Any) -> None:
    """Ask the rating workers to look at the projects whose judgments changed."""
    for project_id in project_ids:
        leave_hint("rate", project_id)


@receiver(rater_changed)
def hint_fit_anew(sender: type[Project], project_id: int, **kwargs: Any) -> None:
    """Ask the rating workers to choose the prior anew and to fit every query, once the change is committed."""
    for task in ("calibrate", "rate"):
        transaction.on_commit(lambda task=task: leave_hint(task, project_id))  # type: ignore[misc]
