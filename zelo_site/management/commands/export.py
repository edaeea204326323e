"""`manage.py export PROJECT`: scores, judgments, grades or texts in the format of an exporter plugin."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pydantic
from django.core.management.base import BaseCommand, CommandError

from labeling.importing.dataset import export_judgments
from labeling.plugins import UnknownPlugin, problem_of, registered
from scoring.exports import ExportFailed
from scoring.exports.exporting import export
from workers.management.arguments import json_object
from zelo_site.cli.lookup import find_project
from zelo_site.processes.stack import database

JUDGMENTS = "judgments"


class Command(BaseCommand):
    help = "Export a project's scores, judgments, grades or texts; a failed export leaves no partial file."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug")
        known = ", ".join([*registered("exporter"), JUDGMENTS])
        parser.add_argument("--format", default="zbench-annotated-jsonl", help=known)
        parser.add_argument(
            "--options", default="{}", help='options of the format as JSON, for example {"tag": "mine"}'
        )
        parser.add_argument("--to", type=Path, default=None, help="output file (default: standard output)")

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = json_object(options["options"])
        with database():
            project = find_project(options["project"])
            target: Path | None = options["to"]
            if target is None:
                self._write(project, options["format"], sys.stdout.buffer, chosen)
                sys.stdout.buffer.flush()
                return
            draft = target.with_name(target.name + ".part")
            try:
                with draft.open("wb") as stream:
                    self._write(project, options["format"], stream, chosen)
                draft.replace(target)
                self.stdout.write(f"wrote {target} ({target.stat().st_size:,} bytes)")
            except OSError as error:
                raise CommandError(f"cannot write {target}: {error.strerror}") from error
            finally:
                draft.unlink(missing_ok=True)

    def _write(self, project: Any, form: str, stream: Any, chosen: dict[str, Any]) -> None:
        try:
            if form == JUDGMENTS:
                export_judgments(project, stream)
            else:
                export(project, form, stream, options=chosen)
        except UnknownPlugin as error:
            raise CommandError(f"{error}, {JUDGMENTS}") from error
        except (ExportFailed, pydantic.ValidationError) as error:
            raise CommandError(problem_of(error)) from error
