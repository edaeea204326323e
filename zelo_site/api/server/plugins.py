"""REST of plugins: the modules that installed packages bring, and the plugins of each with the schema of their options."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from ninja import Router, Schema

from labeling.plugins import KINDS, Plugin, load_plugins, registered

router = Router(tags=["plugins"])
LAST_LINES = 12


class PluginOut(Schema):
    kind: str
    name: str
    label: str
    options: dict[str, Any]


class PluginModuleOut(Schema):
    """A module of a package with its plugins. `error` is empty unless it is broken; `detail`, the last lines of its
    traceback, is for staff.
    """

    name: str
    module: str
    package: str
    version: str
    enabled: bool
    error: str
    detail: str
    plugins: list[PluginOut]


@router.get("/plugins", response=list[PluginModuleOut])
def list_plugins(request: HttpRequest) -> Any:
    """The installed plugin modules by package, enabled or broken, with every plugin's options."""
    shows_detail = getattr(request.user, "is_staff", False)
    left = [plugin for kind in KINDS for plugin in registered(kind).values()]
    rows = []
    for module in load_plugins(enabled=settings.ZELO_PLUGINS):
        own = [plugin for plugin in left if _is_in(plugin, module.module)]
        left = [plugin for plugin in left if plugin not in own]
        detail = "\n".join(module.detail.strip().splitlines()[-LAST_LINES:]) if shows_detail else ""
        rows.append({**asdict(module), "detail": detail, "plugins": [_shown(plugin) for plugin in own]})
    unnamed = {"package": "", "version": "", "enabled": True, "error": "", "detail": ""}
    for name in sorted({plugin.__module__ for plugin in left}):
        shown = [_shown(plugin) for plugin in left if plugin.__module__ == name]
        rows.append({"name": name, "module": name, **unnamed, "plugins": shown})
    return rows


def _is_in(plugin: type[Plugin], entry: str) -> bool:
    """Whether a plugin's class stands in the module of an entry point, "package.module" or "package.module:attribute"."""
    module = entry.partition(":")[0]
    return plugin.__module__ == module or plugin.__module__.startswith(f"{module}.")


def _shown(plugin: type[Plugin]) -> dict[str, Any]:
    return {
        "kind": plugin.kind,
        "name": plugin.name,
        "label": str(plugin.label),
        "options": plugin.Options.model_json_schema(),
    }
