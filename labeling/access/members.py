"""Members of a project: invite, change roles and quotas, remove, resume.

Each function is one transaction under the lock of the project's row, so that two owners cannot remove each other.
Pages, REST and the command line call them; `labeling.access.links` makes the one-time links.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from labeling import audit
from labeling.access.links import INVITATION_VALID, make_link, maker_may_invite
from labeling.annotation.assignments import held_by, release
from labeling.models import AccessLink, Annotator, Membership, Project, Role, Viewer

MOST_DAYS = 90


class BadInvitation(ValueError):
    """An invitation has an invalid role or number of days."""


class MembershipRefused(ValueError):
    """A change of members names no member, or would leave the project without an owner."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """A new invitation. Its `token` cannot be read again later."""

    token: str
    role: Role
    days: int
    name: str = ""


def role_of(user: Viewer, project: Project) -> Role | None:
    """The role of `user` in the project, None without one; superusers own every project."""
    if not user.is_authenticated or not user.is_active:
        return None
    if getattr(user, "is_superuser", False):
        return Role.OWNER
    found = Membership.objects.filter(project=project, user_id=user.pk).values_list("role", flat=True).first()
    return Role(found) if found is not None else None


def known_role(role: str) -> Role:
    """The role of that name. Raises BadInvitation, which lists the roles."""
    if role not in Role.values:
        raise BadInvitation(f"the role is {role[:40]!r}; expected one of {', '.join(Role.values)}")
    return Role(role)


def invite(
    project: Project, *, role: str, days: int = INVITATION_VALID.days, name: str = "", by: Any = None
) -> Invitation:
    """A link that lets one newcomer, or one who is signed in, into the project once. Raises BadInvitation.

    `name`: whom it is for; a newcomer may give another one.
    """
    chosen = known_role(role)
    if not 1 <= days <= MOST_DAYS:
        raise BadInvitation(f"the validity of the link is {days} days; expected 1 to {MOST_DAYS}")
    token = make_link(project=project, role=chosen, valid_for=timedelta(days=days), name=name, by=by)
    return Invitation(token, chosen, days, name)


@transaction.atomic
def renew_invitation(project: Project, link_id: int, *, by: Any = None) -> Invitation | None:
    """Replace an unused invitation whose link was lost by a new one for the same person; None if there was none."""
    link = open_invitations(project).filter(pk=link_id).first()
    if link is None or not revoke_invitation(project, link_id, by=by):
        return None
    return invite(project, role=link.role, name=link.name, by=by)


@transaction.atomic
def new_sign_in_link(project: Project, user: Any, *, by: Any = None) -> str:
    """A one-time link for a member who lost theirs; return its token. Earlier unused ones end. Raises MembershipRefused.

    Only for accounts that came by invitation and have no password, and whose projects are all owned by `by`: a link to any
    other account would open more than this project.
    """
    member = _locked_member(project, user)
    _check_is_guest(user, by)
    AccessLink.objects.filter(project=project, user=user, used_at__isnull=True).delete()
    return make_link(user, project=project, role=member.role, by=by)


def _check_is_guest(user: Any, by: Any) -> None:
    if not user.is_active:
        raise MembershipRefused(f"{user} is deactivated; ask a superuser to activate the account")
    if not _came_by_link(user):
        raise MembershipRefused(f"{user} signs in with a password; a superuser can reset it")
    if user.pk in _of_others([user.pk], by):
        raise MembershipRefused(f"{user} is a member of projects that are not yours; ask a superuser for a link")


def guests(users: Sequence[Any], *, by: Any) -> set[int]:
    """The ids of those users for whom `new_sign_in_link` makes a link."""
    found = {user.pk for user in users if user.is_active and _came_by_link(user)}
    return found - _of_others(list(found), by)


def _came_by_link(user: Any) -> bool:
    return not (user.is_superuser or user.is_staff or user.has_usable_password())


def _of_others(user_ids: list[int], by: Any) -> set[int]:
    """Those of the users who are members of a project that `by` does not own."""
    if getattr(by, "is_superuser", False):
        return set()
    owned = Membership.objects.filter(user=by, role=Role.OWNER).values("project")
    rows = Membership.objects.filter(user__in=user_ids).exclude(project__in=owned)
    return set(rows.values_list("user_id", flat=True))


def open_invitations(project: Project) -> QuerySet[AccessLink]:
    """Unused and valid links into the project, newest first."""
    links = AccessLink.objects.filter(
        maker_may_invite(), project=project, user__isnull=True, used_at__isnull=True, expires_at__gt=Now()
    )
    return links.order_by("-id")


@transaction.atomic
def revoke_invitation(project: Project, link_id: int, *, by: Any = None) -> bool:
    """Make an unused link useless; whether there was one."""
    link = open_invitations(project).select_for_update(of=("self",)).filter(pk=link_id).first()
    if link is None:
        return False
    link.delete()
    audit.note("member.invitation_revoked", project=project, actor=by, subject=link.role)
    return True


@transaction.atomic
def set_role(project: Project, user: Any, role: str, *, by: Any = None) -> None:
    """Give a member another role. Raises MembershipRefused for the last owner, BadInvitation for an unknown role."""
    chosen = known_role(role)
    member = _locked_member(project, user)
    if member.role == Role.OWNER and chosen != Role.OWNER:
        _keep_an_owner(member)
    Membership.objects.filter(pk=member.pk).update(role=chosen)
    if member.role != chosen:
        _note("member.role", project, user, by, role=f"{member.role} → {chosen}")
    if chosen == Role.VIEWER:
        _free_leases(project, user)


@transaction.atomic
def remove_member(project: Project, user: Any, *, by: Any = None) -> None:
    """Remove a member; their answers are kept. Raises MembershipRefused for the last owner."""
    member = _locked_member(project, user)
    if member.role == Role.OWNER:
        _keep_an_owner(member)
    member.delete()
    AccessLink.objects.filter(project=project, user=user, used_at__isnull=True).delete()
    _note("member.removed", project, user, by, role=member.role)
    _free_leases(project, user)


@transaction.atomic
def set_quota(project: Project, user: Any, quota: int | None, *, by: Any = None) -> None:
    """Set the largest number of answers that a member gives; None: no limit. Raises MembershipRefused."""
    if quota is not None and not 0 <= quota <= 1_000_000:
        raise MembershipRefused(f"the quota is {quota}; expected 0 to 1,000,000, or none")
    member = _locked_member(project, user)
    if member.quota != quota:
        Membership.objects.filter(pk=member.pk).update(quota=quota)
        _note("member.quota", project, user, by, **audit.changes({"quota": member.quota}, {"quota": quota}))


def resume_person(project: Project, user: Any, *, by: Any = None) -> bool:
    """Resume a paused person; earlier answers no longer count against them. Return whether they were paused."""
    paused = Annotator.objects.people().filter(project=project, user=user, paused_at__isnull=False)
    with transaction.atomic():
        resumed = paused.update(paused_at=None, pause_reason="", watched_from=Now()) == 1
        if resumed:
            _note("member.resumed", project, user, by)
    return resumed


def _note(action: str, project: Project, user: Any, by: Any, **details: Any) -> None:
    audit.note(action, project=project, actor=by, subject=user.get_username(), **details)


def _locked_member(project: Project, user: Any) -> Membership:
    """Return the membership while holding the lock for changes of members."""
    Project.objects.select_for_update(of=("self",)).get(pk=project.pk)
    member = Membership.objects.filter(project=project, user=user).first()
    if member is None:
        raise _no_member(project, user)
    return member


def _no_member(project: Project, user: Any) -> MembershipRefused:
    return MembershipRefused(f"{user} is not a member of {project.name}; invite them first")


def _keep_an_owner(member: Membership) -> None:
    others = Membership.objects.filter(project=member.project_id, role=Role.OWNER).exclude(pk=member.pk)
    if not others.filter(user__is_active=True).exists():
        raise MembershipRefused("this is the last owner of the project; make another member an owner first")


def _free_leases(project: Project, user: Any) -> None:
    """End the leases of a user who no longer compares."""
    for person in Annotator.objects.people().filter(project=project, user=user):
        release(list(held_by(person.pk).values()), person_id=person.pk)
