"""Django application `workers`; connects the refit hint to the signal of the lowest floor, the stored endpoints, and the
published students that judge."""

from django.apps import AppConfig


class WorkersConfig(AppConfig):
    name = "workers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from workers.broker import hints  # noqa: F401  connects receivers
        from workers.endpoints.registry import read_stored_with
        from workers.endpoints.stored.rows import stored_endpoints
        from workers.jobs.student_judges import find_students

        read_stored_with(stored_endpoints)
        find_students()
