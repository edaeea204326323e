"""Django application `workers`; connects the refit hint to the signal of the lowest floor, the stored endpoints, the
published students that judge, and the files of recorded answers."""

from django.apps import AppConfig


class WorkersConfig(AppConfig):
    name = "workers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from workers.broker import hints  # noqa: F401  connects receivers
        from workers.endpoints.registry import read_stored_with
        from workers.endpoints.stored.rows import stored_endpoints
        from workers.jobs.recorded_judges import find_recordings
        from workers.jobs.student_judges import find_students

        read_stored_with(stored_endpoints)
        find_students()
        find_recordings()
