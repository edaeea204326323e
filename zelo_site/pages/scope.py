"""Access checks for pages: every page loads its project here, so no page can skip the check.

A member is an owner, a viewer or an annotator. Annotators judge blind, so they get 403 for pages with answers,
scores or ranks. Projects of others return 404.
"""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.db.models import OuterRef, Subquery
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _

from labeling.access.members import role_of
from labeling.models import Membership, Project, Role


def member_project(request: HttpRequest, slug: str) -> Project:
    """Return the project if the user is a member in any role; 404 otherwise, even if it exists."""
    user = request.user
    mine = Membership.objects.filter(project=OuterRef("pk"), user_id=user.pk or 0).values("role")
    projects = Project.objects.visible_to(user).annotate(visitor_role=Subquery(mine))
    project = get_object_or_404(projects, slug=slug)
    known = Role.OWNER if getattr(user, "is_superuser", False) else Role(project.visitor_role)
    _known_roles(request)[project.pk] = known
    return project


def visible_project(request: HttpRequest, slug: str) -> Project:
    """Return the project if the user may read it; 403 for annotators, who judge blind, 404 for others."""
    project = member_project(request, slug)
    if visitor_role(request, project) == Role.ANNOTATOR:
        raise PermissionDenied(
            _(
                "annotators of %(project)s compare documents without seeing other answers; "
                "ask an owner for the role viewer"
            )
            % {"project": project.name}
        )
    return project


def visitor_role(request: HttpRequest, project: Project) -> Role | None:
    """Return the user's role in a project, queried once per request; superusers are owners of every project."""
    known = _known_roles(request)
    if project.pk not in known:
        known[project.pk] = role_of(request.user, project)
    return known[project.pk]


def _known_roles(request: HttpRequest) -> dict[int, Role | None]:
    roles: dict[int, Role | None] = request.__dict__.setdefault("zelo_roles", {})
    return roles


def may_change(request: HttpRequest, project: Project) -> bool:
    """Return whether the user is an owner, who may start work, import and invite."""
    return visitor_role(request, project) == Role.OWNER


def owned_project(request: HttpRequest, slug: str) -> Project:
    """Return the project if the user is an owner; 403 for other members, 404 for others."""
    project = visible_project(request, slug)
    if not may_change(request, project):
        raise PermissionDenied(_("only owners can change %(project)s; ask an owner") % {"project": project.name})
    return project
