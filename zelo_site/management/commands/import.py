"""`manage.py import PROJECT FILE`: queries with documents, or grades, into a project."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.candidates import rank_candidates
from labeling.plugins import UnknownPlugin, registered
from labeling.transfer import ImportFailed, import_dataset
from zelo_site.selection import find_project
from zelo_site.stack import database


class Command(BaseCommand):
    help = "Import a file into a project; imports are all-or-nothing and can be repeated safely."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug")
        parser.add_argument("file", type=Path)
        parser.add_argument("--importer", default="zbench-jsonl", help=", ".join(registered("importer")))

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        if not path.is_file():
            raise CommandError(f"file {path} does not exist; check the path")
        with database():
            project = find_project(options["project"])
            try:
                with path.open("rb") as stream:
                    summary = import_dataset(project, stream, importer=options["importer"], filename=path.name)
            except (ImportFailed, UnknownPlugin) as error:
                raise CommandError(str(error)) from error
            rank_candidates(project)
            self.stdout.write(str(summary))
