"""`manage.py candidates PROJECT`: retrieve candidates (stage 2); the workers do the work."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

import pydantic
from django.core.management.base import BaseCommand, CommandError

from labeling.plugins import UnknownPlugin, problem_of
from workers.jobs.candidates import FillRefused, order_candidates
from workers.management.arguments import json_object
from workers.models import Job
from zelo_site.cli.lookup import find_project
from zelo_site.cli.terminal import ProgressBar
from zelo_site.cli.watch import POLL_S
from zelo_site.processes.stack import working


class Command(BaseCommand):
    help = "Retrieve candidate documents for all queries that have none; the job continues after Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug")
        parser.add_argument("--retriever", default="hybrid", help="retriever plugin: bm25, dense, hybrid or another")
        parser.add_argument("--options", default="{}", help='retriever options as JSON, for example {"k1": 1.2}')
        parser.add_argument("--k", type=int, default=100, help="maximum number of candidates per query")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            chosen = json_object(options["options"])
            with working() as tick:
                job = order_candidates(find_project(options["project"]), options["retriever"], chosen, options["k"])
                follow(job, bar=ProgressBar("2 Candidates", sys.stdout), tick=tick)
        except (FillRefused, UnknownPlugin, pydantic.ValidationError) as error:
            raise CommandError(problem_of(error)) from error
        except KeyboardInterrupt:
            self.stdout.write("\nthe job continues in the background")


def follow(job: Job, *, bar: ProgressBar, tick: Callable[[], None]) -> None:
    """Draw the job's progress until it ends. Raises CommandError if it failed."""
    while job.state in {Job.State.OPEN, Job.State.LEASED}:
        bar.show(job.done, job.total, "queries" if job.total else "indexing")
        tick()
        time.sleep(POLL_S)
        job.refresh_from_db()
    bar.end(job.message or job.get_state_display())
    if job.state != Job.State.FINISHED:
        raise CommandError(f"job {job.pk} is {job.get_state_display()}: {job.error or 'no reason given'}")
