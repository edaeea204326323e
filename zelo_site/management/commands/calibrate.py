"""`manage.py calibrate PROJECT`: put all queries on one scale and print the calibration."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

import pydantic
from django.core.management.base import BaseCommand, CommandError

from labeling.models import Project
from labeling.plugins import UnknownPlugin, problem_of
from scoring.calibration.calibrate import NothingRated, ProjectCalibration, project_calibration
from scoring.rating import rate_stale
from workers.jobs.calibration import calibrate, order_calibration, whats_due
from workers.runs.ordering import RunRefused
from zelo_site.cli.judge_arguments import add_judge_arguments, make_judges, read_judges
from zelo_site.cli.lookup import find_project
from zelo_site.cli.terminal import ProgressBar, table
from zelo_site.cli.watch import POLL_S, RunStopped, watch
from zelo_site.processes.stack import working


class Command(BaseCommand):
    help = "Judge cross-query pairs, put all queries on one scale, and calibrate relevance against grades or people's answers."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug")
        add_judge_arguments(parser, otherwise="the judges of the last run")
        parser.add_argument(
            "--pairs-per-query",
            type=int,
            default=3,
            help="cross-query pairs per query: 3 for soft preferences, 12 for sign votes",
        )
        parser.add_argument("--orders", default="one", choices=["one", "both"])
        parser.add_argument("--seed", type=int, default=None)

    def handle(self, *args: Any, **options: Any) -> None:
        judges = read_judges(options)
        try:
            with working() as tick:
                project = find_project(options["project"])
                run = order_calibration(
                    project,
                    judges=make_judges(project, judges),
                    sampler_options={"pairs_per_query": options["pairs_per_query"]},
                    orders=options["orders"],
                    seed=options["seed"],
                )
                watch(run, bar=ProgressBar("6 Calibrate", sys.stdout), tick=tick)
                settle(project, tick)
                self.stdout.write(calibration_report(project_calibration(project)))
        except (RunRefused, RunStopped, NothingRated, UnknownPlugin, pydantic.ValidationError) as error:
            raise CommandError(problem_of(error)) from error


_SOURCES = {"grades": "human grades", "people": "answers of people", "model grades": "LLM grades"}


def settle(project: Project, tick: Callable[[], None]) -> None:
    """Refit and calibrate until nothing is stale; workers may do this work first."""
    while whats_due(project.pk):
        tick()
        rate_stale(project.pk)
        calibrate(project.pk)
        if whats_due(project.pk):
            time.sleep(POLL_S)


def calibration_report(found: ProjectCalibration) -> str:
    """Return the calibration as text: some lines and a table."""
    lines = [
        f"calibration {found.version}: {found.pairs:,} cross-query pairs, {found.islands_count:,} connected group(s)"
    ]
    if found.islands_count > 1:
        named = [f"{island.queries:,} queries ({', '.join(island.names[:3])} …)" for island in found.islands[:5]]
        lines.append("  compare scores only within a group: " + "; ".join(named))
        if found.unlinked:
            lines.append(f"  {found.unlinked:,} queries without a cross-query pair: {', '.join(found.unlinked_names)}")
    if found.prior_precision is not None:
        lines.append(f"prior precision {found.prior_precision:.3g}, by cross-validation")
    if not found.calibrated:
        return "\n".join([*lines, f"relevance is uncalibrated: {found.reason}"])
    counted = _SOURCES.get(found.source, found.source)
    lines.append(
        f"relevance by {found.method} on {found.answers:,} {counted}, {found.queries:,} queries; "
        f"on held-out queries ECE {found.ece:.3f}, Brier {found.brier:.3f}"
    )
    rows = [
        [f"{each.low:.1f}-{each.high:.1f}", f"{each.predicted:.3f}", f"{each.observed:.3f}", f"{each.count:,}"]
        for each in found.bins
    ]
    return "\n".join([*lines, table(["relevance", "predicted", "observed", counted], rows)])
