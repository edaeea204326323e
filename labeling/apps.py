"""Django application `labeling`; loads the plugins when the process starts."""

from django.apps import AppConfig
from django.conf import settings


class LabelingConfig(AppConfig):
    name = "labeling"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from labeling import checks  # noqa: F401  registers the system checks
        from labeling.access import sign_ins  # noqa: F401  connects the receiver
        from labeling.plugins import load_plugins

        load_plugins(enabled=settings.ZELO_PLUGINS)
