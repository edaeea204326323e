"""`manage.py backup FILE`: the whole installation in one file, while work goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from zelo_site.operations.backup import BackupFailed, write_backup
from zelo_site.processes.stack import MANAGE, database

# The second installation uses its own servers and storage.
_OWN = ("DATABASE_URL", "BROKER_URL", "STORAGE_URL", "ZELO_SECRET_KEY", "ZELO_CACHE")


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
                    check=self._check if options["check"] else None,
                    say=self._say,
                )
            except BackupFailed as error:
                raise CommandError(str(error)) from error
        rows = sum(table.rows for table in manifest.tables.values())
        stored = sum(name.startswith("storage/") for name in manifest.files)
        self.stdout.write(f"wrote {target}: {rows:,} rows, {stored:,} stored files, {target.stat().st_size:,} bytes")
        if manifest.missing:
            self.stdout.write(f"deleted meanwhile and not in the backup: {', '.join(manifest.missing[:5])}")
        if not options["recipient"]:
            self.stdout.write("the file is not encrypted and holds the signing key: keep it as safe as the server")

    def _check(self, archive: Path) -> None:
        self._say("restoring the backup into a second home")
        with tempfile.TemporaryDirectory(dir=archive.parent, prefix="second-home.") as home:
            environ = {name: value for name, value in os.environ.items() if name not in _OWN}
            Path(home).chmod(0o711)  # under root, PostgreSQL runs as another user
            done = subprocess.run(
                [sys.executable, str(MANAGE), "restore", str(archive)],
                env={**environ, "ZELO_HOME": home}, capture_output=True, text=True, errors="replace", check=False,
            )  # fmt: skip
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            raise BackupFailed(f"the backup cannot be restored, so it was not kept: {lines[-1]}")
        self._say("the second home holds every row and every file")

    def _say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
