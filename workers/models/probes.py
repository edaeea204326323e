"""Injection probes. `workers.jobs.injection_probe` carries them out."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from labeling.models import Annotator, Project, visible_through


class InjectionProbe(models.Model):
    """What texts that argue for themselves did to one judge; its answers stand in no other table.

    While it is asked, `lease_until` is in the future; `starts` counts the workers that began it and is their fence.
    `report`, once it has finished: `rows` (one a payload and strength), `failures` by kind, and the counts `targets` and `pairs`.
    """

    class State(models.TextChoices):
        OPEN = "open", "waiting"
        ASKING = "asking", "being asked"
        FINISHED = "finished", "finished"
        FAILED = "failed", "failed"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="probes")
    annotator = models.ForeignKey(Annotator, on_delete=models.CASCADE, related_name="probes")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    options = models.JSONField(default=dict)
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    error = models.TextField(blank=True)
    report = models.JSONField(default=dict)
    calls = models.PositiveBigIntegerField(default=0)
    input_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    cost_micros = models.PositiveBigIntegerField(default=0)
    starts = models.PositiveSmallIntegerField(default=0)
    lease_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["open", "asking", "finished", "failed"]), name="injection_probe_state"
            )
        ]
