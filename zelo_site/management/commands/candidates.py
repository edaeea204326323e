"""`manage.py candidates PROJECT`: stage 2 in the terminal, carried out by the workers."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

import pydantic
from django.core.management.base import BaseCommand, CommandError

from labeling.plugins import UnknownPlugin
from workers.jobs.candidates import FillRefused, order_candidates
from workers.models import Job
from zelo_site.cli.lookup import find_project
from zelo_site.cli.terminal import ProgressBar
from zelo_site.cli.watch import POLL_S
from zelo_site.processes.stack import working


class Command(BaseCommand):
    help = "Retrieve candidates, from the project's documents, for the queries that have none; Ctrl-C leaves the job."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="slug of the project")
        parser.add_argument("--retriever", default="hybrid", help="bm25, dense, hybrid or another plugin")
        parser.add_argument("--options", default="{}", help='the retriever\'s options as JSON, such as {"k1": 1.2}')
        parser.add_argument("--k", type=int, default=100, help="how many candidates a query gets at most")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            chosen = _object(options["options"])
            with working() as tick:
                job = order_candidates(find_project(options["project"]), options["retriever"], chosen, options["k"])
                follow(job, bar=ProgressBar("2 Candidates", sys.stdout), tick=tick)
        except (FillRefused, UnknownPlugin, pydantic.ValidationError) as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            self.stdout.write("\nthe job goes on with the next worker")


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise CommandError(f"--options {text!r} is not JSON ({error}); expected an object in single quotes") from error
    if not isinstance(value, dict):
        raise CommandError(f'--options {text!r} is no object; expected something like {{"k1": 1.2}}')
    return value


def follow(job: Job, *, bar: ProgressBar, tick: Callable[[], None]) -> None:
    """Draw the job's progress until it ends. Raises CommandError where it failed."""
    while job.state in {Job.State.OPEN, Job.State.LEASED}:
        bar.show(job.done, job.total, "queries" if job.total else "indexing")
        tick()
        time.sleep(POLL_S)
        job.refresh_from_db()
    bar.end(job.message or job.get_state_display())
    if job.state != Job.State.FINISHED:
        raise CommandError(f"job {job.pk} is {job.get_state_display()}: {job.error or 'no reason given'}")
