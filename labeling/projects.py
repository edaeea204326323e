"""Creates and changes projects and excludes queries from further work, for pages, REST and the command line.

The signal `labeling.signals.rater_changed` reports another rater, so that `scoring` refits the project.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic
from django.db import transaction
from django.db.models import OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce, Now
from django.utils.text import slugify

from labeling import audit
from labeling.annotation.criteria import checked_rubric
from labeling.models import Membership, Project, ProjectCount, Query, Role
from labeling.plugins import UnknownPlugin, get_plugin, problem_of
from labeling.signals import rater_changed


class BadProject(ValueError):
    """A project has an invalid name, text or rater."""


def may_create(user: Any) -> bool:
    """Return whether `user` may create projects: staff and owners may, invited annotators may not."""
    if getattr(user, "is_staff", False) or getattr(user, "is_superuser", False):
        return True
    return Membership.objects.filter(user_id=user.pk or 0, role=Role.OWNER).exists()


def create_project(name: str, *, owner: Any = None, instruction: str = "", by: Any = None) -> Project:
    """A new project with its own slug; `owner`, where given, becomes its first member."""
    name = _checked_name(name)
    _check_storable(instruction, "the instruction")
    with transaction.atomic():
        project = Project.objects.create(name=name, slug=_free_slug(name), instruction=instruction)
        if owner is not None:
            Membership.objects.create(project=project, user=owner, role=Role.OWNER)
        audit.note("project.created", project=project, actor=by, subject=project.slug)
    return project


def change_project(
    project: Project,
    *,
    name: str | None = None,
    instruction: str | None = None,
    rubric: Sequence[Mapping[str, Any]] | None = None,
    rater: str | None = None,
    rater_options: Mapping[str, Any] | None = None,
    by: Any = None,
) -> Project:
    """Change the given values; another rater without options starts from its defaults.

    `rubric`: the criteria of judges that set none of their own. With another one such a judge becomes another annotator in
    the next run; the answers of the old one stay.
    A change of rater or options makes all queries stale and triggers a new choice of the prior. Raises BadProject.
    """
    values: dict[str, Any] = {}
    if name is not None:
        values["name"] = _checked_name(name)
    if instruction is not None:
        _check_storable(instruction, "the instruction")
        values["instruction"] = instruction
    if rubric is not None:
        values["rubric"] = _checked_rubric(rubric)
    with transaction.atomic():
        project = Project.objects.select_for_update(of=("self",)).get(pk=project.pk)
        before = project.rater, project.rater_options
        if rater is not None or rater_options is not None:
            chosen = project.rater if rater is None else rater
            given = {} if rater_options is None and chosen != project.rater else rater_options
            values["rater"] = chosen
            values["rater_options"] = _checked_options(chosen, project.rater_options if given is None else given)
        old = {field: getattr(project, field) for field in values}
        for field, value in values.items():
            setattr(project, field, value)
        if values:
            project.save(update_fields=list(values))
        is_other_rater = "rater" in values and not _is_same(before, project)
        if not is_other_rater:
            values = {name: value for name, value in values.items() if name not in {"rater", "rater_options"}}
        if changed := audit.changes(old, values):
            audit.note("project.changed", project=project, actor=by, subject=project.slug, **changed)
        if is_other_rater:
            rater_changed.send(sender=Project, project_id=project.pk, rater=project.rater)
    return project


def with_counts(projects: QuerySet[Project]) -> QuerySet[Project]:
    """The projects with `query_count`, `document_count` and `candidate_count`, from running totals."""
    rows = ProjectCount.objects.filter(project=OuterRef("pk")).order_by().values("project")

    def total(column: str) -> Coalesce:
        return Coalesce(Subquery(rows.annotate(total=Sum(column)).values("total")), 0)

    return projects.annotate(
        query_count=total("queries"), document_count=total("documents"), candidate_count=total("candidates")
    )


def _checked_rubric(rubric: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    try:
        criteria = checked_rubric(rubric)
    except ValueError as error:
        raise BadProject(str(error)) from error
    for each in criteria:
        _check_storable(each["description"], f"the description of the criterion {each['name']!r}")
    return criteria


def _is_same(before: tuple[str, Any], project: Project) -> bool:
    """Whether the rater and its options are unchanged; a missing option equals its default."""
    rater, options = before
    if rater != project.rater:
        return False
    try:
        return _checked_options(rater, options) == project.rater_options
    except BadProject:
        return False


def _checked_name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > 200:
        raise BadProject(f"the name {name[:50]!r} cannot be used; expected 1 to 200 characters")
    _check_storable(name, "the name")
    return name


def _check_storable(text: str, what: str) -> None:
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise BadProject(f"{what} contains NUL or a lone surrogate, which cannot be stored; remove it")


def _checked_options(rater: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of the rater, validated, with defaults."""
    try:
        plugin = get_plugin("rater", rater)
        values = plugin.from_dict(dict(options)).options.model_dump(mode="json")
    except UnknownPlugin as error:
        raise BadProject(str(error)) from error
    except pydantic.ValidationError as error:
        raise BadProject(f"options of the rater {rater!r} cannot be used: {problem_of(error)}") from error
    _check_storable(json.dumps(values, ensure_ascii=False).replace("\\u0000", "\x00"), "an option of the rater")
    return values


def _free_slug(name: str) -> str:
    stem = slugify(name)[:70] or "project"
    taken = set(Project.with_archived.filter(slug__startswith=stem).values_list("slug", flat=True))
    if stem not in taken:
        return stem
    return next(slug for number in range(2, len(taken) + 3) if (slug := f"{stem}-{number}") not in taken)


# --- excluded queries ---------------------------------------------------------------------


def exclude_queries(project: Project, query_ids: Sequence[int], *, by: Any = None) -> int:
    """Leave these queries of the project out of runs, spot checks and snapshots; return how many were included before."""
    return _set(project, query_ids, is_excluded=True, by=by)


def include_queries(project: Project, query_ids: Sequence[int], *, by: Any = None) -> int:
    """Let these queries of the project take part again; return how many were excluded before."""
    return _set(project, query_ids, is_excluded=False, by=by)


@transaction.atomic
def _set(project: Project, query_ids: Sequence[int], *, is_excluded: bool, by: Any) -> int:
    rows = Query.objects.filter(project=project, pk__in=list(query_ids), excluded_at__isnull=is_excluded)
    names = list(rows.order_by("id").values_list("external_id", flat=True)[:1])
    changed = rows.update(excluded_at=Now() if is_excluded else None)
    if changed:
        subject = names[0] + (f" +{changed - 1}" if changed > 1 else "")
        action = "query.excluded" if is_excluded else "query.included"
        audit.note(action, project=project, actor=by, subject=subject, queries=changed)
    return changed
