"""`manage.py archive export PROJECT FILE` and `manage.py archive import FILE`: a project as one file."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from labeling.models import Project
from labeling.projects import BadProject
from workers.archives.exporting import PEOPLE, PSEUDONYMS, write_archive
from workers.archives.importing import import_archive
from workers.archives.reading import BadArchive


class Command(BaseCommand):
    help = "Export a project with everything to one compressed file, or import such a file as a new project."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        export = actions.add_parser("export", help="write a project to a file")
        export.add_argument("project", help="project slug")
        export.add_argument("file", help="path of the new file, for example fish.zelo.gz")
        export.add_argument("--people", choices=PEOPLE, default=PSEUDONYMS, help="whether people keep their names")
        load = actions.add_parser("import", help="create a project from a file, all or nothing")
        load.add_argument("file", help="path of the archive")
        load.add_argument("--name", default="", help="name of the new project (default: the archive's)")
        load.add_argument("--owner", default="", help="name of the user who becomes its owner")

    def handle(self, *args: Any, **options: Any) -> None:
        path = Path(options["file"])
        try:
            if options["action"] == "export":
                self._export(options["project"], path, options["people"])
            else:
                self._import(path, options["name"], options["owner"])
        except (BadArchive, BadProject, OSError) as error:
            raise CommandError(str(error)) from error

    def _export(self, slug: str, path: Path, people: str) -> None:
        project = Project.objects.filter(slug=slug).first()
        if project is None:
            raise CommandError(f"no project has the slug {slug!r}; check the address of its page")
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
        try:
            with unfinished.open("wb") as stream:
                size = write_archive(project, stream, people=people)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
        self.stdout.write(f"{path}: {size:,} bytes")

    def _import(self, path: Path, name: str, owner: str) -> None:
        user = get_user_model().objects.filter(username=owner).first()
        if owner and user is None:
            raise CommandError(f"no user is named {owner!r}; check --owner")
        with path.open("rb") as stream:
            project = import_archive(stream, name=name, owner=user)
        self.stdout.write(project.slug)
