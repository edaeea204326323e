"""What runs have spent, and what projects may spend. `workers.budgets` reads and enforces both."""

from __future__ import annotations

from django.db import models

from labeling.models import Project, visible_through
from workers.models.runs import Run


class Spend(models.Model):
    """What one judge has spent in one run: running totals of its attempts, spread over some rows (`shard`).

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
    """What the deleted runs of a project had spent, so that deleting a run frees none of the project's limits."""

    project = models.OneToOneField(Project, primary_key=True, on_delete=models.CASCADE, related_name="deleted_spend")
    calls = models.PositiveBigIntegerField(default=0)
    input_tokens = models.PositiveBigIntegerField(default=0)
    output_tokens = models.PositiveBigIntegerField(default=0)
    cost_micros = models.PositiveBigIntegerField(default=0)

    objects = visible_through("project").as_manager()
