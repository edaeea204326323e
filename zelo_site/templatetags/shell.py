"""Template tags of the frame: the navigation of the open project, the breadcrumb, the page's documentation."""

from __future__ import annotations

from typing import Any

from django import template
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from zelo_site.pages.shell.navigation import groups_for, help_of, shown_name

register = template.Library()

# Drawn here, on a grid of 16 units, as lines of the text's colour.
ICONS = {
    "menu": "M2 4h12M2 8h12M2 12h12",
    "tick": "M3 8.500l3.200 3.200L13 4.800",
    "chevron": "M4 6l4 4 4-4",
    "search": "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9zM10.5 10.5L14 14",
    "help": "M8 1.5a6.5 6.5 0 1 0 0 13 6.5 6.5 0 0 0 0-13zM6 6.3c.2-2.6 4-2.4 4 0 0 1.5-2 1.6-2 3.2M8 11.6v.2",
    "data": "M3 4c0-1 2.2-2 5-2s5 1 5 2-2.2 2-5 2-5-1-5-2zM3 4v8c0 1 2.2 2 5 2s5-1 5-2V4M3 8c0 1 2.2 2 5 2s5-1 5-2",
    "judging": "M8 2v12M4 14h8M3 5h10M3 5l-2 4.500a2.200 2.200 0 0 0 4 0zM13 5l-2 4.500a2.200 2.200 0 0 0 4 0z",
    "people": "M6 8a2.500 2.500 0 1 0 0-5 2.500 2.500 0 0 0 0 5zM1.500 13.500c.3-5 8.700-5 9 0M11 8.500c2 0 3.300 1.500 3.500 4M10.500 3.200a2.300 2.300 0 0 1 0 4.600",
    "model": "M3 5.500L8 3l5 2.500v5L8 13l-5-2.500zM3 5.500L8 8l5-2.500M8 8v5",
}


def _url_name(context: dict[str, Any]) -> str:
    match = getattr(context.get("request"), "resolver_match", None)
    return str(match.url_name) if match is not None and not match.namespace else ""


@register.simple_tag
def icon(name: str) -> SafeString:
    """Return a small drawing; it says nothing that the text beside it does not."""
    return format_html('<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="{}"/></svg>', ICONS[name])


@register.simple_tag(takes_context=True)
def project_groups(context: dict[str, Any], role: str) -> list[dict[str, Any]]:
    """Return the groups that this role sees, each with its links and whether it holds the open page."""
    project, open_name = context["project"], shown_name(_url_name(context))
    found = []
    for group in groups_for(role):
        pages = [(page.label, reverse(page.name, args=[project.slug]), page.name == open_name) for page in group.pages]
        found.append(
            {"key": group.key, "label": group.label, "pages": pages, "is_open": any(each[2] for each in pages)}
        )
    return found


@register.simple_tag(takes_context=True)
def crumbs(context: dict[str, Any], role: str) -> list[tuple[Any, str]] | None:
    """Return the way to the open page of a project as (label, address), below the project itself; None for no breadcrumb.

    The address of the open page is empty. A page that opens below another, depending on what it shows, sets `below`.
    """
    url_name, project = _url_name(context), context.get("project")
    open_name = context.get("below") or shown_name(url_name)
    if not project or url_name == "project":
        return None
    if open_name == "project":
        return []
    for group in groups_for(role):
        for page in group.pages:
            if page.name == open_name:
                address = reverse(page.name, args=[project.slug])
                return [(group.label, ""), (page.label, "" if url_name == open_name else address)]
    return None


@register.simple_tag(takes_context=True)
def help_address(context: dict[str, Any]) -> str:
    """Return the address of the open page's documentation."""
    doc, anchor = help_of(_url_name(context))
    return reverse("doc", args=[doc]) + (f"#{anchor}" if anchor else "")
