"""Django application `zelo_site`: pages that combine several apps, and the management commands."""

import os
from pathlib import Path

from django.apps import AppConfig
from django.conf import settings


class SiteConfig(AppConfig):
    name = "zelo_site"

    def ready(self) -> None:
        # Hints use Celery's current application, so set it in every process.
        from zelo_site.celery import app

        app.set_default()
        from zelo_site.operations import silent_connections  # noqa: F401  connects its receiver
        from zelo_site.security import sessions  # noqa: F401  connects its receiver

        # Lower layers do not read these settings; child processes inherit the environment.
        os.environ.setdefault("ZELO_CACHE", str(Path(settings.ZELO_HOME) / "cache"))
