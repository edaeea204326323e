"""HTTP of the comparison screen: JSON in and out, for a signed-in browser (with CSRF check) or an API key.

These are plain views and not operations of the REST router, since people wait for them at every pair. Each view reads
the message, calls one function of `labeling.annotation.actions`, and gives every refusal a code.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable
from typing import Any

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt
from ninja.utils import check_csrf

from labeling.access.api_keys import find_token
from labeling.access.handles import MOST, assignment_of, handle_of
from labeling.annotation.actions import (
    Answer,
    NotLast,
    NotYours,
    extend_leases,
    next_items,
    skip_pair,
    submit_answer,
    undo_last,
)
from labeling.annotation.answer_scale import ANSWERS, CANNOT_JUDGE_REASONS
from labeling.annotation.context import MayNotCompare, ProjectNotVisible, ScreenContext, find_screen_context
from labeling.annotation.idempotency import KeyReused, Paused
from labeling.importing.strict_json import BadJson, parse

MOST_BYTES = 64 * 1024
LONGEST_NOTE = 4000
LONGEST_S = 86_400.0

Message = dict[str, Any]
Verb = Callable[[ScreenContext, Message], str]


class BadMessage(ValueError):
    """The message lacks a field or has an invalid value."""


class Unknown(PermissionError):
    """Nobody is signed in, and the request has no valid key."""


class WrongScope(PermissionError):
    """The key lacks the scope `write`."""


class BadOrigin(PermissionError):
    """The browser sent no CSRF token or a wrong one."""


# Status and code of each refusal.
REFUSALS: dict[type[Exception], tuple[int, str]] = {
    Unknown: (401, "signed_out"),
    BadOrigin: (403, "csrf"),
    WrongScope: (403, "scope"),
    MayNotCompare: (403, "viewer"),
    ProjectNotVisible: (404, "not_found"),
    NotYours: (404, "not_yours"),
    Paused: (409, "paused"),
    NotLast: (409, "not_last"),
    KeyReused: (422, "key_reused"),
    BadMessage: (422, "bad_answer"),
    BadJson: (422, "bad_answer"),
}


def message_view(verb: Verb) -> Callable[[HttpRequest, str], HttpResponse]:
    """A view that calls `verb` with the screen context of the user in the project of the address."""

    # The view checks sign-in and CSRF itself, so that a program or a screen gets JSON.
    @csrf_exempt
    @login_not_required
    def view(request: HttpRequest, slug: str) -> HttpResponse:
        if request.method != "POST":
            return JsonResponse({"error": "expected POST with a JSON body", "code": "method"}, status=405)
        try:
            context = find_screen_context(_asker(request), slug)
            response = HttpResponse(verb(context, _message(request)), content_type="application/json")
        except tuple(REFUSALS) as error:
            status, code = next(found for kind, found in REFUSALS.items() if isinstance(error, kind))
            response = JsonResponse({"error": str(error), "code": code}, status=status)
        response["Cache-Control"] = "no-store"
        return response

    view.__name__, view.__doc__ = verb.__name__, verb.__doc__
    return view


def _asker(request: HttpRequest) -> Any:
    header = request.headers.get("Authorization", "")
    if header.lower().startswith("bearer "):
        token = find_token(header[7:].strip())
        if token is None:
            raise Unknown("this key is unknown or has expired; make another with `manage.py token`")
        request.has_valid_key = True  # type: ignore[attr-defined]
        if "write" not in token.scopes:
            raise WrongScope(f"this key has the scopes {token.scopes}; comparing needs 'write'")
        return token.user
    if not request.user.is_authenticated:
        raise Unknown(_("You are signed out. Sign in again; your answers are kept until then."))
    if check_csrf(request) is not None:
        raise BadOrigin(_("The page is out of date; load it again."))
    return request.user


def _message(request: HttpRequest) -> Message:
    if len(request.body) > MOST_BYTES:
        raise BadMessage(f"the message has {len(request.body)} bytes; expected at most {MOST_BYTES}; shorten the note")
    message = parse(request.body) if request.body else {}
    if not isinstance(message, dict):
        raise BadMessage(f"the message is {type(message).__name__}; expected a JSON object")
    return message


# --- the five messages -------------------------------------------------------------------


@message_view
def next_view(context: ScreenContext, message: Message) -> str:
    """The next pairs of the user."""
    return next_items(context)


@message_view
def answer_view(context: ScreenContext, message: Message) -> str:
    """Store an answer."""
    return submit_answer(context, read_answer(message), key=_key(message))


@message_view
def undo_view(context: ScreenContext, message: Message) -> str:
    """Undo the last answer, which the message names by its slot."""
    return undo_last(context, named_assignment(message.get("slot")), key=_key(message))


@message_view
def skip_view(context: ScreenContext, message: Message) -> str:
    """Skip a pair permanently."""
    return skip_pair(context, named_assignment(message.get("slot")), key=_key(message))


@message_view
def heartbeat_view(context: ScreenContext, message: Message) -> str:
    """Renew leases."""
    slots = message.get("slots")
    if not isinstance(slots, list) or len(slots) > 100:
        raise BadMessage(f"slots is {slots!r:.100}; expected a list of at most 100 slots")
    kept = extend_leases(context, [named_assignment(each) for each in slots])
    return json.dumps({"lease_s": {str(handle_of(assignment)): seconds for assignment, seconds in kept.items()}})


def read_answer(message: Message) -> Answer:
    """The answer in a message. Raises BadMessage, which names the value and the expected ones."""
    choice, reason, note = message.get("answer"), message.get("reason", ""), message.get("note", "")
    if not isinstance(choice, str) or choice not in ANSWERS:
        raise BadMessage(f"answer is {choice!r:.100}; expected one of {', '.join(ANSWERS)}")
    if choice == "cannot_judge" and reason not in CANNOT_JUDGE_REASONS:
        raise BadMessage(
            f"reason is {reason!r:.100}; expected one of {', '.join(CANNOT_JUDGE_REASONS)} with cannot_judge"
        )
    if choice != "cannot_judge" and reason != "":
        raise BadMessage(f"reason is {reason!r:.100} with the answer {choice!r}; expected it with cannot_judge only")
    if not isinstance(note, str) or len(note) > LONGEST_NOTE:
        raise BadMessage(f"note is {note!r:.40}; expected a text of at most {LONGEST_NOTE} characters")
    return Answer(named_assignment(message.get("slot")), choice, reason, note.strip(), _seconds(message.get("seconds")))


def named_assignment(slot: Any) -> int:
    """The id of the assignment that a message names by its handle. Raises BadMessage for what is no handle."""
    if isinstance(slot, bool) or not isinstance(slot, int) or not 0 <= slot < MOST:
        raise BadMessage(f"slot is {slot!r:.100}; expected the number that came with the pair")
    return assignment_of(slot)


def _seconds(value: Any) -> float | None:
    """The seconds in a message, capped at a day: a laptop may have slept, and the answer still counts."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise BadMessage(f"seconds is {value!r:.100}; expected how long the answer took, or null")
    return min(float(value), LONGEST_S)


def _key(message: Message) -> uuid.UUID:
    value = message.get("key")
    try:
        return uuid.UUID(value if isinstance(value, str) else "")
    except ValueError:
        raise BadMessage(f"key is {value!r:.100}; expected a UUID made for this message") from None
