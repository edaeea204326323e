"""Django application `scoring`; hears from the lowest floor when a project chose another rater."""

from django.apps import AppConfig


class ScoringConfig(AppConfig):
    name = "scoring"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from scoring import project_fits  # noqa: F401  connects receivers
