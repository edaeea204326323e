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


class Deployment(models.Model):
    """A stable name that programs call; requests to it are answered by its current version, a reranker of the project.

    `variant` answers the keys in its share (an A/B test); `shadow` computes a share of the requests after their answers, for
    comparison only. `log_share` percent of the requests are stored with their texts, for `log_days`. `dropped` counts
    those that were to be stored or compared and were not, because the web server had too many waiting.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="deployments")
    name = models.CharField(max_length=80)
    current = models.ForeignKey(Reranker, on_delete=models.CASCADE, related_name="current_of")
    previous = models.ForeignKey(Reranker, null=True, blank=True, on_delete=models.SET_NULL, related_name="previous_of")
    variant = models.ForeignKey(Reranker, null=True, blank=True, on_delete=models.SET_NULL, related_name="variant_of")
    variant_share = models.PositiveSmallIntegerField(default=0, db_default=0)
    shadow = models.ForeignKey(Reranker, null=True, blank=True, on_delete=models.SET_NULL, related_name="shadow_of")
    shadow_share = models.PositiveSmallIntegerField(default=0, db_default=0)
    log_share = models.PositiveSmallIntegerField(default=0, db_default=0)
    log_days = models.PositiveSmallIntegerField(default=30, db_default=30)
    dropped = models.PositiveBigIntegerField(default=0, db_default=0)
    created_at = models.DateTimeField(db_default=Now())

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="deployment_name_once"),
            models.CheckConstraint(
                condition=Q(variant_share__lte=100, shadow_share__lte=100, log_share__lte=100),
                name="deployment_shares_are_percent",
            ),
            models.CheckConstraint(condition=Q(log_days__gte=1, log_days__lte=365), name="deployment_log_days"),
        ]

    def __str__(self) -> str:
        return self.name


class LoggedRequest(models.Model):
    """One request of a deployment as it is kept: texts redacted, scores as answered; never the key or the user.

    `documents` is a list of {"text", "place", "score"}: place from 1 in the request's order, score null if it was not
    returned. `imported_at` is set once the request has become a query of the project.
    """

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="requests")
    reranker = models.ForeignKey(Reranker, null=True, on_delete=models.SET_NULL, related_name="+")
    is_variant = models.BooleanField(default=False)
    query = models.TextField()
    documents = models.JSONField(default=list)
    redactions = models.PositiveIntegerField(default=0)
    milliseconds = models.PositiveIntegerField(default=0)
    at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    imported_at = models.DateTimeField(null=True, blank=True)

    objects = visible_through("deployment__project").as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["deployment", "-id"], name="logged_request_newest"),
            models.Index(fields=["expires_at"], name="logged_request_expiry"),
        ]


class ShadowResult(models.Model):
    """The difference between the shadow's order of one request and the answer's; without texts.

    `tau` is Kendall's tau over the documents that were returned, `same_top` the part of the ten best that both have.
    """

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="shadow_results")
    reranker = models.ForeignKey(Reranker, null=True, on_delete=models.SET_NULL, related_name="+")
    shadow = models.ForeignKey(Reranker, null=True, on_delete=models.SET_NULL, related_name="+")
    documents = models.PositiveIntegerField()
    tau = models.FloatField(null=True)
    same_top = models.FloatField()
    milliseconds = models.PositiveIntegerField()
    shadow_milliseconds = models.PositiveIntegerField()
    at = models.DateTimeField(db_default=Now())

    objects = visible_through("deployment__project").as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["deployment", "-id"], name="shadow_result_newest")]
