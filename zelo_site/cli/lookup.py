"""Looks up objects named on the command line; errors list the alternatives."""

from __future__ import annotations

from django.core.management.base import CommandError

from labeling.models import Annotator, Project, Query
from scoring.models import Snapshot
from workers.management.arguments import numbered_or_named
from workers.models import Run


def find_project(slug: str) -> Project:
    """Return the project with this slug. Raises CommandError with the existing slugs."""
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        known = ", ".join(Project.objects.values_list("slug", flat=True)[:20]) or "none"
        raise CommandError(f"no project has the slug {slug!r}; available: {known}")
    return project


def find_judge(project: Project, wanted: str) -> Annotator:
    """Return the judge of the project with this id or name."""
    judges = Annotator.objects.judges().filter(project=project)
    found = numbered_or_named(judges, wanted)
    if found.count() != 1:
        known = ", ".join(f"{judge.pk} ({judge.name})" for judge in judges) or "none"
        raise CommandError(f"{found.count()} judges match {wanted!r}; choose one of: {known}")
    return found.get()


def find_snapshot(project: Project, wanted: str | None) -> Snapshot:
    """Return the project's snapshot with this number or name (the newest of a name), or its latest one."""
    snapshots = Snapshot.objects.filter(projects=project)
    found = snapshots if wanted is None else numbered_or_named(snapshots, wanted)
    if (snapshot := found.first()) is None:
        known = ", ".join(f"{each.pk} ({each.name})" for each in snapshots) or "none"
        raise CommandError(
            f"project {project.slug!r} has no snapshot{f' {wanted!r}' if wanted else ''}; available: {known};"
            f" create one with manage.py snapshot {project.slug}"
        )
    return snapshot


def find_run(project: Project, number: int | None) -> Run:
    """Return the run with this id, or the project's last run."""
    runs = Run.objects.filter(project=project)
    run = runs.filter(pk=number).first() if number is not None else runs.first()
    if run is None:
        wanted = "no run yet" if number is None else f"no run {number}"
        raise CommandError(
            f"project {project.slug!r} has {wanted}; start one with `manage.py run --project {project.slug}`"
        )
    return run


def find_query(project: Project, external_id: str) -> Query:
    """Return the query with this external id."""
    query = Query.objects.filter(project=project, external_id=external_id).first()
    if query is None:
        raise CommandError(f"project {project.slug!r} has no query with the id {external_id!r}; check the id")
    return query
