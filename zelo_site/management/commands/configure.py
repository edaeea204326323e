"""`manage.py configure PROJECT`: change the name, instruction, criteria, rater or caps; without options, print them."""

from __future__ import annotations

import json
import math
from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.annotation.criteria import lines_of_rubric, rubric_of_lines
from labeling.models import Project
from labeling.projects import BadProject, change_project
from workers.budgets.changes import change_caps
from workers.budgets.limits import BadBudget, read_caps
from zelo_site.cli.lookup import find_project
from zelo_site.processes.stack import database


class Command(BaseCommand):
    help = "Change a project's settings, or print them when no option is given; changing the rater refits all queries."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="project slug")
        parser.add_argument("--name")
        parser.add_argument("--instruction", help="instruction shown to judges and annotators")
        parser.add_argument(
            "--criterion",
            action="append",
            metavar="LINE",
            help="criterion of the rubric, for example '3 x answers: It answers the need'; repeat for each, or pass none",
        )
        parser.add_argument("--rater", help="rater plugin, for example thurstone or bradley-terry")
        parser.add_argument("--rater-options", help='rater options as JSON, for example {"judge_weights": "anchored"}')

        for name, unit in (("calls", "calls"), ("tokens", "input and output tokens"), ("dollars", "dollars")):
            parser.add_argument(
                f"--{name}", help=f"maximum number of {unit} for all runs and probes, or none for no limit"
            )

    def handle(self, *args: Any, **options: Any) -> None:
        rater_options = _json_object(options["rater_options"])
        caps = _caps(options)
        with database():
            try:
                project = change_project(
                    find_project(options["project"]),
                    name=options["name"],
                    instruction=options["instruction"],
                    rubric=_rubric(options["criterion"]),
                    rater=options["rater"],
                    rater_options=rater_options,
                )
                if caps:
                    change_caps(project, caps)
            except (BadProject, BadBudget) as error:
                raise CommandError(str(error)) from error
            self.stdout.write(_lines(project))


def _rubric(lines: list[str] | None) -> list[dict[str, Any]] | None:
    if lines is None:
        return None
    try:
        return rubric_of_lines("" if lines == ["none"] else "\n".join(lines))
    except ValueError as error:
        raise CommandError(f"--criterion: {error}") from error


def _json_object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"--rater-options is {text!r}, which is not JSON ({error}); pass a JSON object") from error
    if not isinstance(values, dict):
        raise CommandError(f'--rater-options is {text!r}; pass a JSON object such as {{"prior_precision": 0.1}}')
    return values


def _caps(options: Mapping[str, Any]) -> dict[str, int | None]:
    names = {"calls": ("calls", 1), "tokens": ("tokens", 1), "dollars": ("cost_micros", 1_000_000)}
    return {
        field: _limit(name, options[name], unit) for name, (field, unit) in names.items() if options[name] is not None
    }


def _limit(name: str, text: str, unit: int) -> int | None:
    if text.lower() == "none":
        return None
    try:
        number = float(text) * unit
    except ValueError:
        number = math.nan
    if not 0 < number < 2**62 or (unit == 1 and number != int(number)):
        raise CommandError(f"--{name} is {text!r}; pass a number above 0, or none for no limit")
    return max(1, round(number))


def _limits(project: Project) -> str:
    caps = read_caps(project.pk)
    parts = [f"{caps.calls:,} calls" if caps.calls else "", f"{caps.tokens:,} tokens" if caps.tokens else ""]
    parts += [f"${caps.cost_micros / 1e6:,.2f}" if caps.cost_micros else ""]
    return ", ".join(filter(None, parts)) or "no limit"


def _lines(project: Project) -> str:
    rows = {
        "slug": project.slug,
        "name": project.name,
        "instruction": project.instruction or "none",
        "criteria": lines_of_rubric(project.rubric).replace("\n", "\n" + " " * 13) or "none",
        "rater": f"{project.rater} {json.dumps(project.rater_options)}",
        "caps": _limits(project),
    }
    return "\n".join(f"{label:<12} {value}" for label, value in rows.items())
