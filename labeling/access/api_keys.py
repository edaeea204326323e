"""API keys of programs. A key is shown once, and the database keeps its hash.

A plain SHA-256 is enough, since a key is 32 random bytes; passwords use Django's hashers.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils import timezone

from labeling import audit
from labeling.models import ApiToken

# `admin`: members, invitations, keys, endpoints and accounts, beside `write`.
SCOPES = ("read", "write", "rerank", "admin")
LONGEST_DAYS = 366
USED_EVERY = timedelta(minutes=1)
_PREFIX = "zelo_"


class BadScope(ValueError):
    """A key was requested with an unknown scope."""


def hashed(token: str) -> str:
    """The hash of a token, as the database keeps it."""
    return hashlib.sha256(token.encode()).hexdigest()


class BadExpiry(ValueError):
    """A key was requested for an invalid number of days."""


def make_token(
    user: Any, *, name: str, scopes: Sequence[str] = ("read", "write"), days: int | None = None, by: Any = None
) -> str:
    """A new key for `user`; this is the only time that it can be read. `days`: how long it is valid (None: no end).

    Raises BadScope, BadExpiry.
    """
    if days is not None and not 1 <= days <= LONGEST_DAYS:
        raise BadExpiry(f"the validity of the key is {days} days; expected 1 to {LONGEST_DAYS}")
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise BadScope(f"scopes are {list(scopes)!r}; expected some of {', '.join(SCOPES)}")
    token = _PREFIX + secrets.token_urlsafe(32)
    with transaction.atomic():
        made = ApiToken.objects.create(
            user=user,
            name=name,
            token_hash=hashed(token),
            scopes=sorted(set(scopes)),
            expires_at=None if days is None else timezone.now() + timedelta(days=days),
        )
        _note("key.made", made, by, scopes=", ".join(made.scopes), **({} if days is None else {"days": days}))
    return token


def revoke_token(user: Any, token_id: int, *, by: Any = None) -> bool:
    """Delete a key of `user`; whether there was one."""
    with transaction.atomic():
        key = ApiToken.objects.select_for_update().filter(user=user, pk=token_id).first()
        if key is None:
            return False
        _note("key.revoked", key, by)
        key.delete()
    return True


def revoke_all_tokens(user: Any, *, by: Any = None) -> int:
    """Delete every key of `user`; returns how many."""
    with transaction.atomic():
        keys = list(ApiToken.objects.select_for_update().filter(user=user))
        for key in keys:
            _note("key.revoked", key, by)
            key.delete()
    return len(keys)


def _note(action: str, key: ApiToken, by: Any, **details: Any) -> None:
    audit.note(action, project=None, actor=by, subject=key.name, key=key.pk, user=key.user.get_username(), **details)


def find_token(token: str) -> ApiToken | None:
    """The valid key with its active user, or None."""
    found = (
        ApiToken.objects.select_related("user")
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=Now()), token_hash=hashed(token), user__is_active=True)
        .first()
    )
    # Once a minute: a write at each look-up would wait for the disk, and nobody needs the second of the last use.
    if found is not None and (found.used_at is None or found.used_at < timezone.now() - USED_EVERY):
        ApiToken.objects.filter(pk=found.pk).update(used_at=Now())
    return found
