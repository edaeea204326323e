"""`manage.py snapshot PROJECT...`: freeze scores for training, mix snapshots, or list them."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import pydantic
from django.core.management.base import BaseCommand, CommandError

from labeling.models import Project
from labeling.plugins import problem_of
from labeling.stored_texts import counted
from scoring.models import Snapshot
from scoring.snapshots.freeze import SnapshotOptions, SnapshotRefused, freeze
from scoring.snapshots.mixing import Part, mix
from scoring.storage.files import StorageFull, StoredFileUnusable
from workers.management.arguments import json_object
from zelo_site.cli.lookup import find_project
from zelo_site.cli.terminal import table
from zelo_site.processes.stack import database


class Command(BaseCommand):
    help = "Freeze the scores of one or more projects for training, mix their snapshots with --mix, or list them with --list."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("projects", nargs="+", help="project slugs; several projects form a mixture")
        parser.add_argument("--name", default="", help="name of the snapshot (default: the slugs)")
        parser.add_argument(
            "--options",
            default="{}",
            help='snapshot options as JSON, for example {"seed": 1, "heldout_domains": ["law"]}',
        )
        parser.add_argument(
            "--mix",
            nargs="+",
            default=[],
            metavar="NUMBER[:WEIGHT]",
            help="store a mixture of these snapshots of the projects; a query counts in the first that has it",
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
                name = options["name"] or " + ".join(options["projects"])
                if options["mix"]:
                    snapshot = mix([_part(each, projects) for each in options["mix"]], name=name)
                else:
                    chosen = SnapshotOptions.model_validate(json_object(options["options"]))
                    snapshot = freeze(projects, name=name, options=chosen)
            except (SnapshotRefused, StorageFull, StoredFileUnusable, pydantic.ValidationError) as error:
                raise CommandError(problem_of(error)) from error
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
        unscored = manifest.get("unscored", {"queries": 0})
        if unscored["queries"]:
            self.stdout.write(
                f"excluded: {counted(unscored['queries'], 'query', 'queries')} without scores, {unscored['graded']:,} with grades"
            )
        self.stdout.write(f"SHA-256 {snapshot.checksum}")


def _part(text: str, projects: list[Project]) -> Part:
    """The snapshot and the weight of `NUMBER[:WEIGHT]`. Raises CommandError for one that holds other projects' scores."""
    number, _, weight = text.partition(":")
    try:
        found = Snapshot.objects.get(pk=int(number))
        part = Part(found, float(weight or 1.0))
    except (ValueError, Snapshot.DoesNotExist):
        raise CommandError(
            f"--mix {text!r} is not a snapshot; expected its number from --list, perhaps with a weight: 3:0.5"
        ) from None
    if set(found.projects.values_list("pk", flat=True)) - {project.pk for project in projects}:
        raise CommandError(f"snapshot {number} holds scores of other projects; name all its projects")
    return part


def _row(snapshot: Snapshot) -> list[str]:
    return [str(snapshot.pk), snapshot.name, f"{snapshot.rows:,}", f"{snapshot.created_at:%Y-%m-%d %H:%M}"]
