"""`manage.py hand_grades`: measure the finished demo by the older grades by hand as well; `docs/sample.md` shows the result."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from zelo_site.demo.by_hand import hand_report, measure_twice
from zelo_site.demo.sample.report import write_between
from zelo_site.demo.steps import find_demo
from zelo_site.demo.student import NoStudent
from zelo_site.processes.stack import database

MARKS = "<!-- by hand: begin -->", "<!-- by hand: end -->"


class Command(BaseCommand):
    help = "Measure the orders of the finished demo by the sample's recorded grades and by its older grades by hand."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--write", type=Path, help="Markdown file whose marked part becomes the tables")

    def handle(self, *args: Any, **options: Any) -> None:
        with database():
            project = find_demo()
            if project is None:
                raise CommandError("this ZELO_HOME has no demo; run `manage.py demo` until its proof first")
            try:
                text = hand_report(measure_twice(project))
            except NoStudent as error:
                raise CommandError(str(error)) from error
        if options["write"] is None:
            self.stdout.write(text)
        else:
            write_between(options["write"], text + "\n", marks=MARKS)
