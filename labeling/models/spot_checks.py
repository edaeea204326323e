"""Spot checks: the assignments of pairs to people."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from labeling.models.judgments import Annotator, Judgment
from labeling.models.pairs import Pair
from labeling.models.projects import Project, visible_through


class SpotCheck(models.Model):
    """An assignment: one person judges one pair. A lease reserves it for its holder.

    Anybody may claim an assignment with a `slot` number; a pair has one for each opinion it needs. One without a number
    is private to its holder: a gold pair, or a late answer whose lease somebody else has taken. A lease has a `place`:
    1 for the pair on the screen, 2 for the next one. The database sets `project` from the pair. `GoldAnswer` says which
    pairs are gold.
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
            # The private assignments of a person, among all that they answered.
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
