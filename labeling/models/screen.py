"""Tables of the comparison screen: past leases, per-person state, submissions and shown answers.

`labeling.annotation.assignments` writes past leases; `labeling.annotation.actions` writes the state and submissions.
"""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from labeling.models.judgments import Annotator, Judgment
from labeling.models.pairs import Pair


class PastLease(models.Model):
    """A pair that a person saw but did not answer, and whether they skipped it.

    `swapped` restores the order for a late answer; the person always sees the pair in the same order.
    """

    annotator = models.ForeignKey(Annotator, on_delete=models.CASCADE, related_name="past_leases")
    pair = models.ForeignKey(Pair, on_delete=models.CASCADE, related_name="past_leases")
    swapped = models.BooleanField()
    skipped = models.BooleanField(default=False, db_default=False)
    ended_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["annotator", "pair"], name="past_lease_once")]


class Desk(models.Model):
    """The state of the comparison screen for one person in one project; its lock serialises their requests.

    `side_balance` = pairs shown swapped minus pairs shown in order. `gold_in` is the number of ordinary pairs before
    the next gold pair. Two cached values keep the cost of an answer constant: `answers` counts live answers (None: not
    counted yet), and before the slot `passed` nothing is left for the person. The screen recomputes both when it
    requests the next pair.
    """

    person = models.OneToOneField(Annotator, primary_key=True, on_delete=models.CASCADE, related_name="desk")
    side_balance = models.IntegerField(default=0, db_default=0)
    gold_in = models.SmallIntegerField(default=1, db_default=1)
    answers = models.PositiveIntegerField(null=True, blank=True)
    passed = models.PositiveBigIntegerField(default=0, db_default=0)


class Submission(models.Model):
    """The stored response to a request of the comparison screen, by the request's idempotency key.

    The same key with the same body gets the same response; a different body is rejected. `response` holds the ids and
    the order of the pairs but not their texts, which `labeling.annotation.presented_pairs` reads again.
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
    """An answer after which its annotator saw other answers or the expected one.

    A later answer of the same person to the pair, after an undo, is not blind (`BLIND`).
    """

    judgment = models.OneToOneField(Judgment, primary_key=True, on_delete=models.CASCADE, related_name="told")


# SQL: whether the annotator gave the judgment `answer` before seeing other answers to the pair.
BLIND = """NOT EXISTS (
    SELECT 1 FROM labeling_judgment earlier JOIN labeling_told told ON told.judgment_id = earlier.id
    WHERE earlier.pair_id = answer.pair_id AND earlier.annotator_id = answer.annotator_id AND earlier.id < answer.id)"""
