"""Tables of the lowest floor: texts, candidates, pairs, judgments and who may see them.

What must hold is a constraint in the database; what is asked often is a queryset method. Judgments
are inserted by `labeling.judgments.record_judgments` alone.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Now

from labeling.records import AnswerKind

Viewer = AbstractBaseUser | AnonymousUser
ModelT = TypeVar("ModelT", bound=models.Model)


class VisibleQuerySet(models.QuerySet[ModelT]):
    """Querysets of rows that belong to a project; `project_path` is the lookup that leads there."""

    project_path = "project"

    def visible_to(self, user: Viewer) -> VisibleQuerySet[ModelT]:
        """The rows of projects that `user` owns or views; annotators, who judge blind, see the project alone."""
        if not user.is_authenticated or not user.is_active:
            return self.none()
        if getattr(user, "is_superuser", False):
            return self.all()
        mine = Membership.objects.filter(user_id=user.pk)
        if not self.project_path:
            return self.filter(pk__in=mine.values("project_id"))
        return self.filter(**{f"{self.project_path}__in": mine.exclude(role=Role.ANNOTATOR).values("project_id")})


def visible_through(path: str) -> type[VisibleQuerySet[Any]]:
    """A VisibleQuerySet whose rows reach their project by the lookup `path` ('' for Project itself)."""
    return type("VisibleQuerySet", (VisibleQuerySet,), {"project_path": path})


class Role(models.TextChoices):
    OWNER = "owner", "owner"
    ANNOTATOR = "annotator", "annotator"
    VIEWER = "viewer", "viewer"


class GoldFeedback(models.TextChoices):
    """Whether a person is told at once how an answer to a gold pair compares."""

    HIDDEN = "hidden", "hidden"
    OPEN = "open", "open"


class ProjectQuerySet(VisibleQuerySet["Project"]):
    project_path = ""


class Project(models.Model):
    """Queries, documents and everything judged of them; the border of access rights."""

    name = models.CharField(max_length=200)
    slug = models.SlugField(max_length=80, unique=True)
    instruction = models.TextField(blank=True)
    rater = models.CharField(max_length=80, default="thurstone")
    rater_options = models.JSONField(default=dict, blank=True)
    calibration_version = models.PositiveIntegerField(default=0)
    # How people compare: how often gold comes, what it shows and decides, what is kept from them.
    gold_every = models.PositiveSmallIntegerField(db_default=10, default=10)
    gold_feedback = models.CharField(
        max_length=10, choices=GoldFeedback.choices, default=GoldFeedback.HIDDEN, db_default=GoldFeedback.HIDDEN
    )
    gold_answers = models.PositiveSmallIntegerField(db_default=5, default=5)
    gold_accuracy = models.FloatField(db_default=0.7, default=0.7)
    gold_tolerance = models.FloatField(db_default=0.25, default=0.25)
    show_others_after = models.BooleanField(db_default=False, default=False)
    hidden_metadata = models.JSONField(default=list, blank=True, db_default=Value([], models.JSONField()))
    lease_s = models.PositiveSmallIntegerField(db_default=300, default=300)
    created_at = models.DateTimeField(db_default=Now())
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, through="Membership", related_name="projects")

    objects = ProjectQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(condition=Q(gold_feedback__in=GoldFeedback.values), name="project_gold_feedback"),
            models.CheckConstraint(
                condition=Q(gold_accuracy__gte=0.0, gold_accuracy__lte=1.0)
                & Q(gold_tolerance__gte=0.0, gold_tolerance__lte=1.0)
                & Q(gold_answers__gte=1),
                name="project_gold_in_range",
            ),
            models.CheckConstraint(condition=Q(lease_s__gte=10, lease_s__lte=7200), name="project_lease_in_range"),
        ]

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """Who may do what in a project. `quota`: the most answers that the person is asked for; None: no bound."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    role = models.CharField(max_length=20, choices=Role.choices)
    quota = models.PositiveIntegerField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["project", "user"], name="membership_once"),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="membership_role"),
        ]


class AccessLink(models.Model):
    """A one-time link: signs a user in, or invites a newcomer to a project. Only its hash is kept."""

    token_hash = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE)
    project = models.ForeignKey(Project, null=True, blank=True, on_delete=models.CASCADE)
    role = models.CharField(max_length=20, choices=Role.choices, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(user__isnull=False) | Q(project__isnull=False, role__in=Role.values),
                name="access_link_leads_somewhere",
            )
        ]


class ApiToken(models.Model):
    """A key with which a program acts as a user. Only its hash is kept; `scopes` limit what it may."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    token_hash = models.CharField(max_length=64, unique=True)
    scopes = models.JSONField(default=list, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True, blank=True)
    used_at = models.DateTimeField(null=True, blank=True)


class Query(models.Model):
    """A query text. `judged_version` rises in the transaction that stores judgments of the query."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="queries")
    external_id = models.CharField(max_length=500)
    text = models.TextField()
    domain = models.CharField(max_length=100, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    judged_version = models.BigIntegerField(default=0)

    objects = visible_through("project").as_manager()

    class Meta:
        verbose_name_plural = "queries"
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["project", "external_id"], name="query_external_id")]

    def __str__(self) -> str:
        return self.text


class Document(models.Model):
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="documents")
    external_id = models.CharField(max_length=500)
    text = models.TextField()
    metadata = models.JSONField(default=dict, blank=True)

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["project", "external_id"], name="document_external_id")]

    def __str__(self) -> str:
        return self.external_id


class Candidate(models.Model):
    """One (query, document): it is what gets a score. A grade is a person's, never a judge's."""

    query = models.ForeignKey(Query, on_delete=models.CASCADE, related_name="candidates")
    document = models.ForeignKey(Document, on_delete=models.CASCADE, related_name="candidates")
    first_stage_rank = models.PositiveIntegerField(null=True, blank=True)
    first_stage_score = models.FloatField(null=True, blank=True)
    grade = models.PositiveSmallIntegerField(null=True, blank=True)

    objects = visible_through("query__project").as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["query", "document"], name="candidate_once"),
            # Target of the composite foreign key that keeps Pair.query true.
            models.UniqueConstraint(fields=["id", "query"], name="candidate_of_query"),
            models.CheckConstraint(
                condition=Q(first_stage_rank__isnull=True) | Q(first_stage_rank__gte=1), name="candidate_rank_from_1"
            ),
        ]


class PairQuerySet(VisibleQuerySet["Pair"]):
    project_path = "a__query__project"

    def unjudged_by(self, annotator: Annotator) -> PairQuerySet:
        """Pairs without a live judgment by `annotator`."""
        answered = Judgment.objects.live().filter(annotator=annotator, pair_id=models.OuterRef("pk"))
        return self.exclude(models.Exists(answered))


class Pair(models.Model):
    """Two candidates to be compared, a before b by id. `query` is theirs, None across queries."""

    a = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="pairs_as_a")
    b = models.ForeignKey(Candidate, on_delete=models.CASCADE, related_name="pairs_as_b")
    query = models.ForeignKey(Query, null=True, blank=True, on_delete=models.CASCADE, related_name="pairs")

    objects = PairQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["a", "b"], name="pair_once"),
            models.CheckConstraint(condition=Q(a__lt=F("b")), name="pair_in_order"),
        ]


class AnnotatorQuerySet(VisibleQuerySet["Annotator"]):
    def judges(self) -> AnnotatorQuerySet:
        return self.filter(is_person=False)

    def people(self) -> AnnotatorQuerySet:
        return self.filter(is_person=True)


class Annotator(models.Model):
    """Who judges: one model configuration, or one person. Changed options are a new annotator.

    A paused judge is asked nothing until somebody lets it go on; answers from before `watched_from` no longer
    count for the alarm that may have paused it. `instruction_read` is the hash of the instruction that a person
    said to have read, see `labeling.instruction`.
    """

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="annotators")
    name = models.CharField(max_length=200)
    is_person = models.BooleanField(default=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL)
    plugin = models.CharField(max_length=80, blank=True)
    options = models.JSONField(default=dict, blank=True)
    prompt_hash = models.CharField(max_length=64, blank=True)
    model_revision = models.CharField(max_length=200, blank=True)
    config_hash = models.CharField(max_length=64)
    paused_at = models.DateTimeField(null=True, blank=True)
    pause_reason = models.TextField(blank=True, db_default="")
    watched_from = models.DateTimeField(null=True, blank=True)
    instruction_read = models.CharField(max_length=64, blank=True, db_default="")
    created_at = models.DateTimeField(db_default=Now())

    objects = AnnotatorQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["project", "config_hash"], name="annotator_config_once"),
            models.UniqueConstraint(
                fields=["project", "user"], condition=Q(user__isnull=False), name="annotator_person_once"
            ),
            # Target of the composite foreign key that keeps Judgment.by_person true.
            models.UniqueConstraint(fields=["id", "is_person"], name="annotator_is_person"),
            models.CheckConstraint(
                condition=Q(is_person=True, plugin="") | (Q(is_person=False, user__isnull=True) & ~Q(plugin="")),
                name="annotator_model_or_person",
            ),
            models.CheckConstraint(
                condition=Q(paused_at__isnull=True, pause_reason="")
                | (Q(paused_at__isnull=False) & ~Q(pause_reason="")),
                name="annotator_pause_has_reason",
            ),
        ]

    def __str__(self) -> str:
        return self.name


def config_hash(**configuration: Any) -> str:
    """SHA-256 of a configuration, the same for equal values in any key order."""
    canonical = json.dumps(configuration, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


class JudgmentQuerySet(VisibleQuerySet["Judgment"]):
    project_path = "annotator__project"

    def live(self) -> JudgmentQuerySet:
        """Answers that stand: not superseded by an undo or a correction."""
        return self.filter(superseded_at__isnull=True)

    def preferences(self) -> JudgmentQuerySet:
        """Live answers that enter a fit."""
        return self.live().filter(kind=AnswerKind.PREFERENCE)


ANSWER_KINDS = [(kind.value, kind.value.replace("_", " ")) for kind in AnswerKind]


class Judgment(models.Model):
    """One annotator's answer on one pair in one order. `preference` = P(a is the more relevant)."""

    pair = models.ForeignKey(Pair, on_delete=models.CASCADE, related_name="judgments")
    annotator = models.ForeignKey(Annotator, on_delete=models.PROTECT, related_name="judgments")
    by_person = models.BooleanField(default=False)
    swapped = models.BooleanField(default=False)
    kind = models.CharField(max_length=20, choices=ANSWER_KINDS, default=AnswerKind.PREFERENCE.value)
    preference = models.FloatField(null=True, blank=True)
    truncated = models.BooleanField(default=False)
    created_at = models.DateTimeField(db_default=Now())
    superseded_at = models.DateTimeField(null=True, blank=True)

    objects = JudgmentQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.CheckConstraint(
                # NaN sorts above every number in PostgreSQL, so <= 1 rejects it.
                condition=Q(kind="preference", preference__isnull=False, preference__gte=0.0, preference__lte=1.0)
                | Q(kind__in=["both_irrelevant", "cannot_judge"], preference__isnull=True),
                name="judgment_preference_in_range",
            ),
            models.UniqueConstraint(
                fields=["pair", "annotator", "swapped"],
                condition=Q(superseded_at__isnull=True, by_person=False),
                name="judgment_live_once_by_model",
            ),
            models.UniqueConstraint(
                fields=["pair", "annotator"],
                condition=Q(superseded_at__isnull=True, by_person=True),
                name="judgment_live_once_by_person",
            ),
        ]
        indexes = [
            models.Index(fields=["annotator", "id"], name="judgment_by_annotator"),
            # How far a person is, and how far today, from the index alone.
            models.Index(
                fields=["annotator", "created_at"],
                condition=Q(by_person=True, superseded_at__isnull=True),
                name="judgment_live_of_person",
            ),
        ]


class Rationale(models.Model):
    """Why an annotator answered so; beside the hot table, so that it stays narrow."""

    judgment = models.OneToOneField(Judgment, primary_key=True, on_delete=models.CASCADE, related_name="rationale")
    text = models.TextField()


class SpotCheck(models.Model):
    """A slot in which one person judges one pair; a lease holds it while they think.

    A numbered slot is for whoever comes first: a pair has as many as it shall have opinions. One without a number
    is its holder's alone: a gold pair asked of that person, or an opinion that came after another had taken over.
    A row with a `gold_preference` says that the pair's answer is known, and is never asked itself. `place` is set
    while the slot lies before its holder: 1 or 2, what is looked at and what comes next. The database fills
    `project` in from the pair.
    """

    class Reason(models.TextChoices):
        RANDOM = "random", "random"
        DISAGREEMENT = "disagreement", "judges disagree"
        UNCERTAIN = "uncertain", "uncertain"
        CROSS_QUERY = "cross_query", "cross-query"
        GOLD = "gold", "gold"

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="spot_checks", editable=False)
    pair = models.ForeignKey(Pair, on_delete=models.CASCADE, related_name="spot_checks")
    slot = models.PositiveSmallIntegerField(null=True, blank=True, default=0)
    reason = models.CharField(max_length=20, choices=Reason.choices, default=Reason.RANDOM)
    priority = models.SmallIntegerField(default=0, db_default=0)
    gold_preference = models.FloatField(null=True, blank=True)
    explanation = models.TextField(blank=True, default="", db_default="")
    holder = models.ForeignKey(Annotator, null=True, blank=True, on_delete=models.CASCADE, related_name="spot_checks")
    place = models.PositiveSmallIntegerField(null=True, blank=True)
    swapped = models.BooleanField(default=False, db_default=False)
    leased_at = models.DateTimeField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    judgment = models.OneToOneField(
        Judgment, null=True, blank=True, on_delete=models.SET_NULL, related_name="spot_check"
    )
    seconds = models.FloatField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    objects = visible_through("project").as_manager()

    class Meta:
        ordering = ["id"]
        indexes = [
            models.Index(
                fields=["project", "-priority", "id"],
                condition=Q(judgment__isnull=True, gold_preference__isnull=True, slot__isnull=False),
                name="spot_check_open",
            ),
            models.Index(fields=["project"], condition=Q(gold_preference__isnull=False), name="spot_check_gold"),
            # A person's own: gold that they were asked, among all that they answered.
            models.Index(fields=["holder"], condition=Q(slot__isnull=True), name="spot_check_own"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["pair", "slot"], name="spot_check_slot_once"),
            models.UniqueConstraint(
                fields=["pair", "holder"], condition=Q(holder__isnull=False), name="spot_check_person_once_a_pair"
            ),
            models.UniqueConstraint(
                fields=["pair"], condition=Q(gold_preference__isnull=False), name="spot_check_gold_once_a_pair"
            ),
            models.UniqueConstraint(
                fields=["holder", "place"], condition=Q(place__isnull=False), name="spot_check_two_before_a_person"
            ),
            models.CheckConstraint(
                condition=Q(lease_until__isnull=True) | Q(holder__isnull=False), name="spot_check_lease_has_holder"
            ),
            models.CheckConstraint(
                condition=Q(lease_until__isnull=True, place__isnull=True)
                | Q(lease_until__isnull=False, place__in=[1, 2], judgment__isnull=True),
                name="spot_check_lease_has_place",
            ),
            models.CheckConstraint(
                condition=Q(judgment__isnull=True) | Q(holder__isnull=False), name="spot_check_answer_has_holder"
            ),
            models.CheckConstraint(
                condition=Q(slot__isnull=False) | Q(holder__isnull=False) | Q(gold_preference__isnull=False),
                name="spot_check_unnumbered_is_somebodys",
            ),
            models.CheckConstraint(
                condition=Q(gold_preference__isnull=True) | Q(gold_preference__gte=0.0, gold_preference__lte=1.0),
                name="spot_check_gold_in_range",
            ),
            models.CheckConstraint(
                condition=Q(gold_preference__isnull=True) | Q(holder__isnull=True, judgment__isnull=True),
                name="spot_check_gold_is_not_asked_itself",
            ),
            models.CheckConstraint(
                condition=Q(seconds__isnull=True) | Q(seconds__gte=0.0, seconds__lte=86400.0),
                name="spot_check_seconds_in_range",
            ),
        ]


# Tables of a file of their own, which Django finds through this one.
from labeling import desk_models  # noqa: E402, F401
