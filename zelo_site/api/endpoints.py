"""REST of endpoints, for superusers: list, add, change, test, retire and bring back. A key is accepted, never returned."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from django.http import HttpRequest
from ninja import Router, Schema, Status
from ninja.errors import HttpError
from pydantic import Field, SecretStr

from workers.endpoints.registry import EndpointsInvalid
from workers.endpoints.stored.changes import (
    EndpointRefused,
    add_endpoint,
    change_endpoint,
    record_test,
    restore_endpoint,
    retire_endpoint,
)
from workers.endpoints.stored.encryption import EncryptionUnavailable
from workers.judges.openai.http.connection_test import Step, try_endpoint
from workers.monitoring.endpoint_list import EndpointRow, find_row, list_endpoints
from zelo_site.api.projects import Text

router = Router(tags=["endpoints"])
HIDDEN = {"name", "base_url", "api_key_env", "api_key_file", "headers", "query", "problem"}


class EndpointJudgeOut(Schema):
    name: str
    project: str
    slug: str
    model: str


class EndpointOut(Schema):
    """`origin`: environment (read-only) or stored. `settings`: prices and limits. Headers and query by their names."""

    name: str
    origin: str
    base_url: str
    state: str
    wait_s: float
    problem: str
    last_error: str
    has_key: bool
    key_ending: str
    key_set_at: datetime | None
    secret_names: dict[str, list[str]]
    retired_at: datetime | None
    is_shadowed: bool
    settings: dict[str, Any]
    judges: list[EndpointJudgeOut]


class EndpointIn(Schema):
    """A new endpoint. `settings`: as in ZELO_ENDPOINTS, without variables and files."""

    name: Text = Field(min_length=1, max_length=80)
    base_url: Text = Field(max_length=2000)
    key: SecretStr = Field(SecretStr(""), max_length=4096)
    settings: dict[str, Any] = {}


class EndpointChangeIn(Schema):
    """The fields to change; omitted fields stay as they are. `key`: a new one, or "" to remove it."""

    base_url: Text | None = Field(None, max_length=2000)
    key: SecretStr | None = Field(None, max_length=4096)
    settings: dict[str, Any] = {}


class EndpointTestIn(Schema):
    model: Text = Field("", max_length=200)


class StepOut(Schema):
    """One call. `message` says why it failed and what to do, `reason` is a kind of failure as of unanswered questions."""

    passed: bool
    seconds: float
    reply: str
    reason: str
    message: str


class EndpointTestOut(Schema):
    """`chat` is null without a model."""

    passed: bool
    models: list[str]
    listing: StepOut | None
    chat: StepOut | None


@router.get("/endpoints", response=list[EndpointOut])
def get_endpoints(request: HttpRequest) -> Any:
    """All endpoints with origin, state, judges, prices and limits."""
    _check_superuser(request)
    try:
        return [_shown(row) for row in list_endpoints()]
    except EndpointsInvalid as error:
        raise HttpError(409, str(error)) from error


@router.post("/endpoints", response={201: EndpointOut})
def post_endpoint(request: HttpRequest, body: EndpointIn) -> Any:
    """Store an endpoint; all workers can use it within seconds."""
    _check_superuser(request)
    values = {**body.settings, "base_url": body.base_url}
    with _refusals():
        add_endpoint(body.name, values, key=body.key.get_secret_value(), by=request.user)
    return Status(201, _shown(_row_or_404(body.name)))


@router.patch("/endpoints/{name}", response=EndpointOut)
def patch_endpoint(request: HttpRequest, name: str, body: EndpointChangeIn) -> Any:
    """Change a stored endpoint. A new host needs the key again."""
    _check_superuser(request)
    _row_or_404(name)
    values = {**body.settings, **({} if body.base_url is None else {"base_url": body.base_url})}
    with _refusals():
        key = None if body.key is None else body.key.get_secret_value()
        change_endpoint(name, values, key=key, by=request.user)
    return _shown(_row_or_404(name))


@router.post("/endpoints/{name}/test", response=EndpointTestOut)
def post_test(request: HttpRequest, name: str, body: EndpointTestIn) -> Any:
    """Read the list of models, and send `model` a short question; the provider may charge for it."""
    _check_superuser(request)
    row = _row_or_404(name)
    if row.endpoint is None:
        raise HttpError(409, f"endpoint {name!r} is not valid: {row.problem}; change it first")
    result = try_endpoint(row.endpoint, model=body.model)
    record_test(name, passed=result.passed, summary=result.summary, by=request.user)
    return {
        "passed": result.passed,
        "models": result.models,
        "listing": _step(result.listing),
        "chat": _step(result.chat),
    }


@router.post("/endpoints/{name}/retire", response=EndpointOut)
def post_retire(request: HttpRequest, name: str) -> Any:
    """Retire an endpoint: new runs cannot use it. Refused while a run uses it."""
    _check_superuser(request)
    _row_or_404(name)
    with _refusals():
        retire_endpoint(name, by=request.user)
    return _shown(_row_or_404(name))


@router.post("/endpoints/{name}/restore", response=EndpointOut)
def post_restore(request: HttpRequest, name: str) -> Any:
    """Bring a retired endpoint back."""
    _check_superuser(request)
    _row_or_404(name)
    with _refusals():
        restore_endpoint(name, by=request.user)
    return _shown(_row_or_404(name))


def _check_superuser(request: HttpRequest) -> None:
    if not getattr(request.user, "is_superuser", False):
        raise HttpError(403, "only superusers can see and change endpoints; ask a superuser")


def _row_or_404(name: str) -> EndpointRow:
    try:
        row = find_row(name)
    except EndpointsInvalid as error:
        raise HttpError(409, str(error)) from error
    if row is None:
        raise HttpError(404, f"no endpoint is named {name!r}; GET /api/v1/endpoints lists them")
    return row


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except EndpointRefused as error:
        raise HttpError(422, f"{error.field}: {error}" if error.field else str(error)) from error
    except EncryptionUnavailable as error:
        raise HttpError(503, str(error)) from error


def _shown(row: EndpointRow) -> dict[str, Any]:
    settings = {} if row.endpoint is None else row.endpoint.model_dump(mode="json", exclude=HIDDEN)
    return {name: getattr(row, name) for name in EndpointOut.model_fields if name != "settings"} | {
        "settings": settings
    }


def _step(step: Step | None) -> dict[str, Any] | None:
    if step is None:
        return None
    reason = "" if step.kind is None else step.kind.value
    return {
        "passed": step.passed, "seconds": step.seconds, "reply": step.reply, "reason": reason,
        "message": step.message,
    }  # fmt: skip
