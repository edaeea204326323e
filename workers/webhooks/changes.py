"""Changes webhooks: add, change, replace the secret, delete, test, send again. Page and REST call these; each writes the audit log.

The secret is returned once, when it is made. The audit log names the server of an address and not its path, which may be
a secret of the receiver.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from labeling import audit
from labeling.models import Project
from workers.broker.hints import leave_hint
from workers.endpoints.stored.encryption import SecretsUnreadable, decrypt, encrypt
from workers.endpoints.stored.rows import encryption_secrets, origin_of
from workers.models import Webhook, WebhookDelivery
from workers.webhooks.addresses import AddressRefused, BadEntry, Entry, check_url, parse_entries
from workers.webhooks.signing import make_secret

MOST_WEBHOOKS = 20


class WebhookRefused(ValueError):
    """The change was not made; the message says why and what helps."""


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A webhook with its new secret, which cannot be read again."""

    webhook: Webhook
    secret: str


def permitted() -> list[Entry]:
    """The operator's list; empty if it is not valid, which `manage.py check` reports."""
    try:
        return parse_entries(settings.ZELO_WEBHOOK_HOSTS)
    except BadEntry:
        return []


def add_webhook(project: Project, url: str, events: Sequence[str], *, by: Any = None) -> NewSecret:
    """Store a webhook. Raises WebhookRefused, EncryptionUnavailable."""
    url, events = _checked_url(url), _checked_events(events)
    secret = make_secret()
    try:
        with transaction.atomic():
            Project.objects.select_for_update().get(pk=project.pk)
            if Webhook.objects.filter(project=project).count() >= MOST_WEBHOOKS:
                raise WebhookRefused(f"the project has {MOST_WEBHOOKS} webhooks already; delete one first")
            row = Webhook.objects.create(
                project=project, url=url, events=events, created_by=by if getattr(by, "pk", None) else None
            )
            _store_secret(row, secret)
            audit.note("webhook.added", project=project, actor=by, subject=origin_of(url), events=", ".join(events))
    except IntegrityError:
        raise WebhookRefused("the project has a webhook with this address already; change that one") from None
    return NewSecret(row, secret)


def change_webhook(
    webhook: Webhook,
    *,
    url: str | None = None,
    events: Sequence[str] | None = None,
    is_active: bool | None = None,
    by: Any = None,
) -> Webhook:
    """Change what is given; the secret stays. Raises WebhookRefused."""
    try:
        with transaction.atomic():
            row = Webhook.objects.select_for_update().get(pk=webhook.pk)
            before = _shown(row)
            if url is not None and url != row.url:
                row.url = _checked_url(url)
            if events is not None:
                row.events = _checked_events(events)
            if is_active is not None:
                row.is_active = is_active
            row.save(update_fields=["url", "events", "is_active"])
            if changed := audit.changes(before, _shown(row)):
                audit.note("webhook.changed", project=row.project, actor=by, subject=origin_of(row.url), **changed)
    except IntegrityError:
        raise WebhookRefused("the project has a webhook with this address already; change that one") from None
    return row


def replace_secret(webhook: Webhook, *, by: Any = None) -> NewSecret:
    """Sign with a new secret from the next attempt on. Raises EncryptionUnavailable."""
    secret = make_secret()
    with transaction.atomic():
        _store_secret(webhook, secret)
        audit.note("webhook.secret_replaced", project=webhook.project, actor=by, subject=origin_of(webhook.url))
    return NewSecret(webhook, secret)


def delete_webhook(webhook: Webhook, *, by: Any = None) -> None:
    """Delete a webhook with its deliveries; what waits is not sent."""
    with transaction.atomic():
        audit.note("webhook.deleted", project=webhook.project, actor=by, subject=origin_of(webhook.url))
        webhook.delete()


def send_test(webhook: Webhook, *, by: Any = None) -> WebhookDelivery:
    """Order a test message; its delivery says what became of it. Raises WebhookRefused for a webhook that is switched off."""
    if not webhook.is_active:
        raise WebhookRefused("the webhook is switched off; switch it on first")
    with transaction.atomic():
        made = WebhookDelivery.objects.create(webhook=webhook, event=WebhookDelivery.TEST)
        audit.note("webhook.tested", project=webhook.project, actor=by, subject=origin_of(webhook.url))
        transaction.on_commit(lambda: leave_hint("deliver", webhook.pk))
    made.refresh_from_db()
    return made


def send_again(delivery: WebhookDelivery, *, by: Any = None) -> WebhookDelivery:
    """Order one more attempt, now, of a delivery that failed or waits for its next attempt. Raises WebhookRefused."""
    state, webhook = WebhookDelivery.State, delivery.webhook
    if not webhook.is_active:
        raise WebhookRefused("the webhook is switched off; switch it on first")
    with transaction.atomic():
        rows = WebhookDelivery.objects.filter(pk=delivery.pk, state__in=[state.FAILED, state.OPEN])
        if not rows.update(state=state.OPEN, next_at=Now(), finished_at=None):
            raise WebhookRefused("the message is being sent, or was delivered")
        audit.note("webhook.sent_again", project=webhook.project, actor=by, subject=origin_of(webhook.url))
        transaction.on_commit(lambda: leave_hint("deliver", webhook.pk))
    delivery.refresh_from_db()
    return delivery


def read_secret(webhook: Webhook) -> str:
    """The secret of a webhook, to sign with. Raises SecretsUnreadable, EncryptionUnavailable."""
    found = decrypt(webhook.secret, bound_to=_place(webhook), secrets=encryption_secrets())
    return str(found["secret"])


def encrypt_webhooks_again() -> tuple[int, list[str]]:
    """Encrypt all secrets under the first key: how many, and which cannot be read. Raises EncryptionUnavailable."""
    done, unreadable = 0, []
    with transaction.atomic():
        for row in Webhook.objects.select_for_update().order_by("pk"):
            try:
                _store_secret(row, read_secret(row))
                done += 1
            except SecretsUnreadable:
                unreadable.append(f"webhook {row.pk}")
    return done, unreadable


def _store_secret(row: Webhook, secret: str) -> None:
    row.secret = encrypt({"secret": secret}, bound_to=_place(row), secrets=encryption_secrets())
    row.save(update_fields=["secret"])


def _place(row: Webhook) -> str:
    """The context under which a secret is encrypted, so that it cannot be moved to another row."""
    return f"webhook {row.pk}"


def _checked_url(url: str) -> str:
    url = url.strip()
    try:
        check_url(url, permitted())
    except AddressRefused as error:
        raise WebhookRefused(str(error)) from None
    return url


def _checked_events(events: Sequence[str]) -> list[str]:
    known = Webhook.Event.values
    if not events or (unknown := sorted(set(events) - set(known))):
        said = ", ".join(unknown) if events else "empty"
        raise WebhookRefused(f"events is {said}; expected some of {', '.join(known)}")
    return [each for each in known if each in events]


def _shown(row: Webhook) -> dict[str, Any]:
    return {"server": origin_of(row.url), "events": ", ".join(row.events), "active": row.is_active}
