"""Django application `zelo_site`: pages that join several floors, and the commands that run it all."""

from django.apps import AppConfig


class SiteConfig(AppConfig):
    name = "zelo_site"
