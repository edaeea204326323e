"""Arguments that several commands read: a project, a panel's judges, JSON objects; and what is wrong with options."""

from __future__ import annotations

import json
from typing import Any

import pydantic
from django.core.management.base import CommandError

from labeling.access.annotators import get_judge
from labeling.models import Annotator, Project


def project_of(slug: str) -> Project:
    """The project with this slug. Raises CommandError."""
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        raise CommandError(f"no project has the slug {slug!r}; check the address of its page")
    return project


def named_judge(project: Project, text: str) -> Annotator:
    """A judge of the project by id or name, or the judge of a plugin with options. Raises CommandError, UnknownPlugin."""
    judges = Annotator.objects.offered().filter(project=project)
    found = judges.filter(pk=int(text)) if text.isdigit() else judges.filter(name=text)
    if found.count() == 1:
        return found.get()
    plugin, colon, written = text.partition(":")
    return get_judge(project, plugin, json_object(written, f"--judges {plugin}") if colon else {})


def json_object(text: str, what: str) -> dict[str, Any]:
    """The JSON object of an argument. Raises CommandError."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{what}: {text[:200]!r} is not JSON ({error}); pass a JSON object") from error
    if not isinstance(values, dict):
        raise CommandError(f"{what}: {text[:200]!r} is not a JSON object")
    return values


def problem(error: Exception) -> str:
    """An error as a command says it: options that do not fit with their names, everything else as it is."""
    if not isinstance(error, pydantic.ValidationError):
        return str(error)
    return "; ".join(_wrong_option(each["type"], each["loc"], each["msg"]) for each in error.errors())


def _wrong_option(kind: str, place: tuple[int | str, ...], message: str) -> str:
    name = ".".join(map(str, place)) or "options"
    if kind == "extra_forbidden":
        return f"{name}: no option has this name"
    return f"{name}: {message.removeprefix('Value error, ')}"
