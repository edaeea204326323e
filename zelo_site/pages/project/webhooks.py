"""Webhooks, for owners: list, add, change, test, replace the secret, delete, and what was sent.

`workers.webhooks.changes` makes the changes, as for REST. A secret is shown in one response only.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.core.paginator import Paginator
from django.db.models import Max, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from labeling.models import Project
from workers.endpoints.stored.encryption import EncryptionUnavailable
from workers.models import Webhook, WebhookDelivery
from workers.webhooks.changes import (
    WebhookRefused,
    add_webhook,
    change_webhook,
    delete_webhook,
    replace_secret,
    send_again,
    send_test,
)
from zelo_site.pages.forms import BadForm, PageForm
from zelo_site.pages.scope import owned_project

PAGE = 25
EVENT_LABELS = {
    "run.finished": gettext_lazy("run finished"),
    "training.finished": gettext_lazy("training finished"),
    "evaluation.finished": gettext_lazy("evaluation finished"),
    WebhookDelivery.TEST: gettext_lazy("test message"),
}
STATE_LABELS = {
    "open": gettext_lazy("waiting"),
    "leased": gettext_lazy("being sent"),
    "delivered": gettext_lazy("delivered"),
    "failed": gettext_lazy("failed"),
}


class WebhookForm(PageForm):
    """An address and its events."""

    url = forms.CharField(label=gettext_lazy("Address"), max_length=2000)
    events = forms.MultipleChoiceField(
        label=gettext_lazy("Events"),
        choices=[(event, EVENT_LABELS[event]) for event in Webhook.Event.values],
        initial=list(Webhook.Event.values),
        error_messages={"required": gettext_lazy("Choose at least one event.")},
    )
    is_active = forms.BooleanField(label=gettext_lazy("Active"), required=False)


@never_cache
def webhooks_page(request: HttpRequest, slug: str) -> HttpResponse:
    """Show the webhooks; a POST adds one and shows its secret."""
    project = owned_project(request, slug)
    if request.method != "POST":
        return _list_page(request, project, WebhookForm())
    form = WebhookForm(request.POST)
    try:
        values = form.checked()
        made = add_webhook(project, values["url"], values["events"], by=request.user)
    except (BadForm, WebhookRefused, EncryptionUnavailable) as error:
        _refuse(form, error)
        return _list_page(request, project, form, status=422)
    return _one_page(request, made.webhook, secret=made.secret, status=201)


@never_cache
def webhook_page(request: HttpRequest, slug: str, webhook_id: int) -> HttpResponse:
    """Show one webhook and its deliveries; a POST changes it."""
    webhook = _webhook_or_404(owned_project(request, slug), webhook_id)
    if request.method != "POST":
        return _one_page(request, webhook)
    form = WebhookForm(request.POST)
    try:
        values = form.checked()
        change_webhook(webhook, **values, by=request.user)
    except (BadForm, WebhookRefused) as error:
        _refuse(form, error)
        return _one_page(request, webhook, form=form, status=422)
    messages.success(request, _("Saved."))
    return redirect("webhook", slug=slug, webhook_id=webhook_id)


@never_cache
@require_POST
def move_webhook(request: HttpRequest, slug: str, webhook_id: int, move: str) -> HttpResponse:
    """Send a test message, replace the secret, or delete the webhook."""
    webhook = _webhook_or_404(owned_project(request, slug), webhook_id)
    try:
        if move == "test":
            send_test(webhook, by=request.user)
            messages.success(request, _("Test message queued. Its delivery is in the list below."))
        elif move == "secret":
            return _one_page(request, webhook, secret=replace_secret(webhook, by=request.user).secret)
        elif move == "delete":
            delete_webhook(webhook, by=request.user)
            messages.success(request, _("Webhook deleted."))
            return redirect("webhooks", slug=slug)
        else:
            raise Http404
    except (WebhookRefused, EncryptionUnavailable) as error:
        messages.error(request, str(error))
    return redirect("webhook", slug=slug, webhook_id=webhook_id)


@never_cache
@require_POST
def send_delivery(request: HttpRequest, slug: str, webhook_id: int, delivery_id: int) -> HttpResponse:
    """Send a failed or waiting message again now."""
    webhook = _webhook_or_404(owned_project(request, slug), webhook_id)
    try:
        send_again(get_object_or_404(webhook.deliveries, pk=delivery_id), by=request.user)
        messages.success(request, _("The message is sent again."))
    except WebhookRefused as error:
        messages.error(request, str(error))
    return redirect("webhook", slug=slug, webhook_id=webhook_id)


def _webhook_or_404(project: Project, webhook_id: int) -> Webhook:
    return get_object_or_404(Webhook.objects.select_related("project"), project=project, pk=webhook_id)


def _refuse(form: WebhookForm, error: Exception) -> None:
    """Show the refusal at the address, where the form has no error of its own."""
    if not isinstance(error, BadForm):
        form.add_error("url", str(error))


def _list_page(request: HttpRequest, project: Project, form: WebhookForm, *, status: int = 200) -> HttpResponse:
    delivered = Q(deliveries__state=WebhookDelivery.State.DELIVERED)
    rows = Webhook.objects.filter(project=project).annotate(
        last=Max("deliveries__finished_at", filter=delivered),
        failed=Max("deliveries__created_at", filter=Q(deliveries__state=WebhookDelivery.State.FAILED)),
    )
    shown = [(row, [EVENT_LABELS[event] for event in row.events]) for row in rows.order_by("id")]
    context = {"project": project, "rows": shown, "form": form, "hosts": settings.ZELO_WEBHOOK_HOSTS, "here": "project"}
    return render(request, "zelo/webhooks/webhooks.html", context, status=status)


def _one_page(
    request: HttpRequest, webhook: Webhook, *, form: WebhookForm | None = None, secret: str = "", status: int = 200
) -> HttpResponse:
    page = Paginator(webhook.deliveries.order_by("-id"), PAGE).get_page(request.GET.get("page"))
    values: dict[str, Any] = {"url": webhook.url, "events": webhook.events, "is_active": webhook.is_active}
    context = {
        "project": webhook.project,
        "webhook": webhook,
        "form": form or WebhookForm(initial=values),
        "deliveries": [(row, EVENT_LABELS.get(row.event, row.event), STATE_LABELS[row.state]) for row in page],
        "page": page,
        "secret": secret,
        "here": "project",
    }
    return render(request, "zelo/webhooks/webhook.html", context, status=status)
