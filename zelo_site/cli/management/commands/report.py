"""`manage.py report PROJECT`: write the report of a project as one HTML file or as Markdown."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.models import Project
from scoring.models import Snapshot
from scoring.storage.files import StoredFileUnusable
from trainer.evaluation.leaderboard import SPLITS
from zelo_site.cli.lookup import find_project, find_snapshot
from zelo_site.processes.stack import database
from zelo_site.report.build import ReportRefused, build_report, evaluated_snapshot
from zelo_site.report.rendering import as_html, as_markdown

WRITERS = {".html": as_html, ".md": as_markdown}


class Command(BaseCommand):
    help = (
        "Write a project's report: data, judges, spend, agreement, calibration, proof with tests, settings, checksums."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug")
        parser.add_argument("--snapshot", help="number or name (default: the one that was evaluated last)")
        parser.add_argument("--split", choices=SPLITS, help="split of the proof (default: the one evaluated last)")
        parser.add_argument("--before", help="number or name of an earlier snapshot, to compare the two")
        parser.add_argument(
            "--to",
            type=Path,
            default=None,
            help="file that ends in .html or .md (default: Markdown on standard output)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        target: Path | None = options["to"]
        write = as_markdown if target is None else WRITERS.get(target.suffix.lower())
        if write is None:
            raise CommandError(f"--to is {target}; expected a file that ends in .html or .md")
        with database():
            project = find_project(options["project"])
            snapshots = Snapshot.objects.filter(projects=project)
            before = _named(project, options["before"])
            named = _named(project, options["snapshot"])
            snapshot, split = evaluated_snapshot(project, snapshots, before, chosen=named)
            try:
                text = write(build_report(project, snapshot=snapshot, split=options["split"] or split, before=before))
            except (ReportRefused, StoredFileUnusable) as error:
                raise CommandError(str(error)) from error
        if target is None:
            self.stdout.write(text)
            return
        try:
            target.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CommandError(f"cannot write {target}: {error.strerror}") from error
        self.stdout.write(f"wrote {target} ({len(text.encode()):,} bytes)")


def _named(project: Project, wanted: str | None) -> Snapshot | None:
    return None if wanted is None else find_snapshot(project, wanted)
