"""Django application `scoring`; receives the signal that a project chose a different rater."""

from django.apps import AppConfig


class ScoringConfig(AppConfig):
    name = "scoring"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from scoring import project_fits  # noqa: F401  connects receivers
