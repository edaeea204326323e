"""Accounts of users: create, rename, deactivate, reset, and make somebody a superuser.

Each function is one transaction and writes its entry. A user signs in by sign-in name, e-mail address or shown name, so no sign-in name holds an @
and no address belongs to two accounts. `workers.deletion.accounts` deletes accounts.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import connection, transaction
from django.db.models import Value
from django.db.models.functions import Concat, Trim

from labeling import audit
from labeling.access.api_keys import revoke_all_tokens
from labeling.access.links import make_link
from labeling.annotation.assignments import held_by, release
from labeling.models import AccessLink, Annotator

LONGEST = 150


class AccountRefused(ValueError):
    """The account was not changed; `field` names the wrong value, "" where it is about the whole account."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


def find_account(name_or_email: str) -> Any:
    """The account with this sign-in name; else, in any case, the only one with this sign-in name, e-mail address or shown name.

    A newcomer knows the name that she gave, which is the shown one. None where no account or several fit.
    """
    given = name_or_email.strip()
    if not given or "\x00" in given:
        return None
    users = get_user_model().objects
    shown = Trim(Concat("first_name", Value(" "), "last_name"))
    active = users.filter(is_active=True).annotate(shown=shown)
    for rows in (
        users.filter(username=given),
        users.filter(username__iexact=given),
        users.filter(email__iexact=given) if "@" in given else users.none(),
        active.filter(shown__iexact=given),
    ):
        found = list(rows[:2])
        if found:
            return found[0] if len(found) == 1 else None
    return None


def check_names(user: Any, *, username: str, full_name: str, email: str) -> None:
    """Raise AccountRefused if `change_account` or `create_account` would refuse these names; changes nothing."""
    before = get_user_model().objects.filter(pk=user.pk).first() if user.pk else None
    _name(before or get_user_model()(), username=username, full_name=full_name, email=email)


@transaction.atomic
def create_account(
    username: str,
    *,
    full_name: str = "",
    email: str = "",
    is_staff: bool = False,
    is_superuser: bool = False,
    by: Any = None,
) -> Any:
    """A new account without a password; `labeling.access.links.make_link` signs it in. Raises AccountRefused."""
    _lock_names()
    user = get_user_model()(is_superuser=is_superuser, is_staff=is_staff or is_superuser)
    _name(user, username=username, full_name=full_name, email=email)
    user.set_unusable_password()
    user.save()
    details = {"superuser": "yes"} if is_superuser else {"staff": "yes"} if is_staff else {}
    audit.note("account.created", project=None, actor=by, subject=user.get_username(), **details)
    return user


@transaction.atomic
def change_account(user: Any, *, username: str, full_name: str, email: str, by: Any = None) -> dict[str, str]:
    """Give an account other names; returns the changes as "old → new". Raises AccountRefused."""
    _lock_names()
    locked = get_user_model().objects.select_for_update().get(pk=user.pk)
    before = _names(locked)
    _name(locked, username=username, full_name=full_name, email=email)
    changed = audit.changes(before, _names(locked))
    if changed:
        locked.save(update_fields=["username", "first_name", "last_name", "email"])
        Annotator.objects.filter(user=locked).update(name=locked.get_full_name() or locked.get_username())
        audit.note("account.changed", project=None, actor=by, subject=locked.get_username(), **changed)
    return changed


@transaction.atomic
def deactivate_account(user: Any, *, by: Any = None) -> bool:
    """Refuse the user's password, links, sessions and keys until `activate_account`; whether the account was active.

    Their open assignments return to the others. Raises AccountRefused for the last active superuser.
    """
    locked = _locked(user)
    if not locked.is_active:
        return False
    _keep_a_superuser(locked)
    locked.is_active = False
    locked.save(update_fields=["is_active"])
    for person in Annotator.objects.people().filter(user=locked):
        release(list(held_by(person.pk).values()), person_id=person.pk)
    audit.note("account.deactivated", project=None, actor=by, subject=locked.get_username())
    return True


@transaction.atomic
def activate_account(user: Any, *, by: Any = None) -> bool:
    """Let a deactivated user sign in again; whether the account was inactive."""
    locked = _locked(user)
    if locked.is_active:
        return False
    locked.is_active = True
    locked.save(update_fields=["is_active"])
    audit.note("account.activated", project=None, actor=by, subject=locked.get_username())
    return True


@transaction.atomic
def reset_account(user: Any, *, revoke_keys: bool = False, by: Any = None) -> str:
    """Remove the password, end all sessions and unused sign-in links; returns the token of a new link.

    API keys stay unless `revoke_keys`, because programs use them. Raises AccountRefused for an inactive account.
    """
    locked = _locked(user)
    if not locked.is_active:
        raise AccountRefused(f"{locked.get_username()!r} is deactivated; activate the account first")
    locked.set_unusable_password()
    locked.save(update_fields=["password"])
    AccessLink.objects.filter(user=locked, used_at__isnull=True).delete()
    audit.note("account.reset", project=None, actor=by, subject=locked.get_username(), keys_revoked=revoke_keys)
    if revoke_keys:
        revoke_all_tokens(locked, by=by)
    return make_link(locked, by=by)


@transaction.atomic
def set_superuser(user: Any, is_superuser: bool, *, by: Any = None) -> bool:
    """Make somebody a superuser, or take that away; whether it changed. Raises AccountRefused for the last one."""
    locked = _locked(user)
    if locked.is_superuser == is_superuser:
        return False
    if not is_superuser:
        _keep_a_superuser(locked)
    locked.is_superuser = locked.is_staff = is_superuser
    locked.save(update_fields=["is_superuser", "is_staff"])
    action = "account.superuser" if is_superuser else "account.superuser_ended"
    audit.note(action, project=None, actor=by, subject=locked.get_username())
    return True


@transaction.atomic
def set_staff(user: Any, is_staff: bool, *, by: Any = None) -> bool:
    """Let somebody start projects, or take that away; whether it changed. Raises AccountRefused for a superuser."""
    locked = _locked(user)
    if locked.is_staff == is_staff:
        return False
    if locked.is_superuser:
        raise AccountRefused(f"{locked.get_username()!r} is a superuser, who may start projects; end that right first")
    locked.is_staff = is_staff
    locked.save(update_fields=["is_staff"])
    changed = audit.changes({"staff": not is_staff}, {"staff": is_staff})
    audit.note("account.changed", project=None, actor=by, subject=locked.get_username(), **changed)
    return True


def _lock_names() -> None:
    """Let one transaction at a time choose names, which no constraint of the database compares without case."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('zelo account names'))")


def _locked(user: Any) -> Any:
    """The account while holding the locks of all superusers, so that two of them cannot remove each other."""
    users = get_user_model().objects
    list(users.select_for_update().filter(is_superuser=True).order_by("pk"))
    return users.select_for_update().get(pk=user.pk)


def _keep_a_superuser(user: Any) -> None:
    others = get_user_model().objects.filter(is_superuser=True, is_active=True).exclude(pk=user.pk)
    if user.is_superuser and user.is_active and not others.exists():
        raise AccountRefused(f"{user.get_username()!r} is the last active superuser; make another user one first")


def _names(user: Any) -> dict[str, str]:
    return {"username": user.username, "full_name": user.get_full_name(), "email": user.email}


def _name(user: Any, *, username: str, full_name: str, email: str) -> None:
    """Set the names of an unsaved change. Raises AccountRefused."""
    others = get_user_model().objects.exclude(pk=user.pk)
    if username != user.username:
        user.username = _checked_username(username, others)
    full_name = full_name.strip().replace("\x00", "")
    if len(full_name) > LONGEST:
        raise AccountRefused(f"the name has {len(full_name)} characters; expected at most {LONGEST}", "full_name")
    if full_name != user.get_full_name():
        user.first_name, user.last_name = full_name, ""
    if email != user.email:
        user.email = _checked_email(email.strip(), others)


def _checked_username(username: str, others: Any) -> str:
    given = username.strip()
    try:
        UnicodeUsernameValidator()(given)
    except ValidationError as error:
        raise AccountRefused(
            f"the sign-in name is {given[:40]!r}; expected letters, digits and . + - _ alone", "username"
        ) from error
    if "@" in given or len(given) > LONGEST:
        raise AccountRefused(
            f"a sign-in name has at most {LONGEST} characters and no @; choose another one", "username"
        )
    if others.filter(username__iexact=given).exists():
        raise AccountRefused(f"the sign-in name {given!r} is taken; choose another one", "username")
    return given


def _checked_email(email: str, others: Any) -> str:
    if not email:
        return ""
    try:
        validate_email(email)
    except ValidationError as error:
        raise AccountRefused(
            f"{email[:60]!r} is not an e-mail address; write it as name@example.org", "email"
        ) from error
    if others.filter(email__iexact=email).exists() or others.filter(username__iexact=email).exists():
        raise AccountRefused("another account has this e-mail address; use another one", "email")
    return email
