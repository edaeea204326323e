"""All endpoints with their origin, state, judges, prices and limits: for the page, REST and the command of endpoints."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pydantic

from labeling.models import Annotator, Project
from workers.budgets.operator_limits import closed_endpoints
from workers.endpoints.limiter import EndpointView, endpoint_states
from workers.endpoints.registry import Endpoint, EndpointsInvalid, KeyMissing, load_endpoints
from workers.endpoints.stored.rows import endpoint_of
from workers.models import EndpointDefinition, EndpointState

ENVIRONMENT, STORED = "environment", "stored"
OK, UNUSED, NO_KEY, INVALID, RETIRED = "ok", "unused", "no_key", "invalid", "retired"


@dataclass(frozen=True, slots=True)
class JudgeUse:
    """A judge at an endpoint."""

    name: str
    project: str
    slug: str
    model: str


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """One endpoint for display; nothing in it is secret.

    `state`: ok, unused (never called), paused, open, half_open, no_key, invalid or retired; `wait_s`: seconds until the
    next call may be made. `is_shadowed`: ZELO_ENDPOINTS defines the same name, so this definition is not used.
    """

    name: str
    origin: str
    base_url: str
    state: str
    endpoint: Endpoint | None = None
    wait_s: float = 0.0
    problem: str = ""
    last_error: str = ""
    last_error_at: datetime | None = None
    has_key: bool = False
    key_ending: str = ""
    key_set_at: datetime | None = None
    secret_names: dict[str, list[str]] = field(default_factory=dict)
    retired_at: datetime | None = None
    is_shadowed: bool = False
    judges: Sequence[JudgeUse] = ()

    @property
    def is_stored(self) -> bool:
        return self.origin == STORED

    @property
    def may_be_chosen(self) -> bool:
        """Whether a new judge may use it."""
        return self.endpoint is not None and self.state not in {RETIRED, INVALID} and not self.is_shadowed


def list_endpoints(*, with_judges: bool = True) -> list[EndpointRow]:
    """All endpoints: those of ZELO_ENDPOINTS, then the stored ones, retired ones last. Raises EndpointsInvalid."""
    states = _states_by_name()
    judges = _judges_by_endpoint() if with_judges else {}
    defined = load_endpoints(os.environ)
    rows = [
        EndpointRow(
            name=name,
            origin=ENVIRONMENT,
            base_url=endpoint.base_url,
            endpoint=endpoint,
            has_key=bool(endpoint.api_key_env or endpoint.api_key_file),
            judges=judges.get(name, ()),
            **_state(endpoint, states.get(name, [])),
        )
        for name, endpoint in defined.items()
    ]
    stored = [
        _stored_row(row, states.get(row.name, []), judges.get(row.name, ()), is_shadowed=row.name in defined)
        for row in EndpointDefinition.objects.order_by("name")
    ]
    return [*rows, *sorted(stored, key=lambda row: row.state == RETIRED)]


def find_row(name: str) -> EndpointRow | None:
    """The endpoint of that name that is in use, or else the stored one; None if there is none. Raises EndpointsInvalid."""
    return next((row for row in list_endpoints() if row.name == name), None)


def choosable_endpoints(project: Project) -> list[EndpointRow]:
    """The endpoints that a new judge of the project may use; empty where ZELO_ENDPOINTS is not valid, which the doctor
    reports.
    """
    closed = closed_endpoints(project)
    try:
        return [row for row in list_endpoints(with_judges=False) if row.may_be_chosen and row.name not in closed]
    except EndpointsInvalid:
        return []


def _stored_row(
    row: EndpointDefinition, states: Sequence[EndpointView], judges: Sequence[JudgeUse], *, is_shadowed: bool
) -> EndpointRow:
    shared: dict[str, Any] = {
        "name": row.name, "origin": STORED, "base_url": row.base_url, "has_key": row.key_set_at is not None,
        "key_ending": row.key_ending, "key_set_at": row.key_set_at, "secret_names": row.secret_names,
        "retired_at": row.retired_at, "is_shadowed": is_shadowed, "judges": () if is_shadowed else judges,
    }  # fmt: skip
    try:
        endpoint = endpoint_of(row)
    except pydantic.ValidationError as error:
        return EndpointRow(**shared, state=INVALID, problem="; ".join(each["msg"] for each in error.errors()))
    found = _state(endpoint, states)
    if row.retired_at is not None:
        found["state"] = RETIRED
    return EndpointRow(**shared, endpoint=endpoint, **found)


def _state(endpoint: Endpoint, views: Sequence[EndpointView]) -> dict[str, Any]:
    """The state of the endpoint as it is defined now; rows of earlier keys and addresses do not count."""
    try:
        endpoint.api_key()
        mine = [view for view in views if view.identity == endpoint.channel(view.model).identity]
    except KeyMissing as error:
        return {"state": NO_KEY, "problem": str(error)}
    if not mine:
        return {"state": UNUSED}
    worst = max(mine, key=lambda view: (_SEVERITY[view.state], view.wait_s))
    last = max(mine, key=lambda view: view.last_error_at.timestamp() if view.last_error_at else 0.0)
    return {
        "state": OK if worst.state == EndpointState.Mode.CLOSED else worst.state,
        "wait_s": worst.wait_s,
        "last_error": last.last_error,
        "last_error_at": last.last_error_at,
    }


_SEVERITY: dict[str, int] = {
    EndpointState.Mode.CLOSED: 0,
    EndpointState.Mode.PAUSED: 1,
    EndpointState.Mode.HALF_OPEN: 2,
    EndpointState.Mode.OPEN: 3,
}


def _states_by_name() -> dict[str, list[EndpointView]]:
    found = defaultdict(list)
    for view in endpoint_states():
        found[view.name].append(view)
    return found


def _judges_by_endpoint() -> dict[str, list[JudgeUse]]:
    found = defaultdict(list)
    judges = Annotator.objects.judges().filter(options__has_key="endpoint").select_related("project").order_by("pk")
    for judge in judges:
        model = judge.options.get("model")
        use = JudgeUse(judge.name, judge.project.name, judge.project.slug, model if isinstance(model, str) else "")
        found[str(judge.options["endpoint"])].append(use)
    return found
