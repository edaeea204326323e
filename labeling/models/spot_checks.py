"""Spot checks: slots in which people compare pairs."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from labeling.models.judgments import Annotator, Judgment
from labeling.models.pairs import Pair
from labeling.models.projects import Project, visible_through


class SpotCheck(models.Model):
    """A slot in which one person judges one pair; a lease reserves it for them.

    A numbered slot is open to anybody; a pair has one for each wanted opinion. A slot without a number belongs to its
    holder: a gold pair for that person, or a late answer after another person had taken the slot. `place` is set while
    the holder sees the slot: 1 is the current pair, 2 the next one. The database sets `project` from the pair.
    `GoldAnswer` says whether a pair is gold.
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
                condition=Q(judgment__isnull=True, slot__isnull=False),
                name="spot_check_open",
            ),
            # Finds the gold pairs among a person's answers.
            models.Index(fields=["holder"], condition=Q(slot__isnull=True), name="spot_check_own"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["pair", "slot"], name="spot_check_slot_once_a_pair"),
            models.UniqueConstraint(
                fields=["pair", "holder"], condition=Q(holder__isnull=False), name="spot_check_person_once_a_pair"
            ),
            models.UniqueConstraint(
                fields=["holder", "place"], condition=Q(place__isnull=False), name="spot_check_place_once_a_person"
            ),
            models.CheckConstraint(
                condition=Q(slot__isnull=False) | Q(holder__isnull=False), name="spot_check_private_slot_has_holder"
            ),
            models.CheckConstraint(
                condition=Q(lease_until__isnull=True) | Q(holder__isnull=False), name="spot_check_lease_has_holder"
            ),
            models.CheckConstraint(
                condition=Q(lease_until__isnull=True, place__isnull=True)
                | Q(lease_until__isnull=False, place__isnull=False),
                name="spot_check_lease_has_place",
            ),
            models.CheckConstraint(
                condition=Q(place__isnull=True) | Q(place__in=[1, 2]), name="spot_check_place_is_1_or_2"
            ),
            models.CheckConstraint(
                condition=Q(judgment__isnull=True) | Q(holder__isnull=False), name="spot_check_answer_has_holder"
            ),
            models.CheckConstraint(
                condition=Q(judgment__isnull=True) | Q(lease_until__isnull=True), name="spot_check_answer_ends_lease"
            ),
            models.CheckConstraint(
                condition=Q(seconds__isnull=True) | Q(seconds__gte=0.0, seconds__lte=86400.0),
                name="spot_check_seconds_within_a_day",
            ),
        ]
