"""One-time links: they sign a user in, or invite a new user to a project.

The database keeps the hash of a token. A conditional update redeems a link, so that two browsers cannot both use it.
`zelo_site.accounts` serves the links; `labeling.access.api_keys` holds the keys of programs.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.text import slugify

from labeling import audit
from labeling.access.api_keys import hashed
from labeling.models import AccessLink, Membership, Project, Role

SIGN_IN_VALID = timedelta(hours=24)
INVITATION_VALID = timedelta(days=7)


class LinkRefused(LookupError):
    """A link is unknown, used, expired, or its user has been deactivated."""


class BadLink(ValueError):
    """A link was requested without a user or a project."""


def make_link(
    user: Any = None,
    *,
    project: Project | None = None,
    role: str = "",
    valid_for: timedelta | None = None,
    name: str = "",
    by: Any = None,
) -> str:
    """Create a link that signs `user` in once or invites one person, `name`, to `project` as `role`; return its token.

    The token cannot be read again later.
    """
    if user is None and (project is None or not role):
        raise BadLink("a link needs either a user to sign in or a project and a role; set one of them")
    token = secrets.token_urlsafe(32)
    chosen = valid_for or (SIGN_IN_VALID if user is not None else INVITATION_VALID)
    with transaction.atomic():
        AccessLink.objects.create(
            token_hash=hashed(token),
            user=user,
            project=project,
            role=role,
            name=name.strip().replace("\x00", "")[:150],
            expires_at=timezone.now() + chosen,
            made_by=by if getattr(by, "pk", None) else None,
        )
        if user is not None:
            hours = round(chosen.total_seconds() / 3600)
            audit.note("account.link_made", project=project, actor=by, subject=user.get_username(), hours=hours)
        else:
            audit.note("member.invited", project=project, actor=by, subject=role, days=chosen.days)
    return token


def maker_may_invite() -> Q:
    """The condition that a link's maker is active and still a superuser or, for an invitation, an owner of the project."""
    owners = Membership.objects.filter(project=OuterRef("project"), user=OuterRef("made_by"), role=Role.OWNER)
    may = Q(made_by__is_superuser=True) | Q(Exists(owners))
    return Q(made_by__isnull=True) | Q(made_by__is_active=True) & may


def find_link(token: str) -> AccessLink | None:
    """The valid link of a token, or None; does not redeem it."""
    usable = Q(user__isnull=True) | Q(user__is_active=True)
    return (
        AccessLink.objects.select_related("user", "project")
        .filter(
            usable,
            maker_may_invite(),
            project__archived_at__isnull=True,
            token_hash=hashed(token),
            used_at__isnull=True,
            expires_at__gt=Now(),
        )
        .first()
    )


@transaction.atomic
def redeem(token: str, *, visitor: Any = None, name: str = "") -> Any:
    """Use the link and return the user to sign in. Raises LinkRefused for an invalid link.

    An invitation adds the signed-in `visitor` to the project, or creates a user called `name`.
    """
    link = find_link(token)
    if link is None or AccessLink.objects.filter(pk=link.pk, used_at__isnull=True).update(used_at=Now()) != 1:
        raise LinkRefused(
            "this link is unknown, used or expired; ask for a new one (`python manage.py link USERNAME` on the server)"
        )
    user = link.user or visitor or _make_newcomer(name.strip() or link.name)
    maker = {"made_by": link.made_by.get_username()} if link.made_by is not None else {}
    if link.project is None:
        audit.note("account.link_used", project=None, actor=user, subject=user.get_username(), **maker)
    else:
        member, is_new = Membership.objects.get_or_create(project=link.project, user=user, defaults={"role": link.role})
        audit.note(
            "member.joined" if is_new else "member.invitation_used",
            project=link.project,
            actor=user,
            subject=user.get_username(),
            role=str(member.role),
            **maker,
        )
    return user


def _make_newcomer(name: str) -> Any:
    """Create a user without a password, who signs in by further links or sets a password.

    The sign-in name is made of the given one: "ada-lovelace", with a random end where it is taken.
    """
    given = name.strip().replace("\x00", "")[:150]
    wanted = slugify(given)[:100]
    is_free = bool(wanted) and not get_user_model().objects.filter(username__iexact=wanted).exists()
    username = wanted if is_free else f"{wanted or 'guest'}-{secrets.token_hex(4)}"
    user = get_user_model()(username=username, first_name=given)
    user.set_unusable_password()
    user.save()
    return user


def ensure_owner() -> Any:
    """The first superuser; the first start of a server creates one without a password."""
    users = get_user_model().objects
    owner = users.filter(is_superuser=True, is_active=True).order_by("id").first()
    if owner is not None:
        return owner
    owner, made = users.get_or_create(username="owner", defaults={"is_superuser": True, "is_staff": True})
    if made:
        owner.set_unusable_password()
    owner.is_superuser = owner.is_staff = owner.is_active = True
    owner.save()
    return owner
