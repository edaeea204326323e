"""Django application `zelo_site`: pages that join several floors, and the commands that run it all."""

from django.apps import AppConfig


class SiteConfig(AppConfig):
    name = "zelo_site"

    def ready(self) -> None:
        # Hints are sent through Celery's current application: make it ours in every process.
        from zelo_site.celery import app

        app.set_default()
