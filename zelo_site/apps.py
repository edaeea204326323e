"""Django application `zelo_site`: pages that join several floors, and the commands that run it all."""

import os
from pathlib import Path

from django.apps import AppConfig
from django.conf import settings


class SiteConfig(AppConfig):
    name = "zelo_site"

    def ready(self) -> None:
        # Hints are sent through Celery's current application: make it ours in every process.
        from zelo_site.celery import app

        app.set_default()
        # The floors below read no settings of ours; processes that we start inherit it.
        os.environ.setdefault("ZELO_CACHE", str(Path(settings.ZELO_HOME) / "cache"))
