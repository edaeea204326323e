"""Tables of fits, scores, judge measurements, calibrations, snapshots, spot check plans and adjudications."""

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
    """The live score of one candidate.

    `theta` is in the fit's natural units, mean zero in its query; `judged_version` is the fitted version of the query.
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
            # NaN and infinity compare greater than every number.
            models.CheckConstraint(
                condition=Q(
                    theta__gt=-1e9, theta__lt=1e9, stderr__gte=0.0, stderr__lt=1e9, elo__gt=-1e12, elo__lt=1e12
                ),
                name="score_is_finite",
            ),
        ]


class QueryFit(models.Model):
    """The result of a query's last fit. `bias` is in units of theta; None without cross-query answers.

    Biases are comparable within one `bias_island` (a connected group; 0 is the largest). `calibration_id` is the
    Calibration of the query's scores, `project_version` the version of the ProjectFit of its strengths. `threshold`: the
    strength in theta's units below which "neither is relevant" is the likelier answer; None without such answers.
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
    threshold = models.FloatField(null=True, blank=True)
    calibration_version = models.PositiveIntegerField(default=0)
    calibration_id = models.BigIntegerField(null=True, blank=True)
    project_version = models.PositiveIntegerField(db_default=0)
    judged_version = models.BigIntegerField()
    error = models.TextField(blank=True)
    fitted_at = models.DateTimeField(db_default=Now())

    objects = visible_through("query__project").as_manager()


class ProjectFit(models.Model):
    """Shared parameters of all fits of a project: the prior's precision and the weights of judges.

    A change of either increments `version`, and fits of an older version are stale. `losses`: (precision,
    log-loss) of each tried value. `judge_terms`: annotator id to (sharpness, position bias, weight),
    empty where all count alike. `correlations`: (annotator, annotator, correlation of residuals). `says_neither`: ids of
    the annotators who have answered "neither is relevant".
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
    says_neither = models.JSONField(default=list, blank=True, db_default=[])
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
    """Measurements of one annotator in a project: sharpness, position bias, dispersion and vote weight.

    They use `votes` of the judge and `anchors` answers of people and graded pairs as reference. With 0 anchors the
    reference is the joint strengths of all judges, which shared errors can mislead. `call_correlation`: how strongly the
    preferences of one call about a set are correlated, measured on `calls` calls; None before it is measured.
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
    call_correlation = models.FloatField(null=True, blank=True)
    call_correlation_stderr = models.FloatField(null=True, blank=True)
    calls = models.PositiveIntegerField(default=0, db_default=0)
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
        """Return the snapshots whose projects `user` may all read.

        A snapshot of two projects shows the scores of both; annotators judge blind and read none.
        """
        read = Project.objects.visible_to(user)
        if not getattr(user, "is_superuser", False):
            blind = Membership.objects.filter(user_id=user.pk or 0, role=Role.ANNOTATOR).values("project")
            read = read.exclude(pk__in=blind)
        hidden = Project.with_archived.exclude(pk__in=read.values("pk"))
        of_hidden = Snapshot.projects.through.objects.filter(project__in=hidden).values("snapshot")
        of_any = Snapshot.projects.through.objects.values("snapshot")
        return self.filter(pk__in=of_any).exclude(pk__in=of_hidden)


class Snapshot(models.Model):
    """Frozen, checksummed scores for training; never edited."""

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
    """A plan of spot checks: the pairs for people and the reason. `checks` are its slots, `gold` its gold answers.

    `pairs` of the `wanted` number were found; the same seed with the same answers draws the same pairs.
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
    """An owner's verdict on a pair: a marked judgment of the owner.

    `replaced` is the owner's earlier answer; withdrawing the adjudication restores it.
    """

    pair = models.OneToOneField(Pair, on_delete=models.CASCADE, related_name="adjudication")
    judgment = models.OneToOneField(Judgment, on_delete=models.CASCADE, related_name="adjudication")
    replaced = models.ForeignKey(Judgment, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    at = models.DateTimeField(db_default=Now())

    objects = visible_through("pair__a__query__project").as_manager()


# SQL: whether the judgment `answer` is an independent opinion: not a verdict, which its owner gives after seeing all
# opinions, and not a new answer after seeing others.
INDEPENDENT = f"""
    NOT EXISTS (SELECT 1 FROM scoring_adjudication verdict WHERE verdict.judgment_id = answer.id) AND {BLIND}"""
