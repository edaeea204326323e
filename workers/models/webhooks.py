"""Webhooks of projects and their deliveries. `workers.webhooks` changes them; triggers of 0027_webhooks add deliveries."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from labeling.models import Project, visible_through


class Webhook(models.Model):
    """An address of a project's owner that gets a message for each of `events`.

    `secret` signs the messages; it is encrypted by `workers.endpoints.stored.encryption` and shown once, when it is made.
    """

    class Event(models.TextChoices):
        RUN = "run.finished", "run finished"
        TRAINING = "training.finished", "training finished"
        EVALUATION = "evaluation.finished", "evaluation finished"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="webhooks")
    url = models.TextField()
    events = ArrayField(models.CharField(max_length=40, choices=Event.choices))
    secret = models.TextField(blank=True)
    is_active = models.BooleanField(default=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    created_at = models.DateTimeField(db_default=Now())

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["project", "url"], name="webhook_url_once"),
            models.CheckConstraint(condition=Q(url__regex=r"^https?://"), name="webhook_url_is_http"),
            models.CheckConstraint(condition=Q(events__len__gte=1), name="webhook_has_events"),
        ]


class WebhookDelivery(models.Model):
    """One message to one webhook, stored by the transaction that ended what it is about.

    `subject_id`: the run, training or job; `outcome`: the state in which it ended. Each attempt counts as the fence of its
    lease. `status` is the last HTTP status, None without an answer; `message` says why the last attempt failed.
    """

    class State(models.TextChoices):
        OPEN = "open", "waiting"
        LEASED = "leased", "being sent"
        DELIVERED = "delivered", "delivered"
        FAILED = "failed", "failed"

    TEST = "webhook.test"

    webhook = models.ForeignKey(Webhook, on_delete=models.CASCADE, related_name="deliveries")
    event = models.CharField(max_length=40)
    subject_id = models.BigIntegerField(default=0)
    outcome = models.CharField(max_length=20, blank=True)
    state = models.CharField(
        max_length=10, choices=State.choices, default=State.OPEN, db_default=models.Value(State.OPEN)
    )
    attempts = models.PositiveSmallIntegerField(default=0, db_default=0)
    next_at = models.DateTimeField(db_default=Now())
    lease_until = models.DateTimeField(null=True, blank=True)
    status = models.PositiveSmallIntegerField(null=True, blank=True)
    message = models.TextField(blank=True, db_default="")
    created_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = visible_through("webhook__project").as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state="leased", lease_until__isnull=False)
                | Q(state__in=["open", "delivered", "failed"], lease_until__isnull=True),
                name="webhook_delivery_lease_fits_state",
            )
        ]
        indexes = [
            models.Index(fields=["next_at"], condition=Q(state__in=["open", "leased"]), name="webhook_delivery_due")
        ]
