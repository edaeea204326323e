"""Endpoints with their shared state, workers, and the audit log."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from labeling.models import AuditEntry
from workers.endpoints.stored.changes import EndpointRefused, restore_endpoint, retire_endpoint
from workers.models import EndpointDefinition, EndpointState, Worker
from workers.monitoring.heartbeats import alive
from zelo_site.admin.base import LinkedAdmin, ReadOnlyAdmin, lamp, plain_json
from zelo_site.templatetags.audit import ACTION_LABELS, action_label


class EndpointAdmin(LinkedAdmin):
    """Endpoints that superusers have added. The product's page edits and tests them."""

    title = _("Endpoints")
    list_display = ("name", "base_url", "state", "key", "created_at", "changed_at")
    list_filter = (("retired_at", admin.EmptyFieldListFilter), "changed_at")
    search_fields = ("name", "base_url")
    search_help_text = _("Name or address")
    fields = (
        "name",
        "base_url",
        "state",
        "shown_settings",
        "key",
        "shown_secret_names",
        "key_set_at",
        "created_at",
        "changed_at",
    )
    readonly_fields = ("state", "key", "shown_settings", "shown_secret_names")
    shown_settings = plain_json("settings", _("settings"))
    shown_secret_names = plain_json("secret_names", _("names of secrets"))
    actions = ("retire", "restore")

    page = staticmethod(lambda row: reverse("endpoint", args=[row.name]))

    @admin.display(description=_("state"), ordering="retired_at")
    def state(self, row: EndpointDefinition) -> SafeString:
        return lamp(row.retired_at is None, _("in use"), _("retired"))

    @admin.display(description=_("key"))
    def key(self, row: EndpointDefinition) -> Any:
        if row.key_set_at is None:
            return _("none")
        return f"…{row.key_ending}" if row.key_ending else _("set")

    @admin.action(description=_("Retire"))
    def retire(self, request: HttpRequest, rows: QuerySet[EndpointDefinition]) -> HttpResponse | None:
        if page := self.ask(request, rows, str(_("Retire these endpoints? No run can start with them."))):
            return page
        self.run_verb(request, rows, lambda row: retire_endpoint(row.name, by=request.user), refused=EndpointRefused)
        return None

    @admin.action(description=_("Bring back"))
    def restore(self, request: HttpRequest, rows: QuerySet[EndpointDefinition]) -> None:
        self.run_verb(request, rows, lambda row: restore_endpoint(row.name, by=request.user), refused=EndpointRefused)


class EndpointStateAdmin(LinkedAdmin):
    """The state of each endpoint that all workers share: limits, last replies, whether it may be called."""

    title = _("Endpoint states")
    list_display = (
        "name",
        "model",
        "state",
        "concurrency",
        "calls",
        "rate_limited",
        "outages",
        "last_answer_at",
        "seen_at",
    )
    list_filter = ("mode", "name", "seen_at")
    search_fields = ("name", "model", "base_url", "last_error")
    search_help_text = _("Name, model, address or error")
    fields = (
        "name", "base_url", "model", "state", "until", "concurrency", "ceiling", "rpm", "tpm", "calls", "rate_limited",
        "outages", "failures", "down_since", "last_error", "last_error_at", "last_answer_at", "shown_learned", "seen_at",
    )  # fmt: skip
    readonly_fields = ("state", "shown_learned")
    shown_learned = plain_json("learned", _("learned"))

    page = staticmethod(lambda row: reverse("endpoints"))

    @admin.display(description=_("state"), ordering="mode")
    def state(self, row: EndpointState) -> SafeString:
        return lamp(row.mode == EndpointState.Mode.CLOSED, row.get_mode_display(), row.get_mode_display())


class WorkerAdmin(LinkedAdmin):
    """Heartbeats of workers."""

    title = _("Workers")
    list_display = ("name", "state", "queues", "host", "pid", "gpu_count", "started_at", "seen_at")
    list_filter = ("queues", "host")
    search_fields = ("name", "host", "queues")
    search_help_text = _("Name, host or queue")
    ordering = ("name",)
    fields = ("name", "state", "queues", "host", "pid", "shown_gpus", "started_at", "seen_at")
    readonly_fields = ("state", "shown_gpus")
    shown_gpus = plain_json("gpus", _("GPUs"))

    page = staticmethod(lambda row: reverse("jobs"))

    @admin.display(description=_("state"))
    def state(self, row: Worker) -> SafeString:
        return lamp(alive().filter(pk=row.pk).exists(), _("alive"), _("no heartbeat"))

    @admin.display(description=_("GPUs"))
    def gpu_count(self, row: Worker) -> int:
        return len(row.gpus)


class ActionFilter(admin.SimpleListFilter):
    title = _("action")
    parameter_name = "action"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(action, ACTION_LABELS[action]) for action in sorted(ACTION_LABELS)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(action=self.value()) if self.value() else queryset


class AuditAdmin(ReadOnlyAdmin):
    """The audit log; a trigger of the database refuses changes."""

    title = _("Audit log")
    list_display = ("at", "done", "subject", "project_name", "actor_shown")
    list_display_links = ("at",)
    list_filter = (ActionFilter, "at")
    search_fields = ("subject", "project_name", "actor_name", "action")
    search_help_text = _("Subject, project, user or action")
    ordering = ("-id",)
    fields = ("at", "done", "code", "subject", "project_name", "actor_shown", "shown_details")
    readonly_fields = ("done", "code", "actor_shown", "shown_details")
    shown_details = plain_json("details", _("details"))

    @admin.display(description=_("action"), ordering="action")
    def done(self, row: AuditEntry) -> str:
        return action_label(row.action)

    @admin.display(description=_("name in the API"))
    def code(self, row: AuditEntry) -> str:
        return row.action

    @admin.display(description=_("by"), ordering="actor_name")
    def actor_shown(self, row: AuditEntry) -> Any:
        return row.actor_name or _("the server")
