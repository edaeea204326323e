"""Webhooks from the end of a run to the receiver: signed, retried, once for each end, to listed addresses only."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from django.db.models.functions import Now
from pytest_django import Settings

from labeling.models import AuditEntry, Project
from scoring.models import Snapshot
from tests.factories.rows import make_judges, make_project, make_run, make_user
from tests.processes.elsewhere import dripping
from tests.processes.receiver import Receiver, receiving
from trainer.models import TrainingRun
from workers.deletion.projects import archive_project
from workers.models import Job, Run, Webhook, WebhookDelivery
from workers.runs.transitions import cancel_run, move
from workers.webhooks import delivery as deliveries
from workers.webhooks.changes import (
    NewSecret,
    WebhookRefused,
    add_webhook,
    change_webhook,
    delete_webhook,
    encrypt_webhooks_again,
    replace_secret,
    send_again,
    send_test,
)
from workers.webhooks.delivery import WAITS_S, deliver, due_webhook_ids

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]
EVENTS = ["evaluation.finished", "run.finished", "training.finished"]


@pytest.fixture
def receiver(settings: Settings) -> Iterator[Receiver]:
    with receiving() as found:
        settings.ZELO_WEBHOOK_HOSTS = [found.entry]
        yield found


@pytest.fixture
def project() -> Project:
    return make_project(owner=make_user(), queries=1)


@pytest.fixture
def made(project: Project, receiver: Receiver) -> NewSecret:
    return add_webhook(project, receiver.url, EVENTS)


def only(**fields: Any) -> WebhookDelivery:
    return WebhookDelivery.objects.get(**fields)


def make_due() -> None:
    WebhookDelivery.objects.update(next_at=Now())


def test_the_end_of_a_run_reaches_the_receiver_signed(project: Project, made: NewSecret, receiver: Receiver) -> None:
    run = make_run(project, judges=make_judges(project))
    assert due_webhook_ids() == []
    cancel_run(run)
    assert due_webhook_ids() == [made.webhook.pk]
    assert deliver(made.webhook.pk) == 1 and due_webhook_ids() == []
    ((headers, body),) = receiver.got
    message = json.loads(body)
    assert (message["type"], message["project"]) == ("run.finished", project.slug)
    assert message["data"] == {"run_id": run.pk, "state": "cancelled"}
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(made.secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["host"] == receiver.entry and headers["content-type"] == "application/json"
    sent = only()
    assert (sent.state, sent.status, sent.attempts, sent.message) == ("delivered", 200, 1, "")


def test_each_end_is_stored_with_its_transaction_and_only_where_it_is_wanted(
    project: Project, made: NewSecret, receiver: Receiver
) -> None:
    run = make_run(project, judges=make_judges(project))
    with pytest.raises(RuntimeError), transaction.atomic():
        move(run, Run.ACTIVE, Run.State.FINISHED)
        raise RuntimeError
    assert not WebhookDelivery.objects.exists()
    snapshot = Snapshot.objects.create(name="s", location="snapshots/s", checksum="0" * 64, rows=1)
    training = TrainingRun.objects.create(project=project, snapshot=snapshot, trainer="pointwise")
    TrainingRun.objects.filter(pk=training.pk).update(state="running")
    TrainingRun.objects.filter(pk=training.pk).update(state="held_back")
    for stage in ("evaluate", "candidates"):
        job = Job.objects.create(project=project, stage=stage)
        Job.objects.filter(pk=job.pk).update(state=Job.State.FINISHED)
    found = WebhookDelivery.objects.order_by("id").values_list("event", "outcome")
    assert list(found) == [("training.finished", "held_back"), ("evaluation.finished", "finished")]
    change_webhook(made.webhook, events=["run.finished"])
    TrainingRun.objects.filter(pk=training.pk).update(state="cancelled")
    change_webhook(made.webhook, events=EVENTS, is_active=False)
    cancel_run(run)
    assert WebhookDelivery.objects.count() == 2
    assert due_webhook_ids() == [] and deliver(made.webhook.pk) == 0


@pytest.mark.parametrize(("status", "named"), [(500, "answered 500"), (302, "redirects are not followed")])
def test_a_refusal_is_retried_with_growing_waits_until_it_fails(
    project: Project, made: NewSecret, receiver: Receiver, status: int, named: str
) -> None:
    send_test(made.webhook)
    receiver.answers = [status] * 20
    for attempt in range(1, len(WAITS_S) + 2):
        make_due()
        assert deliver(made.webhook.pk) == 1
        sent = only()
        assert (sent.attempts, sent.status) == (attempt, status) and named in sent.message
    assert sent.state == "failed" and sent.finished_at is not None
    make_due()
    assert deliver(made.webhook.pk) == 0 and len(receiver.got) == len(WAITS_S) + 1
    identities = {headers["webhook-id"] for headers, _ in receiver.got}
    assert len(identities) == 1 and len({body for _, body in receiver.got}) == 1


def test_a_failed_or_waiting_message_is_sent_once_more_on_request(made: NewSecret, receiver: Receiver) -> None:
    send_test(made.webhook)
    receiver.answers = [500, 500, 200]
    deliver(made.webhook.pk)
    assert deliver(made.webhook.pk) == 0, "the next attempt waits"
    send_again(only())
    assert due_webhook_ids() == [made.webhook.pk]
    WebhookDelivery.objects.update(attempts=len(WAITS_S))
    deliver(made.webhook.pk)
    assert only().state == "failed" and due_webhook_ids() == []
    assert send_again(only()).state == "open"
    deliver(made.webhook.pk)
    sent = only()
    assert (sent.state, sent.status, sent.attempts) == ("delivered", 200, len(WAITS_S) + 2)
    assert len({(headers["webhook-id"], body) for headers, body in receiver.got}) == 1
    with pytest.raises(WebhookRefused, match="was delivered"):
        send_again(sent)
    change_webhook(made.webhook, is_active=False)
    with pytest.raises(WebhookRefused, match="switched off"):
        send_again(only())


def test_an_address_that_is_no_longer_listed_gets_nothing(
    project: Project, made: NewSecret, receiver: Receiver, settings: Settings
) -> None:
    settings.ZELO_WEBHOOK_HOSTS = []
    send_test(made.webhook)
    deliver(made.webhook.pk)
    assert "ZELO_WEBHOOK_HOSTS" in only().message and receiver.got == []
    with pytest.raises(WebhookRefused, match="none is listed"):
        add_webhook(project, "https://example.org", EVENTS)
    settings.ZELO_WEBHOOK_HOSTS = ["localhost:9"]
    Webhook.objects.update(url="http://localhost:9/")
    make_due()
    deliver(made.webhook.pk)
    assert "not a public address" in only().message


def test_a_receiver_that_is_off_is_retried_and_a_crashed_sender_replaced(made: NewSecret, settings: Settings) -> None:
    settings.ZELO_WEBHOOK_HOSTS = ["127.0.0.1:9"]
    Webhook.objects.update(url="http://127.0.0.1:9/")
    send_test(made.webhook)
    deliver(made.webhook.pk)
    assert (only().state, only().status) == ("open", None) and "no answer" in only().message
    WebhookDelivery.objects.update(state="leased", lease_until=Now(), next_at=Now())
    assert due_webhook_ids() == [made.webhook.pk] and deliver(made.webhook.pk) == 1
    assert only().attempts == 2


def test_a_secret_is_replaced_encrypted_and_never_stored_as_it_is(made: NewSecret, receiver: Receiver) -> None:
    second = replace_secret(made.webhook)
    assert second.secret != made.secret
    stored = Webhook.objects.get().secret
    assert second.secret not in stored and encrypt_webhooks_again() == (1, [])
    Webhook.objects.update(secret="broken")
    assert encrypt_webhooks_again() == (0, [f"webhook {made.webhook.pk}"])
    send_test(made.webhook)
    deliver(made.webhook.pk)
    assert "secret cannot be read" in only().message


def test_bad_webhooks_are_refused_and_the_path_stays_out_of_the_audit_log(
    project: Project, made: NewSecret, receiver: Receiver
) -> None:
    with pytest.raises(WebhookRefused, match="this address already"):
        add_webhook(project, receiver.url, EVENTS)
    for events in ([], ["run.started"]):
        with pytest.raises(WebhookRefused, match="expected some of"):
            add_webhook(project, receiver.url + "2", events)
    delete_webhook(made.webhook)
    assert not WebhookDelivery.objects.exists()
    entries = AuditEntry.objects.filter(action__startswith="webhook.")
    assert {entry.action for entry in entries} == {"webhook.added", "webhook.deleted"}
    assert all("hook?for" not in str((entry.subject, entry.details)) for entry in entries)


def test_a_deleted_project_sends_nothing(project: Project, made: NewSecret) -> None:
    make_run(project, judges=make_judges(project))
    send_test(made.webhook)
    archive_project(project, by=None)
    assert due_webhook_ids() == []


def test_an_answer_that_drips_ends_at_the_time_limit(
    project: Project, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "TIMEOUT_S", 0.3)
    with dripping() as url:
        settings.ZELO_WEBHOOK_HOSTS = [url.removeprefix("http://")]
        made = add_webhook(project, f"{url}/hook", EVENTS)
        send_test(made.webhook)
        began = time.monotonic()
        assert deliver(made.webhook.pk) == 1
    assert time.monotonic() - began < 2.0
    assert only().message == "no answer within 0.3 s"
