"""The plugin centre: modules of installed packages, broken ones with their traceback, and every plugin by kind. For staff."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from labeling.plugins import KINDS, load_plugins, registered
from labeling.wording import translated

LAST_LINES = 12


@dataclass(frozen=True, slots=True)
class PluginRow:
    """A plugin as a page shows it; templates would call the class itself."""

    kind: str
    name: str
    label: str
    module: str


def plugin_rows() -> list[PluginRow]:
    """Every registered plugin, by kind."""
    found = (plugin for kind in KINDS for plugin in registered(kind).values())
    return [PluginRow(each.kind, each.name, translated(each.label), each.__module__) for each in found]


def plugins_page(request: HttpRequest) -> HttpResponse:
    """Show what is installed, enabled and broken, the broken modules first."""
    if not getattr(request.user, "is_staff", False):
        raise PermissionDenied(_("only staff can see the plugins page; ask the server administrator"))
    modules = [
        (module, "\n".join(module.detail.strip().splitlines()[-LAST_LINES:]))
        for module in sorted(load_plugins(enabled=settings.ZELO_PLUGINS), key=lambda module: not module.error)
    ]
    plugins = plugin_rows()
    broken = sum(bool(module.error) for module, __ in modules)
    context = {"modules": modules, "plugins": plugins, "broken": broken, "here": "doctor"}
    return render(request, "zelo/server/plugins.html", context)
