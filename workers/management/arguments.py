"""Arguments that several commands read: a project, a row by number or name, a panel's judges, JSON objects."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from django.core.management.base import CommandError
from django.db.models import Model, QuerySet

from labeling.access.annotators import get_judge
from labeling.models import Annotator, Project

Row = TypeVar("Row", bound=Model)


def project_of(slug: str) -> Project:
    """The project with this slug. Raises CommandError."""
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        raise CommandError(f"no project has the slug {slug!r}; check the address of its page")
    return project


def numbered_or_named(rows: QuerySet[Row], wanted: str) -> QuerySet[Row]:
    """The row with this number; without one, the rows with this name (which may be a number, too)."""
    if wanted.isascii() and wanted.isdecimal() and len(wanted) < 19:
        numbered = rows.filter(pk=int(wanted))
        if numbered.exists():
            return numbered
    return rows.filter(name=wanted) if "\x00" not in wanted else rows.none()


def named_judge(project: Project, text: str) -> Annotator:
    """A judge of the project by id or name, or the judge of a plugin with options. Raises CommandError, UnknownPlugin."""
    found = numbered_or_named(Annotator.objects.offered().filter(project=project), text)
    if found.count() == 1:
        return found.get()
    plugin, colon, written = text.partition(":")
    return get_judge(project, plugin, json_object(written, f"--judges {plugin}") if colon else {})


def json_object(text: str, what: str = "--options") -> dict[str, Any]:
    """The JSON object of the argument `what`. Raises CommandError."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(
            f"{what} {text[:200]!r} is not JSON ({error}); pass a JSON object in single quotes"
        ) from error
    if not isinstance(value, dict):
        raise CommandError(f'{what} {text[:200]!r} is not a JSON object; pass one such as {{"k1": 1.2}}')
    return value
