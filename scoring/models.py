"""What fits leave behind: live scores, how well each fit went, judges' figures, frozen snapshots; and what owners
plan and decide by them: spot checks and adjudications.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from labeling.models import (
    Annotator,
    Candidate,
    GoldAnswer,
    Judgment,
    Membership,
    Pair,
    Project,
    Query,
    Role,
    SpotCheck,
    Viewer,
    VisibleQuerySet,
    visible_through,
)
from labeling.models.screen import BLIND


class Score(models.Model):
    """The live score of one candidate. `theta` in the fit's natural units, mean zero in its query;
    `judged_version` says up to where the query was fitted.
    """

    candidate = models.OneToOneField(Candidate, primary_key=True, on_delete=models.CASCADE, related_name="score")
    theta = models.FloatField()
    stderr = models.FloatField()
    elo = models.FloatField()
    elo_stderr = models.FloatField()
    relevance = models.FloatField()
    calibrated = models.BooleanField(default=False)
    comparisons = models.PositiveIntegerField(default=0)
    island = models.PositiveIntegerField(default=0)
    undefeated = models.BooleanField(default=False)
    winless = models.BooleanField(default=False)
    judged_version = models.BigIntegerField()
    fitted_at = models.DateTimeField(db_default=Now())

    objects = visible_through("candidate__query__project").as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(relevance__gte=0.0, relevance__lte=1.0), name="score_relevance_in_range"
            ),
            # NaN and infinity compare above every number.
            models.CheckConstraint(
                condition=Q(
                    theta__gt=-1e9, theta__lt=1e9, stderr__gte=0.0, stderr__lt=1e9, elo__gt=-1e12, elo__lt=1e12
                ),
                name="score_is_finite",
            ),
        ]


class QueryFit(models.Model):
    """How the last fit of a query went. `bias` in units of theta; None where no cross-query pair was answered.

    Biases can be compared within one `bias_island` (0 is the largest). `calibration_id` names the Calibration
    that the query's scores show, `project_version` the ProjectFit that its strengths were fitted with.
    """

    query = models.OneToOneField(Query, primary_key=True, on_delete=models.CASCADE, related_name="fit")
    rater = models.CharField(max_length=80)
    prior_precision = models.FloatField()
    logit_scale = models.FloatField()
    dispersion = models.FloatField()
    gradient_norm = models.FloatField()
    iterations = models.PositiveIntegerField()
    islands = models.PositiveIntegerField()
    pairs = models.PositiveIntegerField()
    judgments = models.PositiveIntegerField()
    bias = models.FloatField(null=True, blank=True)
    bias_stderr = models.FloatField(null=True, blank=True)
    bias_island = models.PositiveIntegerField(null=True, blank=True)
    calibration_version = models.PositiveIntegerField(default=0)
    calibration_id = models.BigIntegerField(null=True, blank=True)
    project_version = models.PositiveIntegerField(db_default=0)
    judged_version = models.BigIntegerField()
    error = models.TextField(blank=True)
    fitted_at = models.DateTimeField(db_default=Now())

    objects = visible_through("query__project").as_manager()


class ProjectFit(models.Model):
    """What all fits of a project share: the prior's precision, and how much each judge's votes count.

    `version` rises when either changes, and fits of an older version are stale. `losses`: (precision,
    log-loss) of each that was tried. `judge_terms`: annotator id to (sharpness, position bias, weight),
    empty where all count alike. `correlations`: (annotator, annotator, correlation of residuals).
    """

    project = models.OneToOneField(Project, primary_key=True, on_delete=models.CASCADE, related_name="fit")
    version = models.PositiveIntegerField(default=1)
    rater = models.CharField(max_length=80)
    prior_precision = models.FloatField(null=True, blank=True)
    cross_validated = models.BooleanField(default=False)
    dispersion = models.FloatField(null=True, blank=True)
    losses = models.JSONField(default=list, blank=True)
    pairs = models.PositiveBigIntegerField(default=0)
    judge_terms = models.JSONField(default=dict, blank=True)
    correlations = models.JSONField(default=list, blank=True)
    judgments = models.PositiveBigIntegerField(default=0)
    chosen_at = models.DateTimeField(db_default=Now())
    calibrated_version = models.PositiveIntegerField(default=0)
    calibrated_at = models.DateTimeField(null=True, blank=True)

    objects = visible_through("project").as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(prior_precision__isnull=True) | Q(prior_precision__gt=0.0, prior_precision__lt=1e9),
                name="project_fit_prior_is_positive",
            )
        ]


class JudgeFit(models.Model):
    """One annotator's figures over a project: sharpness, position bias, dispersion, what a vote weighs.

    `votes` of the judge were measured; against `anchors` answers of people and graded pairs, or, where that is
    0, against the strengths that all judges gave together, which judges who share their errors can mislead.
    """

    annotator = models.OneToOneField(Annotator, primary_key=True, on_delete=models.CASCADE, related_name="fit")
    sharpness = models.FloatField(null=True, blank=True)
    sharpness_stderr = models.FloatField(null=True, blank=True)
    position_bias = models.FloatField(null=True, blank=True)
    position_bias_stderr = models.FloatField(null=True, blank=True)
    dispersion = models.FloatField(null=True, blank=True)
    weight = models.FloatField(null=True, blank=True)
    votes = models.PositiveIntegerField(default=0)
    anchors = models.PositiveIntegerField(default=0)
    fitted_at = models.DateTimeField(db_default=Now())

    objects = visible_through("annotator__project").as_manager()


class Calibration(models.Model):
    """One version of a project's cross-query biases and of its map from score to relevance."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="calibrations")
    version = models.PositiveIntegerField()
    method = models.CharField(max_length=20, blank=True)
    parameters = models.JSONField(default=dict, blank=True)
    prior_precision = models.FloatField(null=True, blank=True)
    answers = models.PositiveIntegerField(default=0)
    ece = models.FloatField(null=True, blank=True)
    islands = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField(db_default=Now())

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["project", "-version"]
        constraints = [models.UniqueConstraint(fields=["project", "version"], name="calibration_version_once")]


class SnapshotQuerySet(VisibleQuerySet["Snapshot"]):
    def visible_to(self, user: Viewer) -> SnapshotQuerySet:
        """Snapshots of which `user` may read every project: one that joins two shows the scores of both, and
        annotators, who judge blind, read none.
        """
        read = Project.objects.visible_to(user)
        if not getattr(user, "is_superuser", False):
            blind = Membership.objects.filter(user_id=user.pk or 0, role=Role.ANNOTATOR).values("project")
            read = read.exclude(pk__in=blind)
        hidden = Project.objects.exclude(pk__in=read.values("pk"))
        of_hidden = Snapshot.projects.through.objects.filter(project__in=hidden).values("snapshot")
        of_any = Snapshot.projects.through.objects.values("snapshot")
        return self.filter(pk__in=of_any).exclude(pk__in=of_hidden)


class Snapshot(models.Model):
    """Frozen, checksummed scores that a training run learns from; never edited."""

    projects = models.ManyToManyField(Project, related_name="snapshots")
    name = models.CharField(max_length=200)
    location = models.CharField(max_length=1000)
    checksum = models.CharField(max_length=64)
    rows = models.PositiveBigIntegerField()
    manifest = models.JSONField(default=dict)
    created_at = models.DateTimeField(db_default=Now())

    objects = SnapshotQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]


class SpotCheckPlan(models.Model):
    """One order of spot checks: which pairs people are to judge, and why. `checks` are its slots, `gold` its gold answers.

    `pairs` were found of those `wanted`; the same seed over the same answers draws the same.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="spot_check_plans")
    reason = models.CharField(max_length=20, choices=SpotCheck.Reason.choices)
    wanted = models.PositiveIntegerField()
    pairs = models.PositiveIntegerField()
    overlap = models.PositiveSmallIntegerField(default=1)
    seed = models.BigIntegerField()
    checks = models.ManyToManyField(SpotCheck, related_name="plans")
    gold = models.ManyToManyField(GoldAnswer, related_name="plans")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(db_default=Now())
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["-id"]


class Adjudication(models.Model):
    """An owner's last word on a pair: a judgment of the owner's own that is marked as such.

    `replaced` is what the owner had answered before; it stands again if the adjudication is taken back.
    """

    pair = models.OneToOneField(Pair, on_delete=models.CASCADE, related_name="adjudication")
    judgment = models.OneToOneField(Judgment, on_delete=models.CASCADE, related_name="adjudication")
    replaced = models.ForeignKey(Judgment, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    at = models.DateTimeField(db_default=Now())

    objects = visible_through("pair__a__query__project").as_manager()


# SQL: whether the judgment `answer` is what its annotator thought by themselves: no verdict, which was given with all
# opinions in sight, and not given anew after the others' were shown.
INDEPENDENT = f"""
    NOT EXISTS (SELECT 1 FROM scoring_adjudication verdict WHERE verdict.judgment_id = answer.id) AND {BLIND}"""
