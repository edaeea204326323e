"""Models of spend and of its limits, by run, project, endpoint and day. `workers.budgets` reads and enforces both."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from labeling.models import Project, visible_through
from workers.models.runs import Run


class Spend(models.Model):
    """The spend of one judge in one run: running totals of its attempts, spread over some rows (`shard`).

    Triggers on `Attempt` keep them in the transaction of the change, each connection its own row, so that
    answers that are stored at the same time do not wait for each other. `unreached` counts failed calls that reached no
    model and cost nothing. Read the sums by `workers.budgets.spend`.
    """

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="spends", db_constraint=False, db_index=False)
    annotator_id = models.BigIntegerField()
    shard = models.SmallIntegerField()
    calls = models.BigIntegerField(default=0)
    in_flight = models.BigIntegerField(default=0)
    lost = models.BigIntegerField(default=0)
    answers = models.BigIntegerField(default=0)
    answer_tokens = models.BigIntegerField(default=0)
    answer_cost_micros = models.BigIntegerField(default=0)
    unreached = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cost_micros = models.BigIntegerField(default=0)

    objects = visible_through("run__project").as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "annotator_id", "shard"], name="spend_once")]


class Caps(models.Model):
    """The most that all runs and probes of a project may spend; what is None sets no limit."""

    project = models.OneToOneField(Project, primary_key=True, on_delete=models.CASCADE, related_name="caps")
    calls = models.PositiveBigIntegerField(null=True, blank=True)
    tokens = models.PositiveBigIntegerField(null=True, blank=True)
    cost_micros = models.PositiveBigIntegerField(null=True, blank=True)

    objects = visible_through("project").as_manager()

    class Meta:
        verbose_name_plural = "caps"


class DeletedSpend(models.Model):
    """The spend of a project's deleted runs, so that deleting a run frees none of the project's limits."""

    project = models.OneToOneField(Project, primary_key=True, on_delete=models.CASCADE, related_name="deleted_spend")
    calls = models.PositiveBigIntegerField(default=0)
    input_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    cost_micros = models.PositiveBigIntegerField(default=0)

    objects = visible_through("project").as_manager()


class EndpointSpend(models.Model):
    """The spend of one judge at an endpoint on one day (UTC, when the call began): running totals, spread over `shard`s.

    Triggers on `Attempt` keep them, as those of `Spend`; trials, teachings and probes add theirs. No foreign keys: a
    deleted project has spent what it has spent. Old days are merged into one row of 1970-01-01. Read the sums by `workers.budgets.operator_limits`.
    """

    endpoint = models.CharField(max_length=200)
    project_id = models.BigIntegerField()
    annotator_id = models.BigIntegerField()
    day = models.DateField()
    shard = models.SmallIntegerField()
    calls = models.BigIntegerField(default=0, db_default=0)
    in_flight = models.BigIntegerField(default=0, db_default=0)
    lost = models.BigIntegerField(default=0, db_default=0)
    answers = models.BigIntegerField(default=0, db_default=0)
    answer_tokens = models.BigIntegerField(default=0, db_default=0)
    answer_cost_micros = models.BigIntegerField(default=0, db_default=0)
    unreached = models.BigIntegerField(default=0, db_default=0)
    input_tokens = models.BigIntegerField(default=0, db_default=0)
    output_tokens = models.BigIntegerField(default=0, db_default=0)
    cost_micros = models.BigIntegerField(default=0, db_default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["annotator_id", "day", "shard"], name="endpoint_spend_once")]
        indexes = [
            models.Index(fields=["day", "endpoint"], name="endpoint_spend_by_day"),
            models.Index(fields=["endpoint"], name="endpoint_spend_by_name"),
        ]


class OperatorLimit(models.Model):
    """The most that judges at endpoints may spend, set by a superuser; owners of projects cannot change it.

    An empty `endpoint` stands for all endpoints together, an empty `project` for all projects together. What is None sets
    no limit.
    """

    class Period(models.TextChoices):
        DAY = "day", "a day"
        TOTAL = "total", "in total"

    endpoint = models.CharField(max_length=80, blank=True)
    project = models.ForeignKey(
        Project, null=True, blank=True, on_delete=models.CASCADE, related_name="operator_limits"
    )
    period = models.CharField(max_length=10, choices=Period.choices)
    calls = models.PositiveBigIntegerField(null=True, blank=True)
    tokens = models.PositiveBigIntegerField(null=True, blank=True)
    cost_micros = models.PositiveBigIntegerField(null=True, blank=True)

    class Meta:
        ordering = ["endpoint", "project", "period"]
        constraints = [
            models.UniqueConstraint(
                fields=["endpoint", "project", "period"], name="operator_limit_once", nulls_distinct=False
            ),
            models.CheckConstraint(
                condition=Q(calls__isnull=False) | Q(tokens__isnull=False) | Q(cost_micros__isnull=False),
                name="operator_limit_limits",
            ),
        ]


class EndpointRestriction(models.Model):
    """An endpoint that only some projects may use. An endpoint without a row is open to all projects."""

    endpoint = models.CharField(max_length=80, unique=True)
    projects = models.ManyToManyField(Project, related_name="allowed_endpoints")

    class Meta:
        ordering = ["endpoint"]
