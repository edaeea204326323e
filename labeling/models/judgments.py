"""Annotators, their judgments and their rationales. Only `labeling.judgments` writes judgments."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from labeling.models.fields import MessageField
from labeling.models.pairs import Pair
from labeling.models.projects import Project, VisibleQuerySet
from labeling.records import AnswerKind


class AnnotatorQuerySet(VisibleQuerySet["Annotator"]):
    def judges(self) -> AnnotatorQuerySet:
        return self.filter(is_person=False)

    def offered(self) -> AnnotatorQuerySet:
        """The judges that a new run, trial or teaching may choose: all but the retired ones."""
        return self.filter(is_person=False, retired_at__isnull=True)

    def people(self) -> AnnotatorQuerySet:
        return self.filter(is_person=True)


class Annotator(models.Model):
    """A judge (one model configuration) or a person. Changed options make a new annotator.

    A paused annotator gets no questions until somebody resumes it; answers before `watched_from` do not count towards
    another pause. `instruction_read` is the hash of the instruction that a person has confirmed
    (`labeling.annotation.instruction`). A retired judge is paused, and is not offered for new runs; its answers remain.
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
    pause_reason = MessageField(blank=True, db_default="")
    retired_at = models.DateTimeField(null=True, blank=True)
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
            # Makes `is_person` a part of the row's key, which the check of judgments locks.
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
            models.CheckConstraint(
                condition=Q(retired_at__isnull=True) | Q(paused_at__isnull=False, is_person=False),
                name="annotator_retired_is_paused_judge",
            ),
        ]

    def __str__(self) -> str:
        return self.name


def config_hash(**configuration: Any) -> str:
    """SHA-256 of a configuration; the order of keys does not matter."""
    canonical = json.dumps(configuration, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


# The live judgments of an annotator or a pair, in a query about its `judgments`.
LIVE_JUDGMENTS = Q(judgments__superseded_at__isnull=True)


class JudgmentQuerySet(VisibleQuerySet["Judgment"]):
    project_path = "annotator__project"

    def live(self) -> JudgmentQuerySet:
        """Return the judgments that no undo or correction has superseded."""
        return self.filter(superseded_at__isnull=True)

    def preferences(self) -> JudgmentQuerySet:
        """Live judgments with a preference: the input of a fit."""
        return self.live().filter(kind=AnswerKind.PREFERENCE)


ANSWER_KINDS = [(kind.value, kind.value.replace("_", " ")) for kind in AnswerKind]


class Judgment(models.Model):
    """One annotator's answer on one pair in one order. `preference` = P(a is the more relevant).

    A judgment is live until an undo or a correction supersedes it. SQL reads live judgments from the view
    `labeling_live_judgment`, the ORM by `Judgment.objects.live()`. Judgments of one call about a set of documents have the
    same `call` (the id of its task); `call_size` counts the documents, `place_a` and `place_b` say where the two stood.
    """

    pair = models.ForeignKey(Pair, on_delete=models.CASCADE, related_name="judgments")
    # Triggers compare annotator and `by_person` once a statement (`0022_keys_checked_at_once`); `judgment_by_annotator` is its index.
    annotator = models.ForeignKey(
        Annotator, on_delete=models.PROTECT, related_name="judgments", db_constraint=False, db_index=False
    )
    by_person = models.BooleanField(default=False)
    swapped = models.BooleanField(default=False)
    kind = models.CharField(max_length=20, choices=ANSWER_KINDS, default=AnswerKind.PREFERENCE.value)
    preference = models.FloatField(null=True, blank=True)
    truncated = models.BooleanField(default=False)
    call = models.BigIntegerField(null=True, blank=True)
    call_size = models.PositiveSmallIntegerField(null=True, blank=True)
    place_a = models.PositiveSmallIntegerField(null=True, blank=True)
    place_b = models.PositiveSmallIntegerField(null=True, blank=True)
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
            models.CheckConstraint(
                condition=Q(call__isnull=True, call_size__isnull=True, place_a__isnull=True, place_b__isnull=True)
                | Q(
                    call__isnull=False,
                    call_size__gte=3,
                    place_a__lt=models.F("call_size"),
                    place_b__lt=models.F("call_size"),
                )
                & ~Q(place_a=models.F("place_b")),
                name="judgment_places_fit_call",
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
            # Counts of a person, in all and today, need this index alone.
            models.Index(
                fields=["annotator", "created_at"],
                condition=Q(by_person=True, superseded_at__isnull=True),
                name="judgment_live_of_person",
            ),
        ]

    @property
    def is_live(self) -> bool:
        """Whether no undo or correction has superseded the judgment."""
        return self.superseded_at is None


class Rationale(models.Model):
    """The reason that an annotator gave; in a table of its own, so that judgments stay narrow."""

    judgment = models.OneToOneField(Judgment, primary_key=True, on_delete=models.CASCADE, related_name="rationale")
    text = models.TextField()
