"""Batches of questions that are at a provider. `workers.judging.provider_batches` changes these rows."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from labeling.models import Annotator, visible_through
from workers.models.runs import Run


class ProviderBatch(models.Model):
    """One file of questions to one judge in one run, and what has become of it at the provider.

    Its tasks are leased under `holder` until it ends. `marker` names it at the provider. `intended_at` is set before each
    request that must not be made twice, and cleared when its fate is known. `requests`, `input_tokens`, `output_tokens`
    and `cost_micros` are what was reserved for it. `size_limit`: the most requests that were allowed when it was formed,
    None for the endpoint's own limit; `is_over_limit`: the provider refused it as too large. `short_reads`: how often it was completed and came without all of its
    answers.
    """

    class State(models.TextChoices):
        UPLOADING = "uploading", "uploading"
        CREATING = "creating", "uploaded"
        RUNNING = "running", "at the provider"
        STORING = "storing", "storing answers"
        COMPLETED = "completed", "completed"
        EXPIRED = "expired", "expired"
        CANCELLED = "cancelled", "cancelled"
        FAILED = "failed", "failed"

    OUT = (State.UPLOADING, State.CREATING, State.RUNNING, State.STORING)
    OVER = (State.COMPLETED, State.EXPIRED, State.CANCELLED, State.FAILED)

    marker = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="batches")
    annotator = models.ForeignKey(Annotator, on_delete=models.CASCADE, related_name="batches")
    endpoint = models.CharField(max_length=80)
    model = models.CharField(max_length=200)
    state = models.CharField(max_length=20, choices=State.choices, default=State.UPLOADING)
    fence = models.PositiveIntegerField(default=0)
    requests = models.PositiveIntegerField()
    size = models.PositiveBigIntegerField(default=0)
    input_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    cost_micros = models.PositiveBigIntegerField(default=0)
    size_limit = models.PositiveIntegerField(null=True, blank=True)
    is_over_limit = models.BooleanField(default=False)
    file_id = models.CharField(max_length=200, blank=True)
    batch_id = models.CharField(max_length=200, blank=True)
    output_file_id = models.CharField(max_length=200, blank=True)
    error_file_id = models.CharField(max_length=200, blank=True)
    provider_status = models.CharField(max_length=40, blank=True)
    completed = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    answered = models.PositiveIntegerField(default=0)
    unanswered = models.PositiveIntegerField(default=0)
    returned = models.PositiveIntegerField(default=0)
    intended_at = models.DateTimeField(null=True, blank=True)
    short_reads = models.PositiveIntegerField(default=0, db_default=0)
    tries = models.PositiveIntegerField(default=0)
    next_at = models.DateTimeField(db_default=Now())
    message = models.TextField(blank=True)
    cancel_asked_at = models.DateTimeField(null=True, blank=True)
    cancel_sent_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    sent_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = visible_through("run__project").as_manager()

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "provider batches"
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["uploading", "creating", "running", "storing"], finished_at__isnull=True)
                | Q(state__in=["completed", "expired", "cancelled", "failed"], finished_at__isnull=False),
                name="provider_batch_end_fits_state",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=["running", "storing", "completed", "expired"]) | ~Q(batch_id=""),
                name="provider_batch_running_has_id",
            ),
            models.UniqueConstraint(
                fields=["endpoint", "batch_id"], condition=~Q(batch_id=""), name="provider_batch_once"
            ),
        ]
        indexes = [
            models.Index(
                fields=["annotator", "next_at"],
                condition=Q(state__in=["uploading", "creating", "running", "storing"]),
                name="provider_batch_due",
            ),
        ]

    @property
    def holder(self) -> str:
        """The name under which its tasks are leased."""
        return f"batch:{self.marker}"

    @property
    def tokens(self) -> int:
        """The tokens that were reserved for it, read and written."""
        return self.input_tokens + self.output_tokens

    @property
    def file_name(self) -> str:
        """The name of its file at the provider."""
        return f"zelo-{self.marker}.jsonl"
