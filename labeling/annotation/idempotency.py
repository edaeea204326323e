"""Idempotent messages of the comparison screen: one message of a person at a time, and one response for each key.

Every message locks the person's screen state first, so that two tabs, or a message sent twice, are handled one after
the other. `labeling.annotation.actions` implements the messages.
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

# The result of an action: JSON values, with `items` as `labeling.annotation.presented_pairs.Item`.
Response = dict[str, Any]


class Paused(RuntimeError):
    """The person is paused; the message is the reason."""


class KeyReused(ValueError):
    """A key was used for two different messages."""


_SCREEN_STATE = (
    "SELECT side_balance, gold_in, answers, passed FROM labeling_desk WHERE person_id = %s FOR NO KEY UPDATE"
)


def lock_screen_state(person_id: int, *, gold_every: int) -> ScreenState:
    """The person's screen state, locked until the transaction ends; the first call creates it."""
    with connection.cursor() as cursor:
        cursor.execute(_SCREEN_STATE, [person_id])
        row = cursor.fetchone()
        if row is None:
            # Of two concurrent first messages, the second waits here for the row of the first.
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
    """The reason why the person is paused now, or an empty string."""
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
    """Handle a message and store its response; a repeated message gets the stored response.

    `act` gets the screen state and the reason of a pause. After a deadlock with another person's transaction it is
    retried. Raises KeyReused.
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
    """Delete responses older than `REMEMBERED`: screens retry for days at most, and the answers themselves stay."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM labeling_submission WHERE annotator_id = %s AND created_at < now() - %s::interval",
            [person_id, REMEMBERED],
        )


def as_json(response: Response) -> str:
    """The response as the screen gets it."""
    return _dumped(response | {"items": [item.shown for item in response["items"]]})


def _kept(response: Response) -> str:
    """The response as it is stored: references to pairs instead of their texts."""
    return _dumped(response | {"items": [item.reference for item in response["items"]]})


def _again(kept: str, context: ScreenContext) -> str:
    response = json.loads(kept)
    return as_json(response | {"items": items_again(response["items"], hidden=context.hidden_metadata)})


def _dumped(response: Response) -> str:
    return json.dumps(response, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
