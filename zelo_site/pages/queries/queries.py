"""The list of a project's queries: figures to sort and filter by, saved views, and a selection for `bulk`."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Count, Max
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from workers.models import QueryFigures
from workers.monitoring.query_figures import refresh_some
from zelo_site.pages.forms import text_of, whole_number
from zelo_site.pages.importing.candidates import filling_part
from zelo_site.pages.queries.views import (
    COLUMNS,
    FILTERS,
    LONGEST_NAME,
    PRESETS,
    View,
    forget_view,
    queries_of,
    save_view,
    saved_views,
    with_sizes,
)
from zelo_site.pages.scope import may_change, visible_project

PAGE_SIZE = 50


def query_list(request: HttpRequest, slug: str) -> HttpResponse:
    """List 50 queries per page; the address holds the view, see `zelo_site.pages.queries.views.View`."""
    project = visible_project(request, slug)
    remaining = refresh_some(project)
    view = View.of(request.GET)
    queries = view.applied(queries_of(request, project))
    page = Paginator(with_sizes(queries), PAGE_SIZE).get_page(request.GET.get("page"))
    known = QueryFigures.objects.filter(query__project=project).aggregate(
        ndcg=Count("ndcg"),
        gain=Count("gain"),
        spend=Max("spend_micros"),
        measured_at=Max("measured_at"),
    )
    context = {
        "project": project,
        "page": page,
        "view": view,
        "filters": FILTERS,
        "columns": _headings(view, known),
        "bounds": _bounds(view),
        "presets": [(label, address, address == view.address) for label, address in PRESETS],
        "saved": [(each, each.address == view.address) for each in saved_views(request.user, project)],
        "known": known,
        "remaining": remaining,
        "may_change": may_change(request, project),
        "filling": filling_part(request, project) if any(not getattr(query, "size", 0) for query in page) else "",
        "here": "queries",
    }
    return render(request, "zelo/queries/queries.html", context)


def _headings(view: View, known: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the columns that some query has a value for, each with the address that a click on its heading opens."""
    empty = {name for name in ("ndcg", "gain", "spend") if not known[name]}
    found = []
    for column in COLUMNS.values():
        if column.name in empty:
            continue
        sorted_now = view.sort.removeprefix("-") == column.name
        other = column.name if view.sort.startswith("-") else f"-{column.name}"
        order = ("descending" if view.sort.startswith("-") else "ascending") if sorted_now else ""
        rest = view.without("sort")
        target = f"{rest}{'&' if rest else ''}sort={other if sorted_now else column.first_sort}"
        found.append({"column": column, "order": order, "address": target})
    return found


def _bounds(view: View) -> list[dict[str, Any]]:
    return [
        {"column": each, "min": view.bounds.get((each.name, "min")), "max": view.bounds.get((each.name, "max"))}
        for each in COLUMNS.values()
    ]


@require_POST
def change_views(request: HttpRequest, slug: str) -> HttpResponse:
    """Save the submitted view under `name` for this user, or forget the view `forget`."""
    project = visible_project(request, slug)
    view = View.of(request.POST)
    if (gone := whole_number(request.POST, "forget")) is not None:
        forget_view(request.user, project, gone)
    elif name := text_of(request.POST, "name", LONGEST_NAME):
        if save_view(request.user, project, name, view):
            messages.success(request, _("View “%(name)s” saved.") % {"name": name})
        else:
            messages.warning(request, _("You have 20 saved views. Forget one, then save this one."))
    else:
        messages.warning(request, _("The view has no name. Type one, then save."))
    return redirect(f"{reverse('queries', args=[project.slug])}?{view.address}")
