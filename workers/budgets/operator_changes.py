"""Changes the operator's limits, and which projects may use an endpoint. Page, REST and command call these.

Only superusers may; the callers check that. `workers.budgets.operator_limits` says what the limits mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from labeling import audit
from labeling.models import Project
from workers.budgets.changes import go_on
from workers.budgets.limits import Budgets
from workers.budgets.operator_limits import OperatorRule, spend_of_rule
from workers.models import EndpointRestriction, OperatorLimit, Run

FIELDS = ("calls", "tokens", "cost_micros")


class LimitRefused(ValueError):
    """The limit has an unknown period, or limits nothing."""


@dataclass(frozen=True, slots=True)
class LimitWithSpend:
    """A limit and what counts towards it; calls in flight count as calls."""

    limit: OperatorLimit
    calls: int
    tokens: int
    cost_micros: int


def list_limits() -> list[LimitWithSpend]:
    """All limits, by endpoint, project and period."""
    found = []
    for limit in OperatorLimit.objects.select_related("project"):
        rule = OperatorRule(limit.endpoint, limit.project_id, limit.period, None, None, None)
        spent = spend_of_rule(rule).values()
        calls = sum(each.calls - each.unreached for each in spent)
        totals = sum(each.tokens for each in spent), sum(each.cost_micros for each in spent)
        found.append(LimitWithSpend(limit, calls, *totals))
    return found


def set_limit(
    *,
    endpoint: str = "",
    project: Project | None = None,
    period: str = OperatorLimit.Period.DAY,
    calls: int | None = None,
    tokens: int | None = None,
    cost_micros: int | None = None,
    by: Any = None,
) -> OperatorLimit:
    """Store a limit in place of the one with the same endpoint, project and period. Raises LimitRefused or BadBudget.

    Runs that had ended because of the earlier one continue where they stopped.
    """
    if period not in OperatorLimit.Period.values:
        raise LimitRefused(f"the period is {period[:40]!r}; expected {' or '.join(OperatorLimit.Period.values)}")
    values = {"calls": calls, "tokens": tokens, "cost_micros": cost_micros}
    if all(value is None for value in values.values()):
        raise LimitRefused("the limit limits nothing; give calls, tokens or money, or remove it")
    endpoint = _checked_endpoint(endpoint)
    Budgets(None, *values.values()).check()
    with transaction.atomic():
        found = OperatorLimit.objects.select_for_update(of=("self",))
        limit = found.filter(endpoint=endpoint, project=project, period=period).first()
        before = {name: getattr(limit, name, None) for name in FIELDS}
        if limit is None:
            limit = OperatorLimit(endpoint=endpoint, project=project, period=period)
        for name, value in values.items():
            setattr(limit, name, value)
        limit.save()
        if before != values:
            _note("limit.set", limit, by, **_changes(before, values))
            _go_on(project)
    return limit


def remove_limit(limit_id: int, *, by: Any = None) -> bool:
    """Delete a limit; whether there was one. Runs that had ended because of it continue."""
    with transaction.atomic():
        limit = OperatorLimit.objects.select_for_update(of=("self",)).filter(pk=limit_id).first()
        if limit is None:
            return False
        _note("limit.removed", limit, by)
        limit.delete()
        _go_on(limit.project)
    return True


def allow_projects(endpoint: str, projects: Sequence[Project] | None, *, by: Any = None) -> None:
    """Let only these projects use an endpoint; None: all projects, also later ones. Raises LimitRefused."""
    endpoint = _checked_endpoint(endpoint)
    if not endpoint:
        raise LimitRefused("no endpoint is named; name one")
    with transaction.atomic():
        before = allowed_projects(endpoint)
        slugs = None if projects is None else sorted(project.slug for project in projects)
        if projects is None:
            EndpointRestriction.objects.filter(endpoint=endpoint).delete()
        else:
            EndpointRestriction.objects.get_or_create(endpoint=endpoint)[0].projects.set(projects)
        if before != slugs:
            shown = {"projects": f"{_said(before)} → {_said(slugs)}"}
            audit.note("endpoint.projects", project=None, actor=by, subject=endpoint, **shown)
            _go_on(None)


def allowed_projects(endpoint: str) -> list[str] | None:
    """The slugs of the projects that may use an endpoint; None: all."""
    found = EndpointRestriction.objects.filter(endpoint=endpoint).first()
    return None if found is None else sorted(found.projects.values_list("slug", flat=True))


def _checked_endpoint(name: str) -> str:
    if "\x00" in name or len(name) > 80:
        raise LimitRefused(f"{name[:40]!r} is not the name of an endpoint; GET /api/v1/endpoints lists them")
    return name.strip()


def _go_on(project: Project | None) -> None:
    """Resume the spent runs of the project, or of all projects, that may ask again."""
    runs = Run.objects.filter(is_spent=True, state=Run.State.FINISHED).order_by("id")
    for run in runs if project is None else runs.filter(project=project):
        go_on(run)


def _note(action: str, limit: OperatorLimit, by: Any, **details: Any) -> None:
    where = {"project_limited": limit.project.slug} if limit.project is not None else {}
    subject = limit.endpoint or "all endpoints"
    audit.note(action, project=None, actor=by, subject=subject, period=str(limit.period), **where, **details)


def _changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    names = [name for name in FIELDS if before[name] != after[name]]
    return {name: f"{_number(before[name])} → {_number(after[name])}" for name in names}


def _number(value: int | None) -> str:
    return "no limit" if value is None else f"{value:,}"


def _said(slugs: list[str] | None) -> str:
    return "all projects" if slugs is None else ", ".join(slugs)[:500] or "none"
