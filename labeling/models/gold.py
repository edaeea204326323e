"""Gold answers: the known answers of pairs.

`labeling.annotation.gold` sets them, assigns their pairs to people and compares the answers.
"""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from labeling.models.pairs import Pair
from labeling.models.projects import Project, visible_through


class GoldAnswer(models.Model):
    """The known answer of a pair: `preference` = P(a is the more relevant).

    The instruction page shows pairs with an `explanation` as examples. The database sets `project` from the pair.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="gold_pairs", editable=False)
    pair = models.OneToOneField(Pair, on_delete=models.CASCADE, related_name="gold_answer")
    preference = models.FloatField()
    explanation = models.TextField(blank=True, default="", db_default="")
    created_at = models.DateTimeField(db_default=Now())

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(
                # NaN sorts above every number in PostgreSQL, so <= 1 rejects it.
                condition=Q(preference__gte=0.0, preference__lte=1.0),
                name="gold_answer_in_range",
            ),
        ]
