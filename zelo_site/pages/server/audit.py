"""The audit log: of one project for its owners, of the whole server for superusers."""

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
    """Show a project's entries, newest first, to its owners."""
    project = owned_project(request, slug)
    entries = AuditEntry.objects.visible_to(request.user).filter(project=project)
    return _render(request, entries, project)


def server_audit(request: HttpRequest) -> HttpResponse:
    """Show all entries, including those without a project, to superusers."""
    if not getattr(request.user, "is_superuser", False):
        raise PermissionDenied(
            _("only superusers can see the whole audit log; open the audit log of your project instead")
        )
    return _render(request, AuditEntry.objects.visible_to(request.user), None)


def _render(request: HttpRequest, entries: QuerySet[AuditEntry], project: Project | None) -> HttpResponse:
    page = Paginator(entries.select_related("project").order_by("-id"), PAGE_SIZE).get_page(request.GET.get("page"))
    here = "project" if project else "jobs"
    return render(request, "zelo/server/audit.html", {"project": project, "page": page, "here": here})
