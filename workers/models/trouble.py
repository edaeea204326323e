"""Judges in trouble, and trials of judges. `workers.judging.trouble` and `workers.jobs.trial` change them."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from labeling.models import Annotator, Project, visible_through
from workers.models.jobs import Job
from workers.models.tasks import FAILURE_KINDS


class JudgeTrouble(models.Model):
    """A judge that is paused because its answers failed: the most frequent failure and its latest message.

    The row ends when somebody resumes the judge. Until then runs do not wait for this judge.
    """

    annotator = models.OneToOneField(Annotator, primary_key=True, on_delete=models.CASCADE, related_name="trouble")
    reason = models.CharField(max_length=30, choices=FAILURE_KINDS)
    message = models.TextField(blank=True)
    since = models.DateTimeField(db_default=Now())

    objects = visible_through("annotator__project").as_manager()

    class Meta:
        ordering = ["annotator"]


class JudgeTrial(models.Model):
    """A trial of one judge on a few pairs; its `job` has the state, the lease and the error.

    `report`, once it has finished: `verdict` (works, doubtful or fails), `reason` and `remedy`, and `rows`, one a
    question. Requests and raw answers are in the rows of the latest trial of a judge alone, without keys. `calls`,
    tokens and cost count as the project's.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="trials")
    annotator = models.ForeignKey(Annotator, on_delete=models.CASCADE, related_name="trials")
    # Its calls were paid: a job that has a trial is not deleted without it.
    job = models.OneToOneField(Job, on_delete=models.RESTRICT, related_name="trial")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    report = models.JSONField(default=dict)
    calls = models.PositiveBigIntegerField(default=0)
    input_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    cost_micros = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now())

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["-id"]
