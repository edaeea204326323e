"""REST of webhooks, for owners: list, add, change, delete, test, replace the secret, and what was sent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal

from django.http import HttpRequest, HttpResponse
from ninja import Router, Schema, Status
from ninja.errors import HttpError
from pydantic import Field

from labeling.access.api_auth import owned_project_or_404
from labeling.models import Project
from workers.endpoints.stored.encryption import EncryptionUnavailable
from workers.models import Webhook, WebhookDelivery
from workers.webhooks.changes import (
    NewSecret,
    WebhookRefused,
    add_webhook,
    change_webhook,
    delete_webhook,
    replace_secret,
    send_again,
    send_test,
)
from zelo_site.api.conventions.paging import Cursor, Limit, Number, paged
from zelo_site.api.projects import Text

router = Router(tags=["webhooks"])
Event = Literal["run.finished", "training.finished", "evaluation.finished"]
DeliveryState = Literal["open", "leased", "delivered", "failed"]


class WebhookIn(Schema):
    """`url`: at a host that the operator lists in ZELO_WEBHOOK_HOSTS."""

    url: Text = Field(max_length=2000, examples=["https://hooks.example.org/zelo"])
    events: list[Event] = Field(min_length=1, max_length=3)


class WebhookPatch(Schema):
    """Omitted fields stay as they are."""

    url: Text | None = Field(None, max_length=2000)
    events: list[Event] | None = Field(None, min_length=1, max_length=3)
    is_active: bool | None = None


class WebhookOut(Schema):
    id: int
    url: str
    events: list[Event]
    is_active: bool
    created_at: datetime


class SecretOut(WebhookOut):
    """`secret` is shown only once; docs/webhooks.md says how a receiver checks signatures."""

    secret: str


class DeliveryOut(Schema):
    """One message. `status`: the last HTTP status, null without an answer; `message`: why the last attempt failed."""

    id: int
    event: str
    subject_id: int
    outcome: str
    state: DeliveryState
    attempts: int
    status: int | None
    message: str
    next_at: datetime
    created_at: datetime
    finished_at: datetime | None


@router.get("/projects/{slug}/webhooks", response=list[WebhookOut])
def list_webhooks(
    request: HttpRequest, response: HttpResponse, slug: str, cursor: Cursor = "", limit: Limit = 100
) -> Any:
    """The project's webhooks, without their secrets."""
    rows = Webhook.objects.filter(project=owned_project_or_404(request, slug))
    return paged(request, response, rows, cursor=cursor, limit=limit)


@router.post("/projects/{slug}/webhooks", response={201: SecretOut})
def post_webhook(request: HttpRequest, slug: str, body: WebhookIn) -> Any:
    """Add a webhook; the answer holds its secret, once."""
    project = owned_project_or_404(request, slug)
    with _refusals():
        return Status(201, _with_secret(add_webhook(project, body.url, list(body.events), by=request.user)))


@router.get("/projects/{slug}/webhooks/{webhook_id}", response=WebhookOut)
def get_webhook(request: HttpRequest, slug: str, webhook_id: Number) -> Any:
    """One webhook."""
    return _webhook_or_404(owned_project_or_404(request, slug), webhook_id)


@router.patch("/projects/{slug}/webhooks/{webhook_id}", response=WebhookOut)
def patch_webhook(request: HttpRequest, slug: str, webhook_id: Number, body: WebhookPatch) -> Any:
    """Change address or events, or switch the webhook off or on."""
    webhook = _webhook_or_404(owned_project_or_404(request, slug), webhook_id)
    with _refusals():
        return change_webhook(webhook, **body.dict(exclude_unset=True), by=request.user)


@router.delete("/projects/{slug}/webhooks/{webhook_id}", response={204: None})
def delete_one(request: HttpRequest, slug: str, webhook_id: Number) -> Any:
    """Delete a webhook with its deliveries."""
    delete_webhook(_webhook_or_404(owned_project_or_404(request, slug), webhook_id), by=request.user)
    return Status(204, None)


@router.post("/projects/{slug}/webhooks/{webhook_id}/secret", response=SecretOut)
def post_secret(request: HttpRequest, slug: str, webhook_id: Number) -> Any:
    """Replace the secret; the answer holds the new one, once."""
    webhook = _webhook_or_404(owned_project_or_404(request, slug), webhook_id)
    with _refusals():
        return _with_secret(replace_secret(webhook, by=request.user))


@router.post("/projects/{slug}/webhooks/{webhook_id}/test", response={202: DeliveryOut})
def post_test(request: HttpRequest, slug: str, webhook_id: Number) -> Any:
    """Send a test message; GET .../deliveries shows the result."""
    webhook = _webhook_or_404(owned_project_or_404(request, slug), webhook_id)
    try:
        return Status(202, send_test(webhook, by=request.user))
    except WebhookRefused as error:
        raise HttpError(409, str(error)) from error


@router.get("/projects/{slug}/webhooks/{webhook_id}/deliveries", response=list[DeliveryOut])
def list_deliveries(
    request: HttpRequest, response: HttpResponse, slug: str, webhook_id: Number,
    state: DeliveryState | None = None, cursor: Cursor = "", limit: Limit = 100,
) -> Any:  # fmt: skip
    """The deliveries of a webhook in the last 30 days, newest first."""
    rows = WebhookDelivery.objects.filter(webhook=_webhook_or_404(owned_project_or_404(request, slug), webhook_id))
    rows = rows if state is None else rows.filter(state=state)
    return paged(request, response, rows, cursor=cursor, limit=limit, newest=True)


@router.post("/projects/{slug}/webhooks/{webhook_id}/deliveries/{delivery_id}/send", response={202: DeliveryOut})
def post_delivery(request: HttpRequest, slug: str, webhook_id: Number, delivery_id: Number) -> Any:
    """Send a failed or waiting message again now."""
    webhook = _webhook_or_404(owned_project_or_404(request, slug), webhook_id)
    delivery = webhook.deliveries.filter(pk=delivery_id).first()
    if delivery is None:
        raise HttpError(404, f"webhook {webhook_id} has no delivery {delivery_id}; GET .../deliveries lists them")
    try:
        return Status(202, send_again(delivery, by=request.user))
    except WebhookRefused as error:
        raise HttpError(409, str(error)) from error


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except WebhookRefused as error:
        raise HttpError(422, str(error)) from error
    except EncryptionUnavailable as error:
        raise HttpError(503, str(error)) from error


def _webhook_or_404(project: Project, webhook_id: int) -> Webhook:
    found = Webhook.objects.filter(project=project, pk=webhook_id).select_related("project").first()
    if found is None:
        raise HttpError(404, f"project {project.slug!r} has no webhook {webhook_id}; GET .../webhooks lists them")
    return found


def _with_secret(made: NewSecret) -> dict[str, Any]:
    made.webhook.refresh_from_db()
    return {name: getattr(made.webhook, name) for name in WebhookOut.model_fields} | {"secret": made.secret}
