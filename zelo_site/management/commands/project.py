"""`manage.py project NAME`: a new, empty project."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.projects import BadProject, create_project
from zelo_site.stack import database


class Command(BaseCommand):
    help = "Create an empty project and print its slug."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name")
        parser.add_argument("--instruction", default="", help="instruction shown to judges and annotators")

    def handle(self, *args: Any, **options: Any) -> None:
        with database():
            try:
                project = create_project(options["name"], instruction=options["instruction"])
            except BadProject as error:
                raise CommandError(str(error)) from error
            self.stdout.write(project.slug)
