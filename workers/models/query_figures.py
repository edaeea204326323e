"""Stored figures: of queries, by which their list sorts and filters, and of whole projects, for their pages.

`workers.monitoring.query_figures` and `workers.monitoring.project_figures` measure them.
"""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from labeling.models import Project, Query, visible_through


class QueryFigures(models.Model):
    """The figures of one query, as they were for the fit of `fitted_at`. None where there is nothing to measure.

    `ndcg`: NDCG@10 of Elo against people's grades; `certainty`: expected recall of the true top ten; `disagreement`: mean
    distance between the judges' highest and lowest preference on a pair, in [0, 1]; `spend_micros`: the query's share of
    its judges' spend, each answer of a judge having the same share; `gain`: NDCG@10 of the latest student minus its base's.
    """

    query = models.OneToOneField(Query, primary_key=True, on_delete=models.CASCADE, related_name="figures")
    ndcg = models.FloatField(null=True, blank=True)
    certainty = models.FloatField(null=True, blank=True)
    disagreement = models.FloatField(null=True, blank=True)
    spend_micros = models.PositiveBigIntegerField(default=0)
    gain = models.FloatField(null=True, blank=True)
    fitted_at = models.DateTimeField()
    measured_at = models.DateTimeField(db_default=Now())

    objects = visible_through("query__project").as_manager()


class CertaintyPoint(models.Model):
    """The mean certainty of a project's rated queries at a time, estimated on `queries` of them; the chart reads them."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="+")
    at = models.DateTimeField(db_default=Now())
    certainty = models.FloatField()
    lowest = models.FloatField()
    queries = models.PositiveIntegerField()

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["id"]


class ProjectFigure(models.Model):
    """A figure that takes long to compute for a large project, as it was at `measured_at`; `value` is None until then.

    `took_ms`: how long it took. `wanted_at`: when a page last asked for a newer one, which the task `measure` computes.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="+", db_index=False)
    name = models.CharField(max_length=40)
    value = models.JSONField(null=True, blank=True)
    measured_at = models.DateTimeField(null=True, blank=True)
    took_ms = models.PositiveIntegerField(default=0)
    wanted_at = models.DateTimeField(null=True, blank=True)

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["project", "name"], name="project_figure_once")]
