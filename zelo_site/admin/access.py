"""Memberships, one-time links and API keys: who may reach which project, and by which secret."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from labeling.access.api_keys import revoke_token
from labeling.access.members import MembershipRefused, remove_member, revoke_invitation, set_role
from labeling.models import AccessLink, ApiToken, Membership, Project, Role
from zelo_site.admin.base import LinkedAdmin, ReadOnlyAdmin, lamp


def _people_page(project: Project | None) -> str:
    return reverse("people", args=[project.slug]) if project is not None and project.archived_at is None else ""


class MembershipAdmin(LinkedAdmin):
    """Memberships of projects; roles change by `labeling.access.members`."""

    title = _("Memberships")
    list_display = ("project", "user", "role", "quota")
    list_display_links = ("project",)
    list_filter = ("role", "project")
    search_fields = ("project__name", "project__slug", "user__username", "user__first_name", "user__email")
    search_help_text = _("Project or user")
    list_select_related = ("project", "user")
    ordering = ("project__name", "user__username")
    fields = ("project", "user", "role", "quota")
    actions = ("make_owner", "make_annotator", "make_viewer", "remove")

    page = staticmethod(lambda row: _people_page(row.project))

    @admin.action(description=_("Make owner"))
    def make_owner(self, request: HttpRequest, rows: QuerySet[Membership]) -> None:
        self._set(request, rows, Role.OWNER)

    @admin.action(description=_("Make annotator"))
    def make_annotator(self, request: HttpRequest, rows: QuerySet[Membership]) -> None:
        self._set(request, rows, Role.ANNOTATOR)

    @admin.action(description=_("Make viewer"))
    def make_viewer(self, request: HttpRequest, rows: QuerySet[Membership]) -> None:
        self._set(request, rows, Role.VIEWER)

    def _set(self, request: HttpRequest, rows: QuerySet[Membership], role: Role) -> None:
        def change(row: Membership) -> bool:
            set_role(row.project, row.user, role, by=request.user)
            return row.role != role

        self.run_verb(request, rows, change, refused=MembershipRefused)

    @admin.action(description=_("Remove from the project"))
    def remove(self, request: HttpRequest, rows: QuerySet[Membership]) -> HttpResponse | None:
        if page := self.ask(request, rows, str(_("Remove these members? Their answers stay."))):
            return page

        def take_out(row: Membership) -> None:
            remove_member(row.project, row.user, by=request.user)

        self.run_verb(request, rows, take_out, refused=MembershipRefused)
        return None


class LinkState(admin.SimpleListFilter):
    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("open", _("open")), ("used", _("used")), ("expired", _("expired"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        now = timezone.now()
        if self.value() == "open":
            return queryset.filter(used_at__isnull=True, expires_at__gt=now)
        if self.value() == "used":
            return queryset.filter(used_at__isnull=False)
        return queryset.filter(used_at__isnull=True, expires_at__lte=now) if self.value() == "expired" else queryset


class AccessLinkAdmin(LinkedAdmin):
    """Invitations and sign-in links; their tokens are not stored."""

    title = _("Invitations and links")
    list_display = ("what", "project", "role", "user", "state", "created_at", "expires_at", "used_at")
    list_filter = (LinkState, "role", "project")
    search_fields = ("project__name", "user__username", "user__email")
    search_help_text = _("Project or user")
    list_select_related = ("project", "user")
    ordering = ("-id",)
    fields = ("what", "project", "role", "user", "state", "created_at", "expires_at", "used_at")
    readonly_fields = ("what", "state")
    actions = ("revoke",)

    page = staticmethod(lambda row: _people_page(row.project))

    @admin.display(description=_("link"))
    def what(self, row: AccessLink) -> Any:
        return _("sign-in link") if row.user_id else _("invitation")

    @admin.display(description=_("state"))
    def state(self, row: AccessLink) -> SafeString:
        if row.used_at:
            return lamp(False, "", _("used"))
        return lamp(row.expires_at > timezone.now(), _("open"), _("expired"))

    @admin.action(description=_("Revoke invitations"))
    def revoke(self, request: HttpRequest, rows: QuerySet[AccessLink]) -> HttpResponse | None:
        if page := self.ask(request, rows, str(_("Revoke these invitations? They stop working at once."))):
            return page

        def end(row: AccessLink) -> bool:
            return row.project is not None and revoke_invitation(row.project, row.pk, by=request.user)

        if rows.filter(user__isnull=False).exists():
            messages.warning(request, _("A sign-in link ends when its user is reset (Users, Reset)."))
        self.run_verb(request, rows.filter(user__isnull=True), end)
        return None


class ApiTokenAdmin(ReadOnlyAdmin):
    """Keys of programs, with their last use and expiry; the keys themselves are not stored."""

    title = _("API keys")
    list_display = ("name", "user", "permissions", "created_at", "used_at", "expires_at")
    list_filter = ("created_at", "used_at", "expires_at")
    search_fields = ("name", "user__username", "user__email")
    search_help_text = _("Key or user")
    list_select_related = ("user",)
    ordering = ("-id",)
    fields = ("name", "user", "permissions", "created_at", "used_at", "expires_at")
    readonly_fields = ("permissions",)
    actions = ("revoke",)

    @admin.display(description=_("permissions"))
    def permissions(self, row: ApiToken) -> str:
        return ", ".join(row.scopes)

    @admin.action(description=_("Revoke keys"))
    def revoke(self, request: HttpRequest, rows: QuerySet[ApiToken]) -> HttpResponse | None:
        if page := self.ask(request, rows, str(_("Revoke these keys? Programs that use them are refused at once."))):
            return page
        self.run_verb(request, rows, lambda row: revoke_token(row.user, row.pk, by=request.user))
        return None
