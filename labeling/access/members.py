"""Members of a project: invitations, roles, quotas, removal and resuming paused people.

Each function is one transaction that locks the project's row, so that two owners who remove each other leave
one owner. Pages, REST and the command line call these functions; `labeling.access.links` makes the one-time links.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from labeling.access.links import INVITATION_VALID, make_link
from labeling.annotation.assignments import held_by, release
from labeling.models import AccessLink, Annotator, Membership, Project, Role, Viewer

MOST_DAYS = 90


class BadInvitation(ValueError):
    """The role or the lifetime of an invitation is invalid."""


class MembershipRefused(ValueError):
    """The change would leave the project without an owner, or the user is not a member."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """A new invitation. `token` cannot be read again later."""

    token: str
    role: Role
    days: int


def role_of(user: Viewer, project: Project) -> Role | None:
    """Return the role of `user` in the project: owner for superusers, None without a membership."""
    if not user.is_authenticated or not user.is_active:
        return None
    if getattr(user, "is_superuser", False):
        return Role.OWNER
    found = Membership.objects.filter(project=project, user_id=user.pk).values_list("role", flat=True).first()
    return Role(found) if found is not None else None


def known_role(role: str) -> Role:
    """Return the role of that name. Raises BadInvitation for an unknown name."""
    if role not in Role.values:
        raise BadInvitation(f"the role is {role[:40]!r}; expected one of {', '.join(Role.values)}")
    return Role(role)


def invite(project: Project, *, role: str, days: int = INVITATION_VALID.days) -> Invitation:
    """Create a link that adds one new or signed-in user to the project. Raises BadInvitation."""
    chosen = known_role(role)
    if not 1 <= days <= MOST_DAYS:
        raise BadInvitation(f"the link is valid for {days} days; expected 1 to {MOST_DAYS}")
    token = make_link(project=project, role=chosen, valid_for=timedelta(days=days))
    return Invitation(token, chosen, days)


def open_invitations(project: Project) -> QuerySet[AccessLink]:
    """Return the unused, valid links of the project, newest first."""
    links = AccessLink.objects.filter(project=project, user__isnull=True, used_at__isnull=True, expires_at__gt=Now())
    return links.order_by("-id")


def revoke_invitation(project: Project, link_id: int) -> bool:
    """Revoke an unused link; return whether it existed."""
    return open_invitations(project).filter(pk=link_id).delete()[0] > 0


@transaction.atomic
def set_role(project: Project, user: Any, role: str) -> None:
    """Change the role of a member. Raises MembershipRefused for the last owner, BadInvitation for an unknown role."""
    chosen = known_role(role)
    member = _locked_member(project, user)
    if member.role == Role.OWNER and chosen != Role.OWNER:
        _keep_an_owner(member)
    Membership.objects.filter(pk=member.pk).update(role=chosen)
    if chosen == Role.VIEWER:
        _free_leases(project, user)


@transaction.atomic
def remove_member(project: Project, user: Any) -> None:
    """Remove a member but keep their answers. Raises MembershipRefused for the last owner."""
    member = _locked_member(project, user)
    if member.role == Role.OWNER:
        _keep_an_owner(member)
    member.delete()
    _free_leases(project, user)


def set_quota(project: Project, user: Any, quota: int | None) -> None:
    """Set the quota of answers of a member; None removes it. Raises MembershipRefused."""
    if quota is not None and not 0 <= quota <= 1_000_000:
        raise MembershipRefused(f"the quota is {quota}; expected 0 to 1,000,000, or none")
    if Membership.objects.filter(project=project, user=user).update(quota=quota) != 1:
        raise _no_member(project, user)


def resume_person(project: Project, user: Any) -> bool:
    """Resume a paused person and ignore their earlier gold results; return whether they were paused."""
    paused = Annotator.objects.people().filter(project=project, user=user, paused_at__isnull=False)
    return paused.update(paused_at=None, pause_reason="", watched_from=Now()) == 1


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
    """Release the assignments of a person who no longer compares."""
    for person in Annotator.objects.people().filter(project=project, user=user):
        release(list(held_by(person.pk).values()), person_id=person.pk)
