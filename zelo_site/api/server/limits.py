"""REST of the operator's limits, for superusers: what endpoints may cost, and which projects may use them."""

from __future__ import annotations

from typing import Any, Literal

from django.http import HttpRequest
from ninja import Router, Schema, Status
from ninja.errors import HttpError
from pydantic import Field

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
from zelo_site.api.projects import Text

router = Router(tags=["endpoints"])


class LimitIn(Schema):
    """`endpoint`, `project` (a slug): "" stands for all together. At least one of the three numbers is needed."""

    endpoint: Text = Field("", max_length=80)
    project: Text = Field("", max_length=80)
    period: Literal["day", "total"] = "day"
    calls: int | None = Field(None, ge=1, lt=2**63)
    tokens: int | None = Field(None, ge=1, lt=2**63)
    cost_micros: int | None = Field(None, ge=1, lt=2**63)


class LimitOut(Schema):
    """A limit and what counts towards it: since midnight UTC for a day. Money in millionths of a dollar."""

    id: int
    endpoint: str
    project: str
    period: str
    calls: int | None
    tokens: int | None
    cost_micros: int | None
    spent_calls: int
    spent_tokens: int
    spent_cost_micros: int


class AllowedIn(Schema):
    """The slugs of the projects that may use the endpoint; null: all projects."""

    projects: list[Text] | None = Field(..., max_length=1000)


class AllowedOut(Schema):
    endpoint: str
    projects: list[str] | None


@router.get("/limits", response=list[LimitOut])
def get_limits(request: HttpRequest) -> Any:
    """All limits of the operator."""
    _check_superuser(request)
    return [_shown(each) for each in list_limits()]


@router.put("/limits", response=LimitOut)
def put_limit(request: HttpRequest, body: LimitIn) -> Any:
    """Set a limit in place of the one with the same endpoint, project and period."""
    _check_superuser(request)
    values = body.model_dump()
    project = _project(values.pop("project")) if body.project else values.pop("project") or None
    try:
        made = set_limit(**values, project=project, by=request.user)
    except (LimitRefused, BadBudget) as error:
        raise HttpError(422, str(error)) from error
    return next(_shown(each) for each in list_limits() if each.limit.pk == made.pk)


@router.delete("/limits/{limit_id}", response={204: None})
def delete_limit(request: HttpRequest, limit_id: int) -> Any:
    """Remove a limit."""
    _check_superuser(request)
    if not (0 < limit_id < 2**63 and remove_limit(limit_id, by=request.user)):
        raise HttpError(404, f"no limit has the number {limit_id}; GET /api/v1/limits lists them")
    return Status(204, None)


@router.get("/endpoints/{name}/projects", response=AllowedOut)
def get_allowed(request: HttpRequest, name: str) -> Any:
    """The projects that may use an endpoint."""
    _check_superuser(request)
    return {"endpoint": name, "projects": None if "\x00" in name else allowed_projects(name)}


@router.put("/endpoints/{name}/projects", response=AllowedOut)
def put_allowed(request: HttpRequest, name: str, body: AllowedIn) -> Any:
    """Allow only these projects, or all, to use an endpoint."""
    _check_superuser(request)
    try:
        allow_projects(name, None if body.projects is None else list(map(_project, body.projects)), by=request.user)
    except LimitRefused as error:
        raise HttpError(422, str(error)) from error
    return {"endpoint": name, "projects": allowed_projects(name)}


def _check_superuser(request: HttpRequest) -> None:
    if not getattr(request.user, "is_superuser", False):
        raise HttpError(403, "only superusers can see and change the operator's limits; ask a superuser")


def _project(slug: str) -> Project:
    found = Project.objects.filter(slug=slug).first()
    if found is None:
        raise HttpError(422, f"there is no project {slug!r}; GET /api/v1/projects lists them")
    return found


def _shown(row: LimitWithSpend) -> dict[str, Any]:
    limit = row.limit
    return {
        **{name: getattr(limit, name) for name in ("id", "endpoint", "period", "calls", "tokens", "cost_micros")},
        "project": limit.project.slug if limit.project else "",
        "spent_calls": row.calls, "spent_tokens": row.tokens, "spent_cost_micros": row.cost_micros,
    }  # fmt: skip
