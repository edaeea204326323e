"""`manage.py progress PROJECT`: follow the project's run in the terminal."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from workers.progress import run_progress
from zelo_site.runs import RunStopped, watch
from zelo_site.selection import find_project, find_run
from zelo_site.stack import database
from zelo_site.terminal import ProgressBar


class Command(BaseCommand):
    help = "Show the progress of a run until it ends; the run continues after Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug")
        parser.add_argument("--run", type=int, default=None, help="run id (default: the latest run)")
        parser.add_argument("--once", action="store_true", help="print the current progress and exit")

    def handle(self, *args: Any, **options: Any) -> None:
        with database():
            run = find_run(find_project(options["project"]), options["run"])
            if options["once"]:
                now = run_progress(run)
                self.stdout.write(
                    f"{now.state}: {now.answered:,} of {now.planned:,}, {now.rate:,.0f}/s, {now.dead:,} failed"
                )
                return
            try:
                watch(run, bar=ProgressBar(f"run {run.pk}", sys.stdout))
            except RunStopped as error:
                raise CommandError(str(error)) from error
            except KeyboardInterrupt:
                self.stdout.write("\nthe run continues in the background")
