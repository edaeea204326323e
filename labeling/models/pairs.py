"""Pairs of candidates to compare."""

from __future__ import annotations

from django.db import models
from django.db.models import F, Q

from labeling.models.projects import VisibleQuerySet
from labeling.models.texts import Candidate, Query


class PairQuerySet(VisibleQuerySet["Pair"]):
    project_path = "a__query__project"


class Pair(models.Model):
    """Two candidates to be compared, with a.id < b.id. `query` is the query of both, None for a cross-query pair.

    A statement's pairs are compared with the queries of their candidates by a trigger (`0021_pairs_checked_at_once`): foreign keys
    would look at each row, three times.
    """

    # Without an index of its own: `pair_once` begins with it.
    a = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="pairs_as_a", db_index=False)
    b = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="pairs_as_b")
    query = models.ForeignKey(
        Query, null=True, blank=True, on_delete=models.CASCADE, related_name="pairs", db_constraint=False
    )

    objects = PairQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["a", "b"], name="pair_once"),
            models.CheckConstraint(condition=Q(a__lt=F("b")), name="pair_in_order"),
        ]
