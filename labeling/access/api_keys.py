"""API keys for programs. The database stores only the hash of a key.

A key is 32 random bytes, so a plain SHA-256 is safe against guessing. Passwords are weaker and use
Django's hashers.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

from django.db.models import Q
from django.db.models.functions import Now

from labeling.models import ApiToken

SCOPES = ("read", "write", "rerank")
_PREFIX = "zelo_"


class BadScope(ValueError):
    """The requested scope of a key does not exist."""


def hashed(token: str) -> str:
    """Return the hash of a token that the database stores."""
    return hashlib.sha256(token.encode()).hexdigest()


def make_token(user: Any, *, name: str, scopes: Sequence[str] = ("read", "write")) -> str:
    """Create a key for `user` and return its token, which cannot be read again later."""
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise BadScope(f"scopes are {list(scopes)!r}; expected some of {', '.join(SCOPES)}")
    token = _PREFIX + secrets.token_urlsafe(32)
    ApiToken.objects.create(user=user, name=name, token_hash=hashed(token), scopes=sorted(set(scopes)))
    return token


def find_token(token: str) -> ApiToken | None:
    """Return the valid key of a token with its active user, or None."""
    found = (
        ApiToken.objects.select_related("user")
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=Now()), token_hash=hashed(token), user__is_active=True)
        .first()
    )
    if found is not None:
        ApiToken.objects.filter(pk=found.pk).update(used_at=Now())
    return found
