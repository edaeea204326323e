"""`manage.py plan_scale`: what a project of a size would take, from measured rates."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from workers.budgets.scale_plan import BadScale, Project, Rates, Way, ways

SIZES = ("queries", "candidates", "pairs", "judges", "orders")


class Command(BaseCommand):
    help = "Print the calls, tokens, money, time, disk and hosts of a project of a given size; needs no database."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        for each in fields(Project):
            kind: type[int] | type[float] = int if each.name in SIZES else float
            parser.add_argument(
                f"--{each.name.replace('_', '-')}", type=kind, default=each.default, help=f"default {each.default:,}"
            )
        parser.add_argument(
            "--set", action="append", default=[], metavar="RATE=NUMBER", dest="rates",
            help="replace a measured rate: " + ", ".join(f"{each.name} ({each.default:,})" for each in fields(Rates)),
        )  # fmt: skip

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project(**{each.name: options[each.name] for each in fields(Project)})
        try:
            rates = Rates().replaced(dict(_rate(text) for text in options["rates"]))
            found = ways(project, rates)
        except BadScale as error:
            raise CommandError(str(error)) from error
        self.stdout.write(
            f"{project.queries:,} queries x {project.candidates} candidates, {project.pairs} pairs a query, {project.judges} judges"
        )
        width = max(len(way.name) for way in found)
        for label, value in _ROWS.items():
            cells = [value(way) for way in found]
            if any(cells):
                self.stdout.write(f"{label:<34}" + "".join(f"{cell:>{width + 2}}" for cell in cells))
        self.stdout.write(
            "Rates: " + ", ".join(f"{each.name} {getattr(rates, each.name):,g}" for each in fields(rates))
        )


def _rate(text: str) -> tuple[str, float]:
    """Raises CommandError."""
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError as error:
        raise CommandError(f"--set {text!r} is not RATE=NUMBER") from error


_ROWS: dict[str, Callable[[Way], str]] = {
    "": lambda way: way.name,
    "share of the first design": lambda way: f"{way.share:.3f}",
    "calls, millions": lambda way: f"{way.calls / 1e6:,.2f}",
    "tokens read, millions": lambda way: f"{way.input_tokens / 1e6:,.0f}",
    "tokens written, millions": lambda way: f"{way.output_tokens / 1e6:,.1f}",
    "dollars": lambda way: f"{way.dollars:,.0f}" if way.dollars else "",
    "GPU hours": lambda way: "" if way.gpu_hours is None else f"{way.gpu_hours:,.0f}",
    "import, hours": lambda way: f"{way.import_hours:.2f}",
    "plan, hours of one process": lambda way: f"{way.plan_hours:.2f}",
    "claim and store, hours": lambda way: f"{way.store_hours:.2f}",
    "one fit of all queries, hours": lambda way: f"{way.fit_hours:.2f}",
    "database, GB": lambda way: f"{way.database_gb:,.1f}",
    "share of one database's week": lambda way: f"{way.databases:.3f}",
    "hosts that make calls, for one week": lambda way: f"{way.hosts:,}",
}
