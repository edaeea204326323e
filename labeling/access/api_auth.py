"""Authentication of REST requests: a signed-in browser (with CSRF check), or an API key with scopes."""

from __future__ import annotations

import re
from typing import Any

from django.http import HttpRequest
from ninja.errors import HttpError
from ninja.security import HttpBearer, SessionAuth

from labeling.access.api_keys import find_token
from labeling.access.members import role_of
from labeling.models import Project, Role

READING = {"GET", "HEAD", "OPTIONS"}


# Changes of who may do what, and of where the server sends texts.
_ADMIN = re.compile(r"/api/v1/(projects/[^/]+/(members|invitations)|keys|endpoints|limits|users)(/|$)")


class TokenAuth(HttpBearer):
    """Bearer authentication with an API key: 401 for an unknown key, 403 for one without the scope."""

    def authenticate(self, request: HttpRequest, token: str) -> Any:
        found = find_token(token)
        if found is None:
            return None
        request.has_valid_key = True  # type: ignore[attr-defined]
        needed = "read" if request.method in READING else "write"
        if needed == "write" and _ADMIN.match(request.path_info):
            needed = "admin"
        if needed not in found.scopes:
            raise HttpError(403, f"this key has the scopes {found.scopes}; {request.method} needs {needed!r}")
        request.user = found.user
        request.key_scopes = found.scopes  # type: ignore[attr-defined]
        return found.user


API_AUTH = [TokenAuth(), SessionAuth()]


def member_project_or_404(request: HttpRequest, slug: str) -> Project:
    """The project if the user is a member in any role; otherwise 404, whether it exists or not."""
    # PostgreSQL refuses to compare with NUL.
    project = None if "\x00" in slug else Project.objects.visible_to(request.user).filter(slug=slug).first()
    if project is None:
        raise HttpError(404, f"no project {slug!r} is visible to you; GET /api/v1/projects lists the visible projects")
    return project


def project_or_404(request: HttpRequest, slug: str) -> Project:
    """The project if the user may read it; 403 for annotators, who judge blind."""
    project = member_project_or_404(request, slug)
    if role_of(request.user, project) == Role.ANNOTATOR:
        raise HttpError(403, f"reading project {slug!r} needs the role viewer or owner; annotators cannot see results")
    return project


def owned_project_or_404(request: HttpRequest, slug: str) -> Project:
    """The project if the user may change it; 403 for other members."""
    project = member_project_or_404(request, slug)
    if owns(request.user, project):
        return project
    raise HttpError(403, f"changing project {slug!r} needs the role owner; ask one of its owners")


def owns(user: Any, project: Project) -> bool:
    """Whether `user` may change the project, as an owner or a superuser."""
    return role_of(user, project) == Role.OWNER
