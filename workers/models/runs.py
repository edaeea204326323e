"""Runs: orders to judge. Their state changes in `workers.runs.transitions`."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from labeling.models import Annotator, Project, visible_through
from labeling.models.fields import MessageField


class Run(models.Model):
    """One order to judge: its queries, design, judges and budgets; its state.

    `estimate`: what it was expected to spend when it was ordered (`RunEstimate.figures`); empty for a calibration.
    `is_spent`: it ended because a budget or cap was used up, and continues when that is raised. `is_unanswered`: it ended
    without the answers of a judge, which `reason` names; it continues when that judge is resumed or its questions retried.
    With the allocation `informative` each pair goes to the judge with the largest expected gain per dollar.
    In a cascade `cascade_first` judges every pair, and the others judge those on which its |preference - 0.5| is below
    `cascade_threshold`.
    """

    class State(models.TextChoices):
        PLANNED = "planned", "planned"
        JUDGING = "judging", "judging"
        PAUSED = "paused", "paused"
        FINISHED = "finished", "finished"
        CANCELLED = "cancelled", "cancelled"
        FAILED = "failed", "failed"

    ACTIVE = (State.PLANNED, State.JUDGING)

    class Allocation(models.TextChoices):
        ALL = "all", "every judge on every pair"
        ROTATE = "rotate", "one judge a pair, in turn"
        INFORMATIVE = "informative", "one judge a pair, the most informative per dollar"
        CASCADE = "cascade", "the first judge on every pair, the others where it is unsure"

    class Orders(models.TextChoices):
        ONE = "one", "one order, random"
        BOTH = "both", "both orders"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="runs")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    query_ids = ArrayField(models.BigIntegerField(), null=True, blank=True)
    judges = models.ManyToManyField(Annotator, related_name="runs")
    sampler = models.CharField(max_length=80, default="cycles")
    sampler_options = models.JSONField(default=dict, blank=True)
    allocation = models.CharField(max_length=20, choices=Allocation.choices, default=Allocation.ALL)
    cascade_first = models.ForeignKey(Annotator, null=True, blank=True, on_delete=models.PROTECT, related_name="+")
    cascade_threshold = models.FloatField(null=True, blank=True)
    orders = models.CharField(max_length=20, choices=Orders.choices, default=Orders.ONE)
    seed = models.BigIntegerField(default=0)
    pair_budget = models.PositiveBigIntegerField(null=True, blank=True)
    call_budget = models.PositiveBigIntegerField(null=True, blank=True)
    token_budget = models.PositiveBigIntegerField(null=True, blank=True)
    cost_budget_micros = models.PositiveBigIntegerField(null=True, blank=True)
    estimate = models.JSONField(default=dict, db_default=models.Value({}, models.JSONField()), blank=True)
    state = models.CharField(max_length=20, choices=State.choices, default=State.PLANNED)
    reason = MessageField(blank=True)
    is_spent = models.BooleanField(default=False, db_default=False)
    is_unanswered = models.BooleanField(default=False, db_default=False)
    round = models.PositiveIntegerField(default=0)
    pairs_planned = models.PositiveBigIntegerField(default=0)
    tasks_planned = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["planned", "judging", "paused", "finished", "cancelled", "failed"]),
                name="run_state",
            ),
            models.CheckConstraint(
                condition=Q(
                    allocation__in=["all", "rotate", "informative"],
                    cascade_first__isnull=True,
                    cascade_threshold__isnull=True,
                )
                | Q(
                    allocation="cascade",
                    cascade_first__isnull=False,
                    cascade_threshold__gt=0.0,
                    cascade_threshold__lte=0.5,
                ),
                name="run_allocation",
            ),
            models.CheckConstraint(condition=Q(orders__in=["one", "both"]), name="run_orders"),
        ]
