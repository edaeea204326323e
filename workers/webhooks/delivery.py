"""Delivers webhooks: claims a due message under a lease, sends it signed, and retries with growing waits.

A trigger stores a message in the transaction that ended its run, training or evaluation, so none is lost and none is sent
for work that was rolled back. A receiver may get one twice (after a crash or a lost answer) and tells them apart by
`webhook-id`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
from django.db import connection
from django.db.models.functions import Now

from workers.endpoints.event_loop import run
from workers.endpoints.stored.encryption import EncryptionUnavailable, SecretsUnreadable
from workers.models import WebhookDelivery
from workers.webhooks.addresses import AddressRefused, Target, find_target
from workers.webhooks.changes import permitted, read_secret
from workers.webhooks.signing import signed_headers

log = logging.getLogger(__name__)

LEASE_S = 120.0
TIMEOUT_S = 10.0
# Waits after the first failures; after the last attempt a delivery has failed.
WAITS_S = (10.0, 60.0, 300.0, 1800.0, 7200.0, 21_600.0, 86_400.0)
KEPT_DAYS = 30
LONGEST_MESSAGE = 500
SUBJECTS = {"run.finished": "run_id", "training.finished": "training_id", "evaluation.finished": "job_id"}

_DUE = """(delivery.state = 'open' AND delivery.next_at <= clock_timestamp()
    OR delivery.state = 'leased' AND delivery.lease_until < clock_timestamp())"""
_DUE_WEBHOOKS = f"""
SELECT DISTINCT webhook.id FROM workers_webhookdelivery delivery
JOIN workers_webhook webhook ON webhook.id = delivery.webhook_id AND webhook.is_active
JOIN labeling_project project ON project.id = webhook.project_id AND project.archived_at IS NULL
WHERE {_DUE} ORDER BY webhook.id
"""
_CLAIM = f"""
UPDATE workers_webhookdelivery SET state = 'leased', attempts = attempts + 1,
    lease_until = clock_timestamp() + make_interval(secs => %s)
WHERE id = (SELECT delivery.id FROM workers_webhookdelivery delivery
            JOIN workers_webhook webhook ON webhook.id = delivery.webhook_id AND webhook.is_active
            WHERE webhook_id = %s AND {_DUE} ORDER BY delivery.id LIMIT 1 FOR UPDATE OF delivery SKIP LOCKED)
RETURNING id
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """The result of one attempt. `status` None: no answer; `problem` empty: delivered."""

    status: int | None
    problem: str


def due_webhook_ids() -> list[int]:
    """Webhooks with a message that is due, or whose sender crashed."""
    with connection.cursor() as cursor:
        cursor.execute(_DUE_WEBHOOKS)
        return [row[0] for row in cursor.fetchall()]


def deliver(webhook_id: int) -> int:
    """Send what is due to a webhook, oldest first; how many attempts were made."""
    count = 0
    while (delivery := _claim(webhook_id)) is not None:
        _end(delivery, send(delivery))
        count += 1
    if count:
        old = WebhookDelivery.objects.filter(webhook_id=webhook_id, finished_at__isnull=False)
        old.filter(created_at__lt=Now() - timedelta(days=KEPT_DAYS)).delete()
    return count


def _claim(webhook_id: int) -> WebhookDelivery | None:
    with connection.cursor() as cursor:
        cursor.execute(_CLAIM, [LEASE_S, webhook_id])
        row = cursor.fetchone()
    rows = WebhookDelivery.objects.select_related("webhook__project")
    return None if row is None else rows.filter(pk=row[0]).first()


def _end(delivery: WebhookDelivery, sent: Sent) -> None:
    """Store the outcome, unless another process has claimed the delivery since."""
    done = delivery.attempts - 1
    changes: dict[str, Any] = {"status": sent.status, "message": sent.problem[:LONGEST_MESSAGE], "lease_until": None}
    if not sent.problem:
        changes |= {"state": WebhookDelivery.State.DELIVERED, "finished_at": Now()}
    elif done < len(WAITS_S):
        changes |= {"state": WebhookDelivery.State.OPEN, "next_at": Now() + timedelta(seconds=WAITS_S[done])}
    else:
        changes |= {"state": WebhookDelivery.State.FAILED, "finished_at": Now()}
    held = WebhookDelivery.objects.filter(
        pk=delivery.pk, attempts=delivery.attempts, state=WebhookDelivery.State.LEASED
    )
    if not held.update(**changes):
        log.warning("webhook delivery %d was taken over by another process", delivery.pk)


def message_of(delivery: WebhookDelivery) -> bytes:
    """The body: the same bytes at each attempt."""
    data: dict[str, Any] = {"state": delivery.outcome} if delivery.outcome else {}
    if name := SUBJECTS.get(delivery.event):
        data[name] = delivery.subject_id
    body = {
        "type": delivery.event,
        "timestamp": delivery.created_at.isoformat(),
        "project": delivery.webhook.project.slug,
        "data": data,
    }
    return json.dumps(body, separators=(",", ":")).encode()


def send(delivery: WebhookDelivery) -> Sent:
    """Send a message once, to an address that the operator permits; redirects are not followed."""
    body, identity = message_of(delivery), f"zelo-{delivery.webhook_id}-{delivery.pk}"
    try:
        target = find_target(delivery.webhook.url, permitted())
        headers = signed_headers(
            read_secret(delivery.webhook), message_id=identity, timestamp=int(time.time()), body=body
        )
    except AddressRefused as error:
        return Sent(None, str(error))
    except (SecretsUnreadable, EncryptionUnavailable) as error:
        return Sent(None, f"the secret cannot be read ({error}); replace it on the webhook's page")
    except (OSError, UnicodeError) as error:  # UnicodeError: a label that is empty or too long
        return Sent(None, f"the host of the address is unknown: {error}")
    try:
        return _read(run(_posted(delivery.webhook.url, target, headers, body)))
    except TimeoutError:
        return Sent(None, f"no answer within {TIMEOUT_S:g} s")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Sent(None, f"no answer: {type(error).__name__}: {error}"[:LONGEST_MESSAGE])


async def _posted(url: str, target: Target, headers: dict[str, str], body: bytes) -> int:
    """POST to the checked IP addresses in turn, so that a second look-up cannot lead elsewhere; returns the status.

    Each address has TIMEOUT_S in all, however slowly its headers arrive. Raises httpx.HTTPError, TimeoutError.
    """
    named = httpx.URL(url)
    sent = {**headers, "Host": named.netloc.decode(), "Content-Type": "application/json", "User-Agent": "zelo-webhooks"}
    async with httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=TIMEOUT_S) as client:
        for place, address in enumerate(target.addresses, start=1):
            request = client.build_request(
                "POST", named.copy_with(host=address), headers=sent, content=body,
                extensions={"sni_hostname": target.host},
            )  # fmt: skip
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    response = await client.send(request, stream=True)  # its body is not read
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if place == len(target.addresses):
                    raise
                continue
            await response.aclose()
            return response.status_code
    raise httpx.ConnectError("the host has no address")


def _read(status: int) -> Sent:
    if 200 <= status < 300:
        return Sent(status, "")
    if 300 <= status < 400:
        return Sent(status, f"the receiver answered {status}; redirects are not followed, so enter the final address")
    return Sent(status, f"the receiver answered {status}; expected 2xx")
