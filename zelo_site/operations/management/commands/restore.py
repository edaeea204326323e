"""`manage.py restore FILE`: a backup back into an empty installation."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from zelo_site.operations.restore import RestoreRefused, restore_backup
from zelo_site.processes.embedded import FolderUnusable, ServiceFailed
from zelo_site.processes.services import AlreadyRunning, BinaryNotFound, ServiceSupervisor
from zelo_site.processes.supervisor import exits_on_sigterm


class Command(BaseCommand):
    help = "Restore a backup into an installation without projects and accounts; a failed restore leaves no rows."
    requires_migrations_checks = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="file of `manage.py backup`")
        parser.add_argument(
            "--identity", type=Path, default=None, help="file with the secret key of age, if it is encrypted"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not options["file"].is_file():
            raise CommandError(f"{options['file']} is not a file")
        try:
            with exits_on_sigterm(), ServiceSupervisor(settings.ZELO_HOME):
                try:
                    manifest = restore_backup(options["file"], identity=options["identity"], say=self.stdout.write)
                    call_command("migrate", verbosity=0)
                finally:
                    connection.close()
        except AlreadyRunning as error:
            raise CommandError(f"{error}; stop the server before you restore") from error
        except (RestoreRefused, BinaryNotFound, FolderUnusable, ServiceFailed) as error:
            raise CommandError(str(error)) from error
        rows = sum(table.rows for table in manifest.tables.values())
        self.stdout.write(f"restored {rows:,} rows and {len(manifest.files) - 2:,} stored files; start with `make up`")
        if os.environ.get("DATABASE_URL"):
            self.stdout.write("the signing key was written to ZELO_HOME; give it to every host as ZELO_SECRET_KEY")
