"""The desk of a person who compares: locked first by whatever they send, and every message answered once.

Two tabs, or a message sent twice, thus come one after the other. `labeling.annotation.actions` says what a message does.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from random import SystemRandom
from typing import Any

from django.db import OperationalError, connection, transaction
from psycopg.errors import DeadlockDetected

from labeling.annotation.context import ScreenContext
from labeling.annotation.presented_pairs import items_again
from labeling.models import config_hash
from labeling.models.screen import ScreenState

RAREST_GOLD = 10_000
REMEMBERED = "14 days"
MOST_DEADLOCKS = 3
_random = SystemRandom()

# What an act answers: JSON values, and `items` as `labeling.annotation.presented_pairs.Item`.
Response = dict[str, Any]


class Paused(RuntimeError):
    """The person has been paused; the message says why."""


class KeyReused(ValueError):
    """A key came a second time, with another message."""


_SCREEN_STATE = (
    "SELECT side_balance, gold_in, answers, passed FROM labeling_desk WHERE person_id = %s FOR NO KEY UPDATE"
)


def lock_screen_state(person_id: int, *, gold_every: int) -> ScreenState:
    """The person's desk, locked until the transaction ends; made on first use."""
    with connection.cursor() as cursor:
        cursor.execute(_SCREEN_STATE, [person_id])
        row = cursor.fetchone()
        if row is None:
            # Two first messages at once: the second waits here for the first one's row.
            first_gold = _random.randint(1, max(1, min(gold_every, RAREST_GOLD)))
            ScreenState.objects.bulk_create(
                [ScreenState(person_id=person_id, gold_in=first_gold)], ignore_conflicts=True
            )
            cursor.execute(_SCREEN_STATE, [person_id])
            row = cursor.fetchone()
    side_balance, gold_in, answers, passed = row
    return ScreenState(person_id=person_id, side_balance=side_balance, gold_in=gold_in, answers=answers, passed=passed)


_STATE = """
SELECT person.pause_reason, earlier.body_hash, earlier.response FROM labeling_annotator person
LEFT JOIN labeling_submission earlier ON earlier.annotator_id = person.id AND earlier.key = %s
WHERE person.id = %s
"""
_KEEP = "INSERT INTO labeling_submission (annotator_id, key, body_hash, response) VALUES (%s, %s, %s, %s)"


def pause_reason(person_id: int) -> str:
    """Why the person is paused, as of now; empty while they are not."""
    with connection.cursor() as cursor:
        cursor.execute(_STATE, [uuid.UUID(int=0), person_id])
        return str(cursor.fetchone()[0])


def answer_once(
    context: ScreenContext,
    key: uuid.UUID,
    verb: str,
    message: dict[str, Any],
    act: Callable[[ScreenState, str], Response],
) -> str:
    """Act on a message and keep what was answered; a message that came before gets the same answer again.

    `act` is told why the person is paused. Should the database end its transaction for a deadlock with another
    person's, it is begun anew. Raises KeyReused.
    """
    for _ in range(MOST_DEADLOCKS):
        try:
            return _answer_once(context, key, verb, message, act)
        except OperationalError as error:
            if not isinstance(error.__cause__, DeadlockDetected) or connection.in_atomic_block:
                raise
    return _answer_once(context, key, verb, message, act)


def _answer_once(
    context: ScreenContext,
    key: uuid.UUID,
    verb: str,
    message: dict[str, Any],
    act: Callable[[ScreenState, str], Response],
) -> str:
    body = config_hash(verb=verb, **message)
    with transaction.atomic():
        screen = lock_screen_state(context.person_id, gold_every=context.gold_every)
        with connection.cursor() as cursor:
            cursor.execute(_STATE, [key, context.person_id])
            paused, known, earlier = cursor.fetchone()
        if known is not None and known != body:
            raise KeyReused(f"the key {key} was used for another message; make a new key for each message")
        if known is not None:
            return _again(earlier, context)
        response = act(screen, paused)
        with connection.cursor() as cursor:
            cursor.execute(_KEEP, [context.person_id, key, body, _kept(response)])
    return as_json(response)


def forget_old_submissions(person_id: int) -> None:
    """Screens send again for days at most; an answer that comes later still finds that there is one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM labeling_submission WHERE annotator_id = %s AND created_at < now() - %s::interval",
            [person_id, REMEMBERED],
        )


def as_json(response: Response) -> str:
    """What the screen gets."""
    return _dumped(response | {"items": [item.shown for item in response["items"]]})


def _kept(response: Response) -> str:
    """What is remembered of it: of each pair which it was and how it lay, not its texts."""
    return _dumped(response | {"items": [item.reference for item in response["items"]]})


def _again(kept: str, context: ScreenContext) -> str:
    response = json.loads(kept)
    return as_json(response | {"items": items_again(response["items"], hidden=context.hidden_metadata)})


def _dumped(response: Response) -> str:
    return json.dumps(response, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
