"""`manage.py configure PROJECT`: another name, instruction or rater; without options, what stands now."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from labeling.models import Project
from labeling.projects import BadProject, change_project
from zelo_site.selection import find_project
from zelo_site.stack import database


class Command(BaseCommand):
    help = "Change a project; with another rater, or other options of it, all queries are fitted anew."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("project", help="slug of the project")
        parser.add_argument("--name")
        parser.add_argument("--instruction", help="what judges and people are told beside the question")
        parser.add_argument("--rater", help="for example thurstone or bradley-terry")
        parser.add_argument("--rater-options", help='JSON, for example {"judge_weights": "anchored"}')

    def handle(self, *args: Any, **options: Any) -> None:
        rater_options = _json_object(options["rater_options"])
        with database():
            try:
                project = change_project(
                    find_project(options["project"]),
                    name=options["name"],
                    instruction=options["instruction"],
                    rater=options["rater"],
                    rater_options=rater_options,
                )
            except BadProject as error:
                raise CommandError(str(error)) from error
            self.stdout.write(_lines(project))


def _json_object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"--rater-options is {text!r}, which is no JSON ({error})") from error
    if not isinstance(values, dict):
        raise CommandError(f'--rater-options is {text!r}; expected a JSON object such as {{"prior_precision": 0.1}}')
    return values


def _lines(project: Project) -> str:
    rows = {
        "slug": project.slug,
        "name": project.name,
        "instruction": project.instruction or "none",
        "rater": f"{project.rater} {json.dumps(project.rater_options)}",
    }
    return "\n".join(f"{label:<12} {value}" for label, value in rows.items())
