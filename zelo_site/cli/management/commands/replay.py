"""`manage.py replay PROJECT FILE`: upload recorded answers and start a run that replays them."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from scoring.storage.files import StorageFull
from workers.jobs.recorded_judges import RecordingRefused, store_recording
from workers.runs.ordering import RunRefused, start_run
from workers.runs.planning import RECORDED
from zelo_site.cli.lookup import find_project
from zelo_site.processes.stack import database


class Command(BaseCommand):
    help = "Upload a file of recorded answers to a project, and start a run that replays them; workers carry it out."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug")
        parser.add_argument("file", type=Path, help="JSON lines or CSV, plain or gzipped; docs/judges.md describes it")
        parser.add_argument("--allocation", default="all", choices=["all", "rotate"])
        parser.add_argument("--upload-only", action="store_true", help="make the judges, but start no run")

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["file"]
        if not path.is_file():
            raise CommandError(f"file {path} does not exist; check the path")
        with database():
            project = find_project(options["project"])
            try:
                with path.open("rb") as stream:
                    stored = store_recording(project, stream, filename=path.name)
                for name, count in stored.answers_of.items():
                    self.stdout.write(f"{name}: {count:,} answers (judge {stored.judges[name].pk})")
                if stored.left_out:
                    self.stdout.write(
                        f"{stored.left_out:,} answers left out: unknown queries or documents, or changed texts"
                    )
                if options["upload_only"]:
                    return
                run = start_run(
                    project, judges=list(stored.judges.values()), sampler=RECORDED, allocation=options["allocation"]
                )
            except (RecordingRefused, RunRefused, StorageFull) as error:
                raise CommandError(str(error)) from error
            self.stdout.write(f"run {run.pk} started; follow it with `python manage.py progress {project.slug}`")
