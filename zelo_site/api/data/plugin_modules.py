"""REST of the plugin centre: the modules that installed packages bring, for staff."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from ninja import Router, Schema
from ninja.errors import HttpError

from labeling.plugins import load_plugins

router = Router(tags=["plugins"])


class PluginModuleOut(Schema):
    """An entry point of a package; `error` and `detail`, its traceback, are empty unless it is broken."""

    name: str
    module: str
    package: str
    version: str
    enabled: bool
    error: str
    detail: str


@router.get("/plugin-modules", response=list[PluginModuleOut])
def list_plugin_modules(request: HttpRequest) -> Any:
    """Which plugin modules are installed, enabled and broken, and from which package. For staff."""
    if not getattr(request.user, "is_staff", False):
        raise HttpError(403, "only staff can see the plugin modules; ask the server administrator")
    return load_plugins(enabled=settings.ZELO_PLUGINS)
