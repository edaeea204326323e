"""Jobs: stages of work in the background. `workers.jobs.leasing` carries them out under a lease."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from labeling.models import Project, visible_through
from labeling.models.fields import MessageField
from workers.models.runs import Run


class Job(models.Model):
    """One stage of work in the background for a project or a run; it owns its state."""

    class State(models.TextChoices):
        OPEN = "open", "open"
        LEASED = "leased", "running"
        FINISHED = "finished", "finished"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="jobs")
    run = models.ForeignKey(Run, null=True, blank=True, on_delete=models.CASCADE, related_name="jobs")
    stage = models.CharField(max_length=40)
    payload = models.JSONField(default=dict, blank=True)
    state = models.CharField(max_length=20, choices=State.choices, default=State.OPEN)
    fence = models.PositiveIntegerField(default=0)
    leased_by = models.CharField(max_length=200, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    attempts = models.PositiveIntegerField(default=0)
    done = models.PositiveBigIntegerField(default=0)
    total = models.PositiveBigIntegerField(default=0)
    message = MessageField(blank=True)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state="leased", lease_until__isnull=False)
                | Q(state__in=["open", "finished", "failed", "cancelled"], lease_until__isnull=True),
                name="job_lease_fits_state",
            ),
            # At most one unfinished job of a stage and run: a second hint finds it instead of adding one.
            models.UniqueConstraint(
                fields=["run", "stage"], condition=Q(state__in=["open", "leased"]), name="job_unfinished_once"
            ),
            # NULLs are distinct there; this one holds for jobs of a project without a run. Each judge may be
            # probed, tried or taught, and several deletions may wait.
            models.UniqueConstraint(
                fields=["project", "stage"],
                condition=Q(state__in=["open", "leased"], run__isnull=True)
                & ~Q(stage__in=["probe", "trial", "teaching", "deletion"]),
                name="job_unfinished_once_without_run",
            ),
        ]
