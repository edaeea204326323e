"""`manage.py restart`: the processes of a running server start again, one after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from zelo_site.processes.restarting import RestartFailed, order_restart


class Command(BaseCommand):
    help = "Restart the web server and workers of a running server one after another; workers finish their tasks first."
    requires_migrations_checks = False

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            order_restart(Path(settings.ZELO_HOME), migrate=False)
        except RestartFailed as error:
            raise CommandError(str(error)) from error
        self.stdout.write("restarted all processes")
