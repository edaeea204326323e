"""`manage.py limits ACTION`: list, set, remove; and `projects`: which projects may use an endpoint."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.models import Project
from workers.budgets.limits import BadBudget
from workers.budgets.operator_changes import (
    LimitRefused,
    LimitWithSpend,
    allow_projects,
    allowed_projects,
    list_limits,
    remove_limit,
    set_limit,
)
from workers.models import OperatorLimit


class Command(BaseCommand):
    help = "Limit the spend of judges at endpoints, in addition to the budgets of projects; the server must be running."

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        actions.add_parser("list", help="all limits, with what counts towards each")
        put = actions.add_parser(
            "set", help="set a limit in place of the one with the same endpoint, project and period"
        )
        put.add_argument("--endpoint", default="", help="name; left out: all endpoints together")
        put.add_argument("--project", default="", help="slug; left out: all projects together")
        put.add_argument("--period", default="day", choices=OperatorLimit.Period.values)
        put.add_argument("--calls", type=int)
        put.add_argument("--tokens", type=int)
        put.add_argument("--dollars", type=float)
        actions.add_parser("remove", help="remove a limit").add_argument("number", type=int)
        projects = actions.add_parser("projects", help="show or choose the projects that may use an endpoint")
        projects.add_argument("endpoint")
        chosen = projects.add_mutually_exclusive_group()
        chosen.add_argument("--only", nargs="*", metavar="SLUG", help="these projects; without a slug: none")
        chosen.add_argument("--all", action="store_true", help="all projects, also later ones")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self.stdout.write(getattr(self, f"_{options['action']}")(options))
        except (LimitRefused, BadBudget) as error:
            raise CommandError(str(error)) from error

    def _list(self, options: dict[str, Any]) -> str:
        return "\n".join(map(_line, list_limits())) or "no limits; set one with `limits set`"

    def _set(self, options: dict[str, Any]) -> str:
        dollars = options["dollars"]
        made = set_limit(
            endpoint=options["endpoint"],
            project=_project(options["project"]) if options["project"] else None,
            period=options["period"],
            calls=options["calls"],
            tokens=options["tokens"],
            cost_micros=None if dollars is None else round(dollars * 1e6),
        )
        return f"set limit {made.pk}; it applies to the next call"

    def _remove(self, options: dict[str, Any]) -> str:
        if not remove_limit(options["number"]):
            raise CommandError(f"no limit has the number {options['number']}; `limits list` shows them")
        return f"removed limit {options['number']}"

    def _projects(self, options: dict[str, Any]) -> str:
        name = options["endpoint"]
        if options["all"]:
            allow_projects(name, None)
        elif options["only"] is not None:
            allow_projects(name, list(map(_project, options["only"])))
        found = allowed_projects(name)
        return f"{name}: " + ("all projects" if found is None else ", ".join(found) or "no project")


def _project(slug: str) -> Project:
    found = Project.objects.filter(slug=slug).first()
    if found is None:
        raise CommandError(f"there is no project {slug!r}; the page Projects lists them")
    return found


def _line(row: LimitWithSpend) -> str:
    limit = row.limit
    spent = [
        f"{name} {value:,} of {most:,}"
        for name, value, most in (("calls", row.calls, limit.calls), ("tokens", row.tokens, limit.tokens))
        if most is not None
    ]
    if limit.cost_micros is not None:
        spent.append(f"${row.cost_micros / 1e6:,.2f} of ${limit.cost_micros / 1e6:,.2f}")
    where = [limit.endpoint or "all endpoints", limit.project.slug if limit.project else "all projects"]
    return "  ".join([str(limit.pk), *where, str(limit.get_period_display()), *spent])
