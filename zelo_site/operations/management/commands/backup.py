"""`manage.py backup FILE`: the whole installation in one file, while work continues."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from zelo_site.operations.backup import BackupFailed, write_backup
from zelo_site.operations.second_home import check_in_second_home
from zelo_site.processes.stack import database


class Command(BaseCommand):
    help = "Back up the database, the storage and the signing key; a failed backup leaves no file."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path, help="file to write; an existing one is replaced")
        parser.add_argument(
            "--recipient",
            action="append",
            default=[],
            metavar="AGE1...",
            help="encrypt for this public key of age; may be repeated",
        )
        parser.add_argument(
            "--check", action="store_true", help="restore the backup into a second home before it counts"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        target: Path = options["file"]
        with database():
            try:
                manifest = write_backup(
                    target,
                    recipients=options["recipient"],
                    check=(lambda archive: check_in_second_home(archive, say=self._say)) if options["check"] else None,
                    say=self._say,
                )
            except BackupFailed as error:
                raise CommandError(str(error)) from error
        rows = sum(table.rows for table in manifest.tables.values())
        stored = sum(name.startswith("storage/") for name in manifest.files)
        self.stdout.write(f"wrote {target}: {rows:,} rows, {stored:,} stored files, {target.stat().st_size:,} bytes")
        if manifest.missing:
            self.stdout.write(f"deleted during the backup and not in it: {', '.join(manifest.missing[:5])}")
        if not options["recipient"]:
            self.stdout.write("the file is not encrypted and holds the signing key: keep it as safe as the server")

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
