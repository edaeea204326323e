"""`manage.py import PROJECT FILE`: texts, candidates, grades or judgments into a project."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pydantic
from django.core.management.base import BaseCommand, CommandError

from labeling.importing.dataset import ImportFailed, import_dataset, preview_dataset
from labeling.importing.detection import AUTO
from labeling.importing.reports import left_out_file
from labeling.models import DatasetImport, Project
from labeling.plugins import UnknownPlugin, problem_of, registered
from labeling.retrieval.candidates import rank_candidates
from workers.management.arguments import json_object
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
            "--left-out",
            type=Path,
            default=None,
            help="write the rows that were left out to this file, with line and reason; CSV, or JSON lines for .jsonl",
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
                    self._preview(project, path, options["importer"], chosen)
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
                raise CommandError(problem_of(error)) from error
            rank_candidates(project)
            self.stdout.write(str(summary))
            if options["left_out"] is not None:
                self._write_left_out(summary.import_id, options["left_out"])

    def _write_left_out(self, import_id: int, path: Path) -> None:
        report = DatasetImport.objects.get(pk=import_id)
        try:
            with path.open("wb") as stream:
                stream.writelines(left_out_file(report, "jsonl" if path.suffix == ".jsonl" else "csv"))
        except OSError as error:
            raise CommandError(f"the file was imported, but {path} cannot be written: {error.strerror}") from error

    def _preview(self, project: Project, path: Path, importer: str, options: dict[str, Any]) -> None:
        """Print what the file holds and its errors by reason. Raises CommandError if it has any."""
        found = preview_dataset(path, importer=importer, options=options, project=project)
        names = ("queries", "documents", "candidates", "grades", "judgments", "ratings")
        parts = [f"{count} {name}" for name in names if (count := getattr(found, name))]
        self.stdout.write(f"format {found.importer}: {', '.join(parts) or 'no rows'}")
        for each in found.errors[:10]:
            self.stderr.write(str(each))
        if found.errors:
            raise CommandError("; ".join(str(each) for each in found.reasons) or str(found.errors[0]))
