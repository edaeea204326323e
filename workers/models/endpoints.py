"""Endpoints as all workers share them: definitions that superusers add, and states.

`workers.endpoints.stored.changes` changes the definitions, `workers.endpoints.limiter` the states.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class EndpointDefinition(models.Model):
    """An endpoint that a superuser has added; those of ZELO_ENDPOINTS have no row.

    `settings` holds fields of `workers.endpoints.registry.Endpoint`, none of them secret. `secrets` is encrypted by
    `workers.endpoints.stored.encryption`: the key and the values of headers and query, whose names are in `secret_names`.
    `key_ending` is shown so that people can tell keys apart; it is empty for short keys. A retired endpoint stays, because
    judges refer to its name.
    """

    name = models.CharField(max_length=80, unique=True)
    base_url = models.TextField()
    settings = models.JSONField(default=dict)
    secrets = models.TextField(blank=True)
    secret_names = models.JSONField(default=dict, blank=True)
    key_ending = models.CharField(max_length=4, blank=True)
    key_set_at = models.DateTimeField(null=True, blank=True)
    retired_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=~Q(secrets="") | Q(key_set_at__isnull=True, key_ending="", secret_names={}),
                name="endpoint_secrets_are_stored",
            ),
            models.CheckConstraint(condition=Q(base_url__regex=r"^https?://"), name="endpoint_base_url_is_http"),
        ]

    def __str__(self) -> str:
        return self.name


class EndpointState(models.Model):
    """The state of one endpoint that all workers share: its limits, its last replies, whether it may be called.

    `identity` is a hash of address, key, added headers and query and, where each model has its own limits, model.
    `learned` is what `workers.endpoints.learned` knows of the parameters that each model accepts.
    Rows come with the first call and change only under their lock, by the rules of `workers.endpoints.limiter_rules`.
    """

    class Mode(models.TextChoices):
        CLOSED = "closed", "working"
        PAUSED = "paused", "rate limited (429)"
        OPEN = "open", "not answering"
        HALF_OPEN = "half_open", "testing with one call"

    identity = models.CharField(max_length=64, primary_key=True)
    name = models.CharField(max_length=80)
    base_url = models.TextField()
    model = models.CharField(max_length=200, blank=True)
    concurrency = models.PositiveIntegerField(default=0)
    rpm = models.FloatField(null=True, blank=True)
    tpm = models.FloatField(null=True, blank=True)
    mode = models.CharField(max_length=10, choices=Mode.choices, default=Mode.CLOSED)
    epoch = models.PositiveIntegerField(default=0)
    until = models.DateTimeField(null=True, blank=True)
    trips = models.PositiveIntegerField(default=0)
    failures = models.PositiveIntegerField(default=0)
    down_since = models.DateTimeField(null=True, blank=True)
    ceiling = models.FloatField(null=True, blank=True)
    probe_by = models.CharField(max_length=200, blank=True)
    probe_until = models.DateTimeField(null=True, blank=True)
    requests_from = models.DateTimeField(null=True, blank=True)
    tokens_from = models.DateTimeField(null=True, blank=True)
    minute = models.PositiveBigIntegerField(default=0)
    minute_requests = models.PositiveBigIntegerField(default=0)
    minute_tokens = models.FloatField(default=0.0)
    last_requests = models.PositiveBigIntegerField(default=0)
    last_tokens = models.FloatField(default=0.0)
    calls = models.PositiveBigIntegerField(default=0)
    rate_limited = models.PositiveBigIntegerField(default=0)
    outages = models.PositiveBigIntegerField(default=0)
    last_error = models.TextField(blank=True)
    last_error_at = models.DateTimeField(null=True, blank=True)
    last_answer_at = models.DateTimeField(null=True, blank=True)
    learned = models.JSONField(default=dict, db_default={}, blank=True)
    seen_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["name", "model", "identity"]
        constraints = [
            models.CheckConstraint(
                condition=Q(mode__in=["closed", "half_open"], until__isnull=True)
                | Q(mode__in=["paused", "open"], until__isnull=False),
                name="endpoint_mode_fits_pause",
            )
        ]


class EndpointShare(models.Model):
    """The slots of an endpoint that one process holds until `until`; a process that crashes loses them then."""

    endpoint = models.ForeignKey(EndpointState, on_delete=models.CASCADE, related_name="shares")
    holder = models.CharField(max_length=200)
    slots = models.PositiveIntegerField()
    in_flight = models.PositiveIntegerField()
    wanted = models.PositiveIntegerField()
    until = models.DateTimeField()

    class Meta:
        ordering = ["endpoint", "holder"]
        constraints = [models.UniqueConstraint(fields=["endpoint", "holder"], name="endpoint_share_once")]
