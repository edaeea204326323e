"""Accounts of the server, for superusers: create, change, reset. Each verb writes the audit log.

A new or reset account gets a one-time link to sign in; nobody else ever knows its password.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models.functions import Now

from labeling import audit
from labeling.access.api_keys import revoke_token
from labeling.access.links import make_link
from labeling.models import AccessLink, ApiToken

FIELDS = ("name", "is_active", "is_staff", "is_superuser")


class UserRefused(ValueError):
    """The account was not made or changed; the message says why and what helps."""


@transaction.atomic
def create_user(username: str, *, name: str = "", is_staff: bool = False, by: Any = None) -> tuple[Any, str]:
    """A new account without a password, and the token of the link that signs it in once. Raises UserRefused."""
    users = get_user_model()
    user = users(username=username, first_name=name.strip(), is_staff=is_staff)
    user.set_unusable_password()
    try:
        user.full_clean(exclude=["password"])
    except ValidationError as error:
        said = "; ".join(f"{field}: {' '.join(texts)}" for field, texts in error.message_dict.items())
        raise UserRefused(said.replace("first_name", "name")) from None
    user.save()
    audit.note("account.created", project=None, actor=by, subject=user.get_username(), staff=is_staff)
    return user, make_link(user, by=by)


@transaction.atomic
def change_user(user: Any, *, by: Any = None, **changes: Any) -> Any:
    """Change name, is_active, is_staff or is_superuser; without is_active nobody signs in and no key works.

    Raises UserRefused for the last active superuser.
    """
    row = get_user_model().objects.select_for_update().get(pk=user.pk)
    before = _shown(row)
    for field, value in changes.items():
        setattr(row, "first_name" if field == "name" else field, value)
    if not (row.is_active and row.is_superuser) and before["is_active"] and before["is_superuser"]:
        _check_not_last(row)
    if changed := audit.changes(before, _shown(row)):
        row.save()
        audit.note("account.changed", project=None, actor=by, subject=row.get_username(), **changed)
    return row


@transaction.atomic
def reset_user(user: Any, *, revoke_keys: bool = False, by: Any = None) -> str:
    """End the account's password, sessions and open links, and its API keys on request; returns a new link's token."""
    row = get_user_model().objects.select_for_update().get(pk=user.pk)
    if not row.is_active:
        raise UserRefused(f"account {row.get_username()!r} is deactivated; activate it first")
    row.set_unusable_password()  # sessions are bound to the password's hash
    row.save()
    AccessLink.objects.filter(user=row, used_at__isnull=True).update(used_at=Now())
    audit.note("account.reset", project=None, actor=by, subject=row.get_username(), keys_revoked=revoke_keys)
    if revoke_keys:
        for number in ApiToken.objects.filter(user=row).values_list("id", flat=True):
            revoke_token(row, number, by=by)
    return make_link(row, by=by)


def _check_not_last(row: Any) -> None:
    others = get_user_model().objects.filter(is_superuser=True, is_active=True).exclude(pk=row.pk)
    if not others.exists():
        raise UserRefused(f"{row.get_username()!r} is the last superuser; make another one first")


def _shown(row: Any) -> dict[str, Any]:
    return {"name": row.first_name, **{field: getattr(row, field) for field in FIELDS[1:]}}
