"""Training runs on frozen snapshots, the rerankers that they publish, and their evaluations."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from labeling.models import Project, visible_through
from scoring.models import Snapshot


class TrainingRun(models.Model):
    """One training of one trainer on one snapshot; seed and options make it repeatable.

    `gate` holds the comparison before publishing (`trainer.evaluation.gate`); a run that is held back has published
    nothing, unless an owner published its reranker anyway.
    """

    class State(models.TextChoices):
        PLANNED = "planned", "planned"
        RUNNING = "running", "running"
        FINISHED = "finished", "finished"
        HELD_BACK = "held_back", "held back"
        FAILED = "failed", "failed"
        CANCELLED = "cancelled", "cancelled"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="training_runs")
    snapshot = models.ForeignKey(Snapshot, on_delete=models.PROTECT, related_name="training_runs")
    trainer = models.CharField(max_length=80)
    options = models.JSONField(default=dict, blank=True)
    seed = models.BigIntegerField(default=0)
    state = models.CharField(max_length=20, choices=State.choices, default=State.PLANNED)
    progress = models.JSONField(default=dict, blank=True)
    gate = models.JSONField(default=dict, blank=True)
    error = models.TextField(blank=True)
    created_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["planned", "running", "finished", "held_back", "failed", "cancelled"]),
                name="training_run_state",
            )
        ]


class Reranker(models.Model):
    """A model that ranks: published by a training run, a base, or an external endpoint.

    A held-back student is measured, but neither listed nor served until an owner publishes it anyway.
    """

    class Release(models.TextChoices):
        PUBLISHED = "published", "published"
        HELD_BACK = "held_back", "held back"
        PUBLISHED_ANYWAY = "published_anyway", "published although it was held back"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="rerankers")
    training_run = models.ForeignKey(
        TrainingRun, null=True, blank=True, on_delete=models.SET_NULL, related_name="rerankers"
    )
    name = models.CharField(max_length=200)
    kind = models.CharField(max_length=40)
    location = models.CharField(max_length=1000, blank=True)
    checksum = models.CharField(max_length=64, blank=True)
    manifest = models.JSONField(default=dict, blank=True)
    release = models.CharField(max_length=20, choices=Release.choices, default=Release.PUBLISHED)
    created_at = models.DateTimeField(db_default=Now())

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="reranker_name_once"),
            models.CheckConstraint(
                condition=Q(release__in=["published", "held_back", "published_anyway"]), name="reranker_release"
            ),
        ]


class Evaluation(models.Model):
    """The result of one reranker on one split of a snapshot against one reference, grades or Elo.

    `metrics` holds intervals over all queries, by domain, and the values by query; `scores` each document's score, in
    the order of the split's queries (`trainer.evaluation.leaderboard.packed`).
    """

    reranker = models.ForeignKey(Reranker, on_delete=models.CASCADE, related_name="evaluations")
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="evaluations")
    snapshot = models.ForeignKey(Snapshot, on_delete=models.PROTECT, related_name="evaluations")
    split = models.CharField(max_length=40)
    reference = models.CharField(max_length=40)
    metrics = models.JSONField(default=dict)
    scores = models.BinaryField(default=bytes)
    created_at = models.DateTimeField(db_default=Now())

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["reranker", "snapshot", "split", "reference"], name="evaluation_once"),
            models.CheckConstraint(condition=Q(reference__in=["grades", "elo"]), name="evaluation_reference"),
        ]
