"""The signed-in browsers of a user: listed on the profile, and ended there one by one or all others together.

The receiver is connected when the application starts. Only our own numbers of sessions reach a page: a session's key is a secret.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.models import Session
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.dispatch import receiver

from labeling import audit
from zelo_site.models import SignInSession


@receiver(user_logged_in)
def note_session(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    """Remember from where and with which browser the session began."""
    session = getattr(request, "session", None)
    if session is None:
        return
    session.save()  # its row must exist before ours, which refers to it
    values = {
        "user": user,
        "address": request.META.get("REMOTE_ADDR") or None,
        "browser": request.META.get("HTTP_USER_AGENT", "").replace("\x00", "")[:200],
    }
    SignInSession.objects.update_or_create(session_id=session.session_key, defaults=values)


def sessions_of(user: Any) -> QuerySet[SignInSession]:
    """The user's valid sessions, the newest first."""
    return SignInSession.objects.filter(user=user, session__expire_date__gt=Now()).order_by("-id")


@transaction.atomic
def end_session(user: Any, session_id: int, *, by: Any = None) -> bool:
    """Sign a browser of `user` out; whether there was one."""
    found = SignInSession.objects.filter(user=user, pk=session_id).first()
    if found is None:
        return False
    Session.objects.filter(pk=found.session_id).delete()
    audit.note("account.session_ended", project=None, actor=by, subject=user.get_username(), sessions=1)
    return True


@transaction.atomic
def end_other_sessions(user: Any, kept_key: str, *, by: Any = None) -> int:
    """Sign all browsers of `user` out except the one with this key; returns how many."""
    others = SignInSession.objects.filter(user=user).exclude(session_id=kept_key)
    _rows, deleted = Session.objects.filter(pk__in=others.values("session_id")).delete()
    count = deleted.get("sessions.Session", 0)
    audit.note("account.session_ended", project=None, actor=by, subject=user.get_username(), sessions=count)
    return count
