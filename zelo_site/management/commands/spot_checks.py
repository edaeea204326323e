"""`manage.py spot_checks PROJECT`: choose pairs for people, or show the progress of the plans."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.models import Project, SpotCheck
from scoring.spot_checks.draws import BadPlan
from scoring.spot_checks.plans import plan_progress, plan_spot_checks, preview_spot_checks
from zelo_site.cli.lookup import find_project
from zelo_site.cli.terminal import table
from zelo_site.processes.stack import database


class Command(BaseCommand):
    help = "Plan which pairs people judge, or show the plans and their progress without --reason."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug")
        parser.add_argument("--reason", choices=SpotCheck.Reason.values, help="reason for choosing the pairs")
        parser.add_argument("--pairs", type=int, default=50)
        parser.add_argument("--overlap", type=int, default=1, help="number of people who judge each pair")
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--preview", action="store_true", help="print the plan without storing it")

    def handle(self, *args: Any, **options: Any) -> None:
        with database():
            project = find_project(options["project"])
            if options["reason"] is None:
                self.stdout.write(plans_report(project))
                return
            order = {name: options[name] for name in ("reason", "pairs", "overlap", "seed")}
            try:
                self.stdout.write(_preview(project, order) if options["preview"] else _plan(project, order))
            except BadPlan as error:
                raise CommandError(str(error)) from error


def _plan(project: Project, order: dict[str, Any]) -> str:
    planned = plan_spot_checks(project, **order)
    return f"plan {planned.plan.pk}: {planned.pairs:,} of {planned.wanted:,} pairs, {planned.slots:,} slots"


def _preview(project: Project, order: dict[str, Any]) -> str:
    found = preview_spot_checks(project, **order)
    pace = "measured in this project" if found.measured else "assumed; no timings yet"
    return (
        f"{found.pairs:,} of {found.wanted:,} pairs, {found.slots:,} answers: {found.hours:.1f} hours of one person "
        f"at {found.seconds:.1f} s per pair ({pace})"
    )


def plans_report(project: Project) -> str:
    """Return a table with one row per plan."""
    plans = plan_progress(project)
    if not plans:
        return f"no plans yet; create one with `manage.py spot_checks {project.slug} --reason random --pairs 50`"
    rows = [
        [str(each.plan.pk), each.plan.reason, f"{each.plan.pairs:,}", f"{each.asked:,}", f"{each.answered:,}", f"{each.left:,}"]
        for each in plans
    ]  # fmt: skip
    return table(["plan", "reason", "pairs", "asked", "answered", "left"], rows)
