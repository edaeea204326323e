"""Writes sign-ins and new passwords to the audit log.

Django signs people in, by link or by password, and sends `user_logged_in`; the receiver here is connected when the
application starts.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth.signals import user_logged_in
from django.db import transaction
from django.dispatch import receiver

from labeling import audit
from labeling.access.api_keys import revoke_all_tokens


@receiver(user_logged_in)
def note_sign_in(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    """Write the entry of a sign-in; `page` is the address's name, which tells a link from a password."""
    match = getattr(request, "resolver_match", None)
    page = {"page": match.url_name} if match is not None else {}
    audit.note("account.signed_in", project=None, actor=user, subject=user.get_username(), **page)


@transaction.atomic
def set_password(user: Any, password: str, *, revoke_keys: bool = False, by: Any = None) -> None:
    """Give `user` another password, which the caller has validated; other sessions end, and API keys by choice."""
    user.set_password(password)
    user.save()
    if revoke_keys:
        revoke_all_tokens(user, by=by)
    audit.note("account.password_set", project=None, actor=by, subject=user.get_username())
