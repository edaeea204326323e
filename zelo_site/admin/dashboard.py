"""The admin's own pages: the dashboard, storage by project, plugins."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import django
from django.conf import settings
from django.db import connection
from django.http import HttpRequest
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from labeling.plugins import load_plugins
from scoring.storage.files import StorageUnusable, storage
from workers.models import JudgingTask
from workers.monitoring.heartbeats import alive
from workers.monitoring.queue_depth import Backlog, read_backlog
from workers.monitoring.result_cache import costly
from workers.monitoring.table_sizes import table_sizes
from zelo_site.admin.spend import DAYS, recent_spend, stored_projects
from zelo_site.doctor import Finding, Health, examine
from zelo_site.pages.server.plugins import plugin_rows

PACKAGES = ("zelo", "Django", "celery", "psycopg", "torch", "transformers", "sentence-transformers", "django-unfold")


@dataclass(frozen=True, slots=True)
class QueueLine:
    """A queue with the number of its live workers."""

    backlog: Backlog
    workers: int

    @property
    def is_stuck(self) -> bool:
        return self.backlog.has_work and not self.workers


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk that the server writes to; sizes in bytes."""

    name: str
    place: str
    used: int
    total: int

    @property
    def free(self) -> int:
        return self.total - self.used

    @property
    def share(self) -> float:
        return self.used / self.total if self.total else 0.0


def dashboard(request: HttpRequest) -> dict[str, Any]:
    """The context of the first page."""
    findings: list[Finding] = costly(f"zelo:admin:doctor:{get_language()}", examine)
    served = [queue for worker in alive() for queue in worker.queues.split(",")]
    return {
        "bad": [each for each in findings if each.health is Health.BAD],
        "notes": [each for each in findings if each.health is Health.NOTE],
        "good": sum(each.health is Health.GOOD for each in findings),
        "queues": [QueueLine(each, served.count(each.queue)) for each in read_backlog(request.user)],
        "dead": JudgingTask.objects.filter(
            state=JudgingTask.State.DEAD, run__project__archived_at__isnull=True
        ).count(),
        "spend": recent_spend(),
        "days": DAYS,
        "disks": disks(),
        "database_bytes": database_bytes(),
        "sizes": [each for each in table_sizes() if each.bytes],
        "versions": versions(),
    }


def disks() -> list[Disk]:
    """The disk of ZELO_HOME, and that of the storage where it is a local folder on another disk."""
    places = {_("Home"): settings.ZELO_HOME}
    try:
        stored = storage().local_folder("snapshots")
    except StorageUnusable:  # the doctor's finding says why
        stored = None
    if stored is not None:
        places[_("Storage")] = next((each for each in stored.parents if each.exists()), settings.ZELO_HOME)
    found: dict[int, Disk] = {}
    for name, place in places.items():
        usage = shutil.disk_usage(place)
        found.setdefault(place.stat().st_dev, Disk(name, str(place), usage.total - usage.free, usage.total))
    return list(found.values())


def database_bytes() -> int:
    """The size of the database in bytes."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_database_size(current_database())")
        return int(cursor.fetchone()[0])


def versions() -> list[tuple[str, str]]:
    """Names and versions of what runs here; packages that are not installed are left out."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW server_version")
        postgresql = str(cursor.fetchone()[0])
    found = [("Python", platform.python_version()), ("PostgreSQL", postgresql), ("Django", django.get_version())]
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return sorted(dict(found).items(), key=lambda each: (each[0] != "zelo", each[0].lower()))


def storage_use() -> dict[str, Any]:
    """The context of the storage page."""
    rows = stored_projects()
    return {"rows": rows, "database_bytes": database_bytes(), "stored_bytes": sum(each.total_bytes for each in rows)}


def installed_plugins() -> dict[str, Any]:
    """The context of the plugins page."""
    modules = load_plugins(enabled=settings.ZELO_PLUGINS)
    return {
        "modules": modules,
        "plugins": plugin_rows(),
    }
