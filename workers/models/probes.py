"""Injection probes. `workers.jobs.injection_probe` carries them out as jobs of the stage `probe`."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from labeling.models import Annotator, Project, visible_through
from workers.models.jobs import Job


class InjectionProbe(models.Model):
    """The options, cost and report of one injection probe; its `job` has the state, the lease and the error.

    `report`, once it has finished: `rows` (one a payload and strength), `failures` by kind, and the counts `targets` and
    `pairs`. The answers themselves are stored in no other table.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="probes")
    annotator = models.ForeignKey(Annotator, on_delete=models.CASCADE, related_name="probes")
    # Its calls were paid: a job that has a probe is not deleted without it.
    job = models.OneToOneField(Job, on_delete=models.RESTRICT, related_name="probe")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    options = models.JSONField(default=dict)
    report = models.JSONField(default=dict)
    calls = models.PositiveBigIntegerField(default=0)
    input_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    cost_micros = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now())

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["-id"]
