"""`manage.py import PROJECT FILE`: queries with documents, or grades, into a project."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pydantic
from django.core.management.base import BaseCommand, CommandError

from labeling.importing.dataset import ImportFailed, import_dataset, preview_dataset
from labeling.importing.detection import AUTO
from labeling.plugins import UnknownPlugin, registered
from labeling.retrieval.candidates import rank_candidates
from zelo_site.cli.json_options import json_object
from zelo_site.cli.lookup import find_project
from zelo_site.processes.stack import database


class Command(BaseCommand):
    help = "Import a file into a project; all or nothing by default; imports can be repeated safely."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug")
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--importer",
            default=AUTO,
            help=f"{AUTO} (default): by the file's content; {', '.join(registered('importer'))}",
        )
        parser.add_argument("--dry-run", action="store_true", help="check the file and store nothing")
        parser.add_argument(
            "--options", default="{}", help='importer options as JSON, for example {"negative": "ungraded"}'
        )
        parser.add_argument(
            "--leave-out-bad-rows", action="store_true", help="import the good rows, and count the bad ones by reason"
        )

        parser.add_argument(
            "--replace",
            action="store_true",
            help="replace changed texts without judgments, metadata and first-stage ranks of the project",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        if not path.exists():
            raise CommandError(f"file {path} does not exist; check the path")
        chosen = json_object(options["options"])
        with database():
            project = find_project(options["project"])
            try:
                if options["dry_run"]:
                    self._preview(path, options["importer"], chosen)
                    return
                summary = import_dataset(
                    project,
                    path,
                    importer=options["importer"],
                    options=chosen,
                    leave_out_bad_rows=options["leave_out_bad_rows"],
                    replaces=options["replace"],
                )
            except (ImportFailed, UnknownPlugin, pydantic.ValidationError) as error:
                raise CommandError(str(error)) from error
            rank_candidates(project)
            self.stdout.write(str(summary))

    def _preview(self, path: Path, importer: str, options: dict[str, Any]) -> None:
        """Print what the file holds and its errors by reason. Raises CommandError if it has any."""
        found = preview_dataset(path, importer=importer, options=options)
        counts = (found.queries, found.documents, found.candidates, found.grades)
        names = ("queries", "documents", "candidates", "grades")
        parts = [f"{count} {name}" for count, name in zip(counts, names, strict=True) if count]
        self.stdout.write(f"format {found.importer}: {', '.join(parts) or 'no rows'}")
        for each in found.errors[:10]:
            self.stderr.write(str(each))
        if found.errors:
            raise CommandError("; ".join(str(each) for each in found.reasons) or str(found.errors[0]))
