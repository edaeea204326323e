"""Django application `workers`; connects the refit hint to the signal of the lowest floor."""

from django.apps import AppConfig


class WorkersConfig(AppConfig):
    name = "workers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from workers.broker import hints  # noqa: F401  connects receivers
