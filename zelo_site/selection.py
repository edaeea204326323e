"""Finds what a command names on its command line, or says what there is instead."""

from __future__ import annotations

from django.core.management.base import CommandError

from labeling.models import Project, Query
from workers.models import Run


def find_project(slug: str) -> Project:
    """The project of that slug; CommandError lists the slugs there are."""
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        known = ", ".join(Project.objects.values_list("slug", flat=True)[:20]) or "none"
        raise CommandError(f"no project has the slug {slug!r}; available: {known}")
    return project


def find_run(project: Project, number: int | None) -> Run:
    """The run of that number, or the project's last one."""
    runs = Run.objects.filter(project=project)
    run = runs.filter(pk=number).first() if number is not None else runs.first()
    if run is None:
        wanted = "no run yet" if number is None else f"no run {number}"
        raise CommandError(
            f"project {project.slug!r} has {wanted}; start one with `manage.py run --project {project.slug}`"
        )
    return run


def find_query(project: Project, external_id: str) -> Query:
    """The query of that external id."""
    query = Query.objects.filter(project=project, external_id=external_id).first()
    if query is None:
        raise CommandError(f"project {project.slug!r} has no query with the id {external_id!r}; check the id")
    return query
