"""Creates projects: the one function behind page, REST and command line."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils.text import slugify

from labeling.models import Membership, Project, Role


class BadProject(ValueError):
    """A project was asked for with a name that cannot be used."""


def create_project(name: str, *, owner: Any = None, instruction: str = "") -> Project:
    """A new project with its own slug; `owner`, where given, becomes its first member."""
    name = name.strip()
    if not name or len(name) > 200 or "\x00" in name:
        raise BadProject(f"the name {name[:50]!r} cannot be used; expected 1 to 200 characters")
    with transaction.atomic():
        project = Project.objects.create(name=name, slug=_free_slug(name), instruction=instruction)
        if owner is not None:
            Membership.objects.create(project=project, user=owner, role=Role.OWNER)
    return project


def _free_slug(name: str) -> str:
    stem = slugify(name)[:70] or "project"
    taken = set(Project.objects.filter(slug__startswith=stem).values_list("slug", flat=True))
    if stem not in taken:
        return stem
    return next(slug for number in range(2, len(taken) + 3) if (slug := f"{stem}-{number}") not in taken)
