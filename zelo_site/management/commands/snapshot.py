"""`manage.py snapshot PROJECT...`: freeze scores for training, or list the snapshots."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

import pydantic
from django.core.management.base import BaseCommand, CommandError

from scoring.models import Snapshot
from scoring.snapshots import SnapshotOptions, SnapshotRefused, freeze
from scoring.storage import StorageFull
from zelo_site.selection import find_project
from zelo_site.stack import database
from zelo_site.terminal import table


class Command(BaseCommand):
    help = "Freeze the scores of one or more projects for training, or list the snapshots with --list."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("projects", nargs="+", help="project slugs; several projects form a mixture")
        parser.add_argument("--name", default="", help="name of the snapshot (default: the slugs)")
        parser.add_argument(
            "--options",
            default="{}",
            help='snapshot options as JSON, for example {"seed": 1, "heldout_domains": ["law"]}',
        )
        parser.add_argument("--list", action="store_true", help="list the snapshots of the projects and exit")

    def handle(self, *args: Any, **options: Any) -> None:
        with database():
            projects = [find_project(slug) for slug in dict.fromkeys(options["projects"])]
            if options["list"]:
                found = Snapshot.objects.filter(projects__in=projects).distinct()
                self.stdout.write(table(["number", "name", "rows", "frozen"], [_row(each) for each in found]))
                return
            try:
                chosen = SnapshotOptions.model_validate(json.loads(options["options"]))
                snapshot = freeze(projects, name=options["name"] or " + ".join(options["projects"]), options=chosen)
            except (SnapshotRefused, StorageFull, pydantic.ValidationError, json.JSONDecodeError) as error:
                raise CommandError(str(error)) from error
            self._say(snapshot)

    def _say(self, snapshot: Snapshot) -> None:
        manifest = snapshot.manifest
        rows = [
            [split, f"{each['queries']:,}", f"{each['rows']:,}"]
            for split, each in manifest["splits"].items()
            if each["rows"]
        ]
        self.stdout.write(f"snapshot {snapshot.pk} ({snapshot.name}): {snapshot.rows:,} rows")
        self.stdout.write(table(["split", "queries", "rows"], rows))
        for reason, count in manifest["removed"].items():
            self.stdout.write(f"excluded: {count:,} rows ({reason})")
        self.stdout.write(f"SHA-256 {snapshot.checksum}")


def _row(snapshot: Snapshot) -> list[str]:
    return [str(snapshot.pk), snapshot.name, f"{snapshot.rows:,}", f"{snapshot.created_at:%Y-%m-%d %H:%M}"]
