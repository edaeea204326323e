"""What was done to the work and the money, by whom: of one project for its owners, of all for superusers."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from labeling.models import AuditEntry, Project
from zelo_site.pages.scope import owned_project

PAGE_SIZE = 50


def project_audit(request: HttpRequest, slug: str) -> HttpResponse:
    """The entries of one project, newest first; for its owners."""
    project = owned_project(request, slug)
    entries = AuditEntry.objects.visible_to(request.user).filter(project=project)
    return _render(request, entries, project)


def server_audit(request: HttpRequest) -> HttpResponse:
    """The entries of all projects, and those that belong to none; for superusers."""
    if not getattr(request.user, "is_superuser", False):
        raise PermissionDenied(_("the whole audit log is for superusers; a project's owners see that of the project"))
    return _render(request, AuditEntry.objects.visible_to(request.user), None)


def _render(request: HttpRequest, entries: QuerySet[AuditEntry], project: Project | None) -> HttpResponse:
    page = Paginator(entries.select_related("project").order_by("-id"), PAGE_SIZE).get_page(request.GET.get("page"))
    here = "project" if project else "jobs"
    return render(request, "zelo/audit.html", {"project": project, "page": page, "here": here})
