"""Base of every list of the admin: read-only pages, actions that call verbs, links to the product's pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import ngettext
from unfold.admin import ModelAdmin

CONFIRMED = "confirmed"


class ReadOnlyAdmin(ModelAdmin):
    """A list and a page for each row; neither adds, changes nor deletes anything.

    `fields` names what a page shows, so that a new column stays hidden until somebody decides.
    """

    title: ClassVar[Any] = ""  # of the list
    empty_value_display = "–"
    list_filter_sheet = False
    list_per_page = 50
    show_full_result_count = False
    list_disable_select_all = True
    compressed_fields = False

    def get_urls(self) -> list[URLPattern]:
        """The list and the page of a row; no address to add, delete or see a history."""
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        wrap = self.admin_site.admin_view
        return [
            path("", wrap(self.changelist_view), name=f"{name}_changelist"),
            path("<path:object_id>/", wrap(self.change_view), name=f"{name}_change"),
        ]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        return super().changelist_view(request, {"title": self.title, **(extra_context or {})})

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        return super().render_change_form(
            request,
            {**context, "list_title": self.title, "row_title": row_title(context.get("original"))},
            *args,
            **kwargs,
        )

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return bool(getattr(request.user, "is_superuser", False))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    # The verbs write the audit log; Django's own log would repeat them.
    def log_addition(self, *args: Any, **kwargs: Any) -> None:
        return None

    def log_change(self, *args: Any, **kwargs: Any) -> None:
        return None

    def run_verb(
        self,
        request: HttpRequest,
        rows: Iterable[Any],
        verb: Callable[[Any], object],
        *,
        refused: type[Exception] | tuple[type[Exception], ...] = (),
    ) -> None:
        """Call `verb` for each row and say how many it changed; what it refused is shown with its reason."""
        changed = unchanged = 0
        for row in rows:
            try:
                done = verb(row)
            except refused as error:
                messages.error(request, str(error))
                continue
            changed += done is not False
            unchanged += done is False
        if changed:
            said = ngettext("%(n)d changed.", "%(n)d changed.", changed) % {"n": changed}
            messages.success(request, said)
        if unchanged:
            said = ngettext("%(n)d was in that state already.", "%(n)d were in that state already.", unchanged) % {
                "n": unchanged
            }
            messages.warning(request, said)

    def row_name(self, row: Any) -> str:
        """The name of a row on the page that asks before an action."""
        return row_title(row)

    def ask(self, request: HttpRequest, rows: QuerySet[Any], question: str) -> HttpResponse | None:
        """A page that asks before something is done that cannot be undone; None once the visitor has agreed."""
        if request.POST.get(CONFIRMED):
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": question,
            "rows": [(row.pk, self.row_name(row)) for row in rows],
            "opts": self.opts,
            "action": request.POST.get("action", ""),
            "checkbox": helpers.ACTION_CHECKBOX_NAME,
            "confirmed": CONFIRMED,
        }
        return render(request, "zelo/admin/confirm.html", context)


class LinkedAdmin(ReadOnlyAdmin):
    """A list whose rows link to a page of the product. `page` returns the address of a row, "" without one."""

    page: ClassVar[Any]

    def view_on_site(self, row: Any) -> str | None:
        return type(self).page(row) or None


def row_title(row: Model | None) -> str:
    """The name of a row; models without one are called by their kind and number."""
    if row is None:
        return ""
    has_name = type(row).__str__ is not Model.__str__
    return str(row) if has_name else f"{row._meta.verbose_name} {row.pk}".capitalize()


def plain_json(name: str, description: Any) -> Callable[[Any, Any], SafeString]:
    """A column that shows a JSON field as text; django-unfold would colour it with styles inside the page."""

    @admin.display(description=description)
    def shown(self: Any, row: Any) -> SafeString:
        text = json.dumps(getattr(row, name), indent=2, ensure_ascii=False, sort_keys=True)
        return format_html('<pre class="z-json">{}</pre>', text)

    return shown


def link(address: str, text: object) -> SafeString:
    """A link, or the plain text without an address."""
    return format_html('<a class="z-link" href="{}">{}</a>', address, text) if address else format_html("{}", text)


def lamp(is_on: bool, on: object, off: object) -> SafeString:
    """A state in words, with a mark of its colour."""
    return format_html('<span class="z-state {}">{}</span>', "z-good" if is_on else "z-bad", on if is_on else off)
