"""Who asks, over REST: a signed-in browser (CSRF-checked) or a program's bearer key with scopes."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja.errors import HttpError
from ninja.security import HttpBearer, SessionAuth

from labeling.models import Membership, Project, Role
from labeling.tokens import find_token

READING = {"GET", "HEAD", "OPTIONS"}


class TokenAuth(HttpBearer):
    """`Authorization: Bearer zelo_...`; a key without the scope gets 403, an unknown one 401."""

    def authenticate(self, request: HttpRequest, token: str) -> Any:
        found = find_token(token)
        if found is None:
            return None
        needed = "read" if request.method in READING else "write"
        if needed not in found.scopes:
            raise HttpError(403, f"this key has the scopes {found.scopes}; {request.method} needs {needed!r}")
        request.user = found.user
        return found.user


API_AUTH = [TokenAuth(), SessionAuth()]


def project_or_404(request: HttpRequest, slug: str) -> Project:
    """The project, if the asker may see it; otherwise 404, whether it exists or not."""
    # PostgreSQL refuses to compare with NUL.
    project = None if "\x00" in slug else Project.objects.visible_to(request.user).filter(slug=slug).first()
    if project is None:
        raise HttpError(404, f"no project {slug!r} is visible to you; GET /api/v1/projects lists those that are")
    return project


def owned_project_or_404(request: HttpRequest, slug: str) -> Project:
    """The project, if the asker may change it; 403 for members who may only look."""
    project = project_or_404(request, slug)
    if owns(request.user, project):
        return project
    raise HttpError(403, f"changing project {slug!r} needs the role owner; ask one of its owners")


def owns(user: Any, project: Project) -> bool:
    """Whether `user` may change the project: its owners and superusers may."""
    return user.is_superuser or Membership.objects.filter(project=project, user_id=user.pk, role=Role.OWNER).exists()
