"""`manage.py upgrade`: take over an installation with the program that is installed now."""

from __future__ import annotations

import contextlib
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.utils import timezone

from zelo_site.operations.backup import BackupFailed
from zelo_site.operations.second_home import check_in_second_home
from zelo_site.operations.upgrade import UpgradeRefused, default_backup, upgrade
from zelo_site.processes.embedded import FolderUnusable, ServiceFailed
from zelo_site.processes.restarting import RestartFailed
from zelo_site.processes.services import AlreadyRunning, BinaryNotFound, ServiceSupervisor
from zelo_site.processes.supervisor import exits_on_sigterm


class Command(BaseCommand):
    help = "Check, back up, migrate and restart, after a newer program was installed; the server may keep running."
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--backup",
            type=Path,
            default=None,
            metavar="FILE",
            help="backup to write (default: a file in ZELO_HOME/backups)",
        )
        parser.add_argument("--no-backup", action="store_true", help="write no backup")
        parser.add_argument(
            "--recipient", action="append", default=[], metavar="AGE1...", help="encrypt the backup for this key of age"
        )
        parser.add_argument(
            "--check", action="store_true", help="restore the backup into a second home before it counts"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        home = Path(settings.ZELO_HOME)
        with contextlib.ExitStack() as stack:
            stack.enter_context(exits_on_sigterm())
            try:
                is_running = False
                try:
                    stack.enter_context(ServiceSupervisor(home))
                except AlreadyRunning:
                    is_running = True
                stack.callback(connection.close)
                plan = upgrade(
                    home,
                    is_running=is_running,
                    backup=None if options["no_backup"] else options["backup"] or default_backup(home, timezone.now()),
                    recipients=options["recipient"],
                    check_backup=(lambda archive: check_in_second_home(archive, say=self._say))
                    if options["check"]
                    else None,
                    say=self._say,
                )
            except (
                BackupFailed,
                BinaryNotFound,
                FolderUnusable,
                RestartFailed,
                ServiceFailed,
                UpgradeRefused,
            ) as error:
                raise CommandError(str(error)) from error
        done = f"upgraded: {len(plan.migrations)} migrations applied"
        self._say(f"{done}, and the server is restarted" if is_running else f"{done}; start the server with `make up`")

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
