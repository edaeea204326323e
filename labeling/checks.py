"""System checks: `manage.py check` reports invalid settings and broken plugins with a remedy."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register

from labeling.plugins import load_plugins


@register()
def check_plugins(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Warn of plugins that fail to import; the page of the server shows them too."""
    return [
        Warning(
            f"plugin {row.name!r} ({row.module}) did not load: {row.error}",
            id="zelo.W001",
            hint="fix or uninstall the package, or remove it from ZELO_PLUGINS",
        )
        for row in load_plugins(enabled=settings.ZELO_PLUGINS)
        if row.error
    ]


@register()
def check_secret_key(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    if len(settings.SECRET_KEY) >= 32:
        return []
    return [
        Error(
            "the signing key is missing or shorter than 32 characters",
            id="zelo.E001",
            hint="unset ZELO_SECRET_KEY to generate a key in ZELO_HOME, or set it to a long random string",
        )
    ]


@register()
def check_environment(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Return an error for each invalid environment variable; settings.py uses the default instead."""
    return [Error(problem, id="zelo.E002", hint=remedy) for problem, remedy in settings.ZELO_WRONG_SETTINGS]
