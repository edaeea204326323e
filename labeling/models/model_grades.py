"""Grades that a model gave to single candidates. They are no grades of people, and stand in a table of their own."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from labeling.models.judgments import Annotator
from labeling.models.projects import visible_through
from labeling.models.texts import Candidate


class ModelGrade(models.Model):
    """One judge's grade of a candidate, as a share of its scale in [0, 1].

    `Candidate.grade` holds people's grades alone; only a calibration that a judge's option `anchor` allows reads these.
    """

    annotator = models.ForeignKey(Annotator, on_delete=models.CASCADE, related_name="model_grades", db_index=False)
    candidate = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="model_grades")
    value = models.FloatField()
    created_at = models.DateTimeField(db_default=Now())

    objects = visible_through("annotator__project").as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["annotator", "candidate"], name="model_grade_once"),
            models.CheckConstraint(condition=Q(value__gte=0.0, value__lte=1.0), name="model_grade_is_share"),
        ]
