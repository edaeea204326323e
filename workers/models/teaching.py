"""Teachings of judges: a judge, the one that was made from it, and how both agree with people. `workers.jobs.teaching`
changes them.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from labeling.models import Annotator, Project, visible_through
from workers.models.jobs import Job


class JudgeTeaching(models.Model):
    """One teaching of `annotator`; its `job` has the state, the lease and the error.

    `taught` is the judge with worked examples and `held_out` the pairs to ask about, once both are chosen. `rows` holds the
    answers of both judges, in the order of `held_out`; `report`, once it has finished, the verdict, its reason and the figures of both. `calls`, tokens and
    cost count as the project's.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="teachings")
    annotator = models.ForeignKey(Annotator, on_delete=models.CASCADE, related_name="teachings")
    taught = models.ForeignKey(Annotator, null=True, blank=True, on_delete=models.CASCADE, related_name="taught_by")
    # Its calls were paid: a job that has a teaching is not deleted without it.
    job = models.OneToOneField(Job, on_delete=models.RESTRICT, related_name="teaching")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    options = models.JSONField(default=dict)
    held_out = models.JSONField(default=list)
    rows = models.JSONField(default=list)
    report = models.JSONField(default=dict)
    calls = models.PositiveBigIntegerField(default=0)
    input_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    cost_micros = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now())

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["-id"]
