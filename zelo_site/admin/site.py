"""The admin site: its addresses, its navigation, and who may enter.

It has no log-in page and no password page of its own: visitors sign in as on every page. Addresses are listed one by one,
because Django's admin would add some that edit what verbs own. Styles and scripts are files, so the site's Content-Security-
Policy holds; the templates in `templates/unfold` and `templates/admin` replace those of django-unfold that need Alpine.js,
which evaluates texts as code. Rejected: an exception `unsafe-eval` for this part of the site.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver, include, path, reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe
from unfold.sites import UnfoldAdminSite

from labeling.models import AccessLink, ApiToken, AuditEntry, Membership
from workers.models import EndpointDefinition, EndpointState, Job, JudgingTask, Run, Worker
from zelo_site.admin.access import AccessLinkAdmin, ApiTokenAdmin, MembershipAdmin
from zelo_site.admin.dashboard import dashboard, installed_plugins, storage_use
from zelo_site.admin.servers import AuditAdmin, EndpointAdmin, EndpointStateAdmin, WorkerAdmin
from zelo_site.admin.users import UserAdmin
from zelo_site.admin.work import DeadLetterAdmin, JobAdmin, RunAdmin

# Groups of the navigation: (title, [(title, address's name)]).
NAVIGATION: list[tuple[Promise, list[tuple[Promise, str]]]] = [
    (gettext_lazy("Server"), [
        (gettext_lazy("Dashboard"), "index"),
        (gettext_lazy("Storage"), "storage"),
        (gettext_lazy("Plugins"), "plugins"),
        (gettext_lazy("Audit log"), "labeling_auditentry_changelist"),
    ]),
    (gettext_lazy("Access"), [
        (gettext_lazy("Users"), "auth_user_changelist"),
        (gettext_lazy("Memberships"), "labeling_membership_changelist"),
        (gettext_lazy("Invitations and links"), "labeling_accesslink_changelist"),
        (gettext_lazy("API keys"), "labeling_apitoken_changelist"),
    ]),
    (gettext_lazy("Work"), [
        (gettext_lazy("Runs"), "workers_run_changelist"),
        (gettext_lazy("Jobs"), "workers_job_changelist"),
        (gettext_lazy("Dead letters"), "workers_judgingtask_changelist"),
        (gettext_lazy("Workers"), "workers_worker_changelist"),
    ]),
    (gettext_lazy("Endpoints"), [
        (gettext_lazy("Endpoints"), "workers_endpointdefinition_changelist"),
        (gettext_lazy("Endpoint states"), "workers_endpointstate_changelist"),
    ]),
]  # fmt: skip


class ZeloAdminSite(UnfoldAdminSite):
    """Django's admin with the addresses that are needed, for superusers."""

    final_catch_all_view = False

    def get_urls(self) -> list[URLPattern | URLResolver]:
        wrap = self.admin_view
        found: list[URLPattern | URLResolver] = [
            path("", wrap(require_safe(self.index)), name="index"),
            path("storage/", wrap(require_safe(self.storage_page)), name="storage"),
            path("plugins/", wrap(require_safe(self.plugins_page)), name="plugins"),
            path("jsi18n/", wrap(self.i18n_javascript, cacheable=True), name="jsi18n"),
        ]
        for model, model_admin in self._registry.items():
            prefix = f"{model._meta.app_label}/{model._meta.model_name}/"
            found.append(path(prefix, include(model_admin.urls)))
        return found

    def has_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.is_active and getattr(request.user, "is_superuser", False))

    def admin_view(self, view: Callable[..., Any], cacheable: bool = False) -> Callable[..., Any]:
        """Refuse others than superusers; the middleware has sent strangers to the sign-in page before."""
        inner = super().admin_view(view, cacheable)

        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            if not self.has_permission(request):
                raise PermissionDenied(_("only superusers can open the admin; ask the server administrator"))
            return inner(request, *args, **kwargs)

        return guarded

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        return []  # the navigation is NAVIGATION

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        groups = []
        for title, items in NAVIGATION:
            lines = [(name, reverse(f"admin:{address}")) for name, address in items]
            groups.append((title, [(name, address, _is_here(request, address)) for name, address in lines]))
        return {**super().each_context(request), "groups": groups, "site_title": "zelo"}

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        return self._page(request, "dashboard.html", _("Dashboard"), dashboard(request))

    def storage_page(self, request: HttpRequest) -> HttpResponse:
        """Show what each project stores."""
        return self._page(request, "storage.html", _("Storage by project"), storage_use())

    def plugins_page(self, request: HttpRequest) -> HttpResponse:
        """Show the modules and plugins."""
        return self._page(request, "plugins.html", _("Plugins"), installed_plugins())

    def _page(self, request: HttpRequest, template: str, title: str, context: dict[str, Any]) -> TemplateResponse:
        request.current_app = self.name
        return TemplateResponse(
            request, f"zelo/admin/{template}", {**self.each_context(request), "title": title, **context}
        )


def _is_here(request: HttpRequest, address: str) -> bool:
    if address == reverse("admin:index"):
        return request.path == address
    return request.path.startswith(address)


site = ZeloAdminSite(name="admin")
for model, model_admin in (
    (User, UserAdmin),
    (Membership, MembershipAdmin),
    (AccessLink, AccessLinkAdmin),
    (ApiToken, ApiTokenAdmin),
    (EndpointDefinition, EndpointAdmin),
    (EndpointState, EndpointStateAdmin),
    (Worker, WorkerAdmin),
    (Run, RunAdmin),
    (Job, JobAdmin),
    (JudgingTask, DeadLetterAdmin),
    (AuditEntry, AuditAdmin),
):
    site.register(model, model_admin)
