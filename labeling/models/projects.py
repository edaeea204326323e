"""Projects, their members, one-time links and API keys."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Now

Viewer = AbstractBaseUser | AnonymousUser


ModelT = TypeVar("ModelT", bound=models.Model)


class VisibleQuerySet(models.QuerySet[ModelT]):
    """Querysets of rows that belong to a project; `project_path` is the lookup of the project.

    Nobody sees the rows of an archived project, superusers included.
    """

    project_path = "project"

    def visible_to(self, user: Viewer) -> VisibleQuerySet[ModelT]:
        """Rows of projects that `user` owns or views; annotators, who judge blind, see the project row only."""
        if not user.is_authenticated or not user.is_active:
            return self.none()
        if getattr(user, "is_superuser", False):
            unarchived = f"{self.project_path}__archived_at__isnull".removeprefix("__")
            return self.filter(**{unarchived: True})
        mine = Membership.objects.filter(user_id=user.pk, project__archived_at__isnull=True)
        if not self.project_path:
            return self.filter(pk__in=mine.values("project_id"))
        return self.filter(**{f"{self.project_path}__in": mine.exclude(role=Role.ANNOTATOR).values("project_id")})


def visible_through(path: str) -> type[VisibleQuerySet[Any]]:
    """A VisibleQuerySet class with the project lookup `path` ('' for Project itself)."""
    return type("VisibleQuerySet", (VisibleQuerySet,), {"project_path": path})


class Role(models.TextChoices):
    OWNER = "owner", "owner"
    ANNOTATOR = "annotator", "annotator"
    VIEWER = "viewer", "viewer"


class GoldFeedback(models.TextChoices):
    """Whether people get feedback on their answers to gold pairs."""

    HIDDEN = "hidden", "hidden"
    OPEN = "open", "open"


class ProjectQuerySet(VisibleQuerySet["Project"]):
    project_path = ""

    def archived_by(self, user: Viewer) -> ProjectQuerySet:
        """The archived projects that `user` owns, for superusers all; the latest first. Start from `with_archived`."""
        found = self.filter(archived_at__isnull=False).order_by("-archived_at", "-id")
        if not user.is_authenticated or not user.is_active:
            return self.none()
        if getattr(user, "is_superuser", False):
            return found
        owned = Membership.objects.filter(user_id=user.pk, role=Role.OWNER).values("project_id")
        return found.filter(pk__in=owned)


class UnarchivedManager(models.Manager.from_queryset(ProjectQuerySet)):  # type: ignore[misc]
    """The projects that exist for everybody; archived ones wait for their purge."""

    def get_queryset(self) -> ProjectQuerySet:
        return ProjectQuerySet(self.model, using=self._db).filter(archived_at__isnull=True)


class Project(models.Model):
    """A set of queries and documents with their judgments; access rights are granted by project.

    An archived project was deleted: `objects` leaves it out, `with_archived` holds it until it is purged or restored
    (`workers.deletion.projects`).
    """

    name = models.CharField(max_length=200)
    slug = models.SlugField(max_length=80, unique=True)
    instruction = models.TextField(blank=True)
    rubric = models.JSONField(default=list, blank=True, db_default=Value([], models.JSONField()))
    rater = models.CharField(max_length=80, default="thurstone")
    rater_options = models.JSONField(default=dict, blank=True)
    calibration_version = models.PositiveIntegerField(default=0)
    # Rules for comparing, see `labeling.annotation.rules`.
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
    archived_at = models.DateTimeField(null=True, blank=True)
    members = models.ManyToManyField(settings.AUTH_USER_MODEL, through="Membership", related_name="projects")

    objects: ClassVar[Any] = UnarchivedManager()
    with_archived = ProjectQuerySet.as_manager()

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
    """The role of a user in a project. `quota`: the largest number of answers; None: no limit."""

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
    """A one-time link that signs a user in, or invites a new user to a project. The database keeps its hash only."""

    token_hash = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE)
    project = models.ForeignKey(Project, null=True, blank=True, on_delete=models.CASCADE)
    role = models.CharField(max_length=20, choices=Role.choices, blank=True)
    # The person whom an invitation is for; a newcomer who gives no other name has this one.
    name = models.CharField(max_length=150, blank=True, db_default="")
    # An invitation is valid while its maker may invite; None: made on the server.
    made_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="+"
    )
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
    """A key with which a program acts as a user, within `scopes`. The database keeps its hash only."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=100)
    token_hash = models.CharField(max_length=64, unique=True)
    scopes = models.JSONField(default=list, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True, blank=True)
    used_at = models.DateTimeField(null=True, blank=True)
