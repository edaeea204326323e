"""What a visitor may see and change: every page looks its project up here, so none forgets to ask."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.shortcuts import get_object_or_404

from labeling.models import Membership, Project, Role


def visible_project(request: HttpRequest, slug: str) -> Project:
    """The project if the visitor may see it; 404 otherwise, whether it exists or not."""
    return get_object_or_404(Project.objects.visible_to(request.user), slug=slug)


def may_change(request: HttpRequest, project: Project) -> bool:
    """Whether the visitor owns the project: starts work, imports, invites."""
    user = request.user
    if getattr(user, "is_superuser", False):
        return True
    return Membership.objects.filter(project=project, user_id=user.pk or 0, role=Role.OWNER).exists()


def owned_project(request: HttpRequest, slug: str) -> Project:
    """The project if the visitor owns it; 403 for members who may only look, 404 for others."""
    project = visible_project(request, slug)
    if not may_change(request, project):
        raise PermissionDenied(f"changing {project.name} needs the role owner; ask one of its owners")
    return project
