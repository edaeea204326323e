"""What a visitor may see and change: every page looks its project up here, so none forgets to ask.

Members of a project own it, view it, or compare in it. Who only compares does so blind: pages that show answers,
scores or ranks are refused to them. Foreign projects are not found.
"""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.db.models import OuterRef, Subquery
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _

from labeling.models import Membership, Project, Role
from labeling.people import role_of


def member_project(request: HttpRequest, slug: str) -> Project:
    """The project if the visitor is a member of it, in any role; 404 otherwise, whether it exists or not."""
    user = request.user
    mine = Membership.objects.filter(project=OuterRef("pk"), user_id=user.pk or 0).values("role")
    projects = Project.objects.visible_to(user).annotate(visitor_role=Subquery(mine))
    project = get_object_or_404(projects, slug=slug)
    known = Role.OWNER if getattr(user, "is_superuser", False) else Role(project.visitor_role)  # type: ignore[attr-defined]
    _known_roles(request)[project.pk] = known
    return project


def visible_project(request: HttpRequest, slug: str) -> Project:
    """The project if the visitor may read it; 403 for annotators, who judge blind, 404 for others."""
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
    """The visitor's role in a project, looked up once a request; superusers own everything."""
    known = _known_roles(request)
    if project.pk not in known:
        known[project.pk] = role_of(request.user, project)
    return known[project.pk]


def _known_roles(request: HttpRequest) -> dict[int, Role | None]:
    roles: dict[int, Role | None] = request.__dict__.setdefault("zelo_roles", {})
    return roles


def may_change(request: HttpRequest, project: Project) -> bool:
    """Whether the visitor owns the project: starts work, imports, invites."""
    return visitor_role(request, project) == Role.OWNER


def owned_project(request: HttpRequest, slug: str) -> Project:
    """The project if the visitor owns it; 403 for members who do not, 404 for others."""
    project = visible_project(request, slug)
    if not may_change(request, project):
        raise PermissionDenied(_("only owners can change %(project)s; ask an owner") % {"project": project.name})
    return project
