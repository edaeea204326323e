"""The plugin centre: modules of installed packages, broken ones with their traceback, and every plugin by kind. For staff."""

from __future__ import annotations

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from labeling.plugins import KINDS, load_plugins, registered

LAST_LINES = 12


def plugins_page(request: HttpRequest) -> HttpResponse:
    """Show what is installed, enabled and broken."""
    if not getattr(request.user, "is_staff", False):
        raise PermissionDenied(_("only staff can see the plugins page; ask the server administrator"))
    modules = [
        (module, "\n".join(module.detail.strip().splitlines()[-LAST_LINES:]))
        for module in load_plugins(enabled=settings.ZELO_PLUGINS)
    ]
    plugins = [plugin for kind in KINDS for plugin in registered(kind).values()]
    broken = sum(bool(module.error) for module, __ in modules)
    context = {"modules": modules, "plugins": plugins, "broken": broken, "here": "doctor"}
    return render(request, "zelo/server/plugins.html", context)
