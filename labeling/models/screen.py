"""Tables of the comparison screen beside the slots: what a person saw, what is remembered of them, what was answered.

Neighbours: `labeling.annotation.assignments` writes past leases, `labeling.annotation.actions` desks and submissions.
"""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from labeling.models.judgments import Annotator, Judgment
from labeling.models.pairs import Pair


class PastLease(models.Model):
    """A pair that a person had before them and did not answer: what they saw, and whether they skipped it.

    A late answer is turned round by `swapped`; the same pair always comes to the same person in this order.
    """

    annotator = models.ForeignKey(Annotator, on_delete=models.CASCADE, related_name="past_leases")
    pair = models.ForeignKey(Pair, on_delete=models.CASCADE, related_name="past_leases")
    swapped = models.BooleanField()
    skipped = models.BooleanField(default=False, db_default=False)
    ended_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["annotator", "pair"], name="past_lease_once")]


class Desk(models.Model):
    """What the comparison screen remembers of one person in one project; its lock serialises what they send.

    `side_balance` = pairs shown swapped minus pairs shown in order; `gold_in`: so many ordinary pairs before the
    next gold one. So that an answer costs the same after a hundred as after a hundred thousand: `answers` that stand,
    None where they have to be counted, and `passed`, the slot before which nothing was left for the person. Both are
    found anew whenever the screen asks what is next.
    """

    person = models.OneToOneField(Annotator, primary_key=True, on_delete=models.CASCADE, related_name="desk")
    side_balance = models.IntegerField(default=0, db_default=0)
    gold_in = models.SmallIntegerField(default=1, db_default=1)
    answers = models.PositiveIntegerField(null=True, blank=True)
    passed = models.PositiveBigIntegerField(default=0, db_default=0)


class Submission(models.Model):
    """What was answered to a message of the comparison screen, by the message's own key.

    The same key with the same body gets the same bytes again; with another body it is refused. Of the pairs that came
    with it `response` holds which they are and how they lay, not their texts: `labeling.annotation.presented_pairs` reads those again.
    """

    annotator = models.ForeignKey(Annotator, on_delete=models.CASCADE, related_name="submissions")
    key = models.UUIDField()
    body_hash = models.CharField(max_length=64)
    response = models.TextField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["annotator", "key"], name="submission_key_once")]
        indexes = [models.Index(fields=["annotator", "created_at"], name="submission_by_age")]


class Told(models.Model):
    """An answer after which its annotator was shown what others answered, or what was expected.

    One that the same person gives to the pair later, after an undo, is not blind (`BLIND`).
    """

    judgment = models.OneToOneField(Judgment, primary_key=True, on_delete=models.CASCADE, related_name="told")


# SQL: whether the judgment `answer` was given before its annotator was told anything of the pair.
BLIND = """NOT EXISTS (
    SELECT 1 FROM labeling_judgment earlier JOIN labeling_told told ON told.judgment_id = earlier.id
    WHERE earlier.pair_id = answer.pair_id AND earlier.annotator_id = answer.annotator_id AND earlier.id < answer.id)"""
