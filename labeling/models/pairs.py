"""Pairs of candidates to compare."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from labeling.models.projects import VisibleQuerySet
from labeling.models.texts import Candidate, Query


class PairQuerySet(VisibleQuerySet["Pair"]):
    project_path = "a__query__project"


class Pair(models.Model):
    """Two candidates to be compared, with a.id < b.id. `query` is the query of both, None for a cross-query pair."""

    a = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="pairs_as_a")
    b = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="pairs_as_b")
    query = models.ForeignKey(Query, null=True, blank=True, on_delete=models.CASCADE, related_name="pairs")

    objects = PairQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["a", "b"], name="pair_once"),
            models.CheckConstraint(condition=Q(a__lt=F("b")), name="pair_in_order"),
        ]
