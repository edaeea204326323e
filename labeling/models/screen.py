"""Tables of the comparison screen beside the assignments: ended leases, state and messages of each person.

`labeling.annotation.assignments` writes the past leases, `labeling.annotation.idempotency` the submissions, and
`labeling.annotation.actions` the rest.
"""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from labeling.models.judgments import Annotator, Judgment
from labeling.models.pairs import Pair


class PastLease(models.Model):
    """An ended lease without an answer: the order in which the person saw the pair, and whether they skipped it.

    A late answer is converted by `swapped`, and the person always sees the pair in this order again.
    """

    annotator = models.ForeignKey(Annotator, on_delete=models.CASCADE, related_name="past_leases")
    pair = models.ForeignKey(Pair, on_delete=models.CASCADE, related_name="past_leases")
    swapped = models.BooleanField()
    skipped = models.BooleanField(default=False, db_default=False)
    ended_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["annotator", "pair"], name="past_lease_once")]


class ScreenState(models.Model):
    """State of the comparison screen of one person in one project; its row lock serialises their messages.

    `side_balance` = pairs shown swapped minus pairs shown in order; `gold_in`: ordinary pairs before the next gold
    pair. `answers` counts the person's live answers, None where they must be counted again; `passed` is the last
    assignment that a claim has looked at. Both keep the cost of an answer constant, and each look at the next pair
    refreshes them.
    """

    person = models.OneToOneField(Annotator, primary_key=True, on_delete=models.CASCADE, related_name="screen_state")
    side_balance = models.IntegerField(default=0, db_default=0)
    gold_in = models.SmallIntegerField(default=1, db_default=1)
    answers = models.PositiveIntegerField(null=True, blank=True)
    passed = models.PositiveBigIntegerField(default=0, db_default=0)

    class Meta:
        db_table = "labeling_desk"


class Submission(models.Model):
    """The stored response to a message of the comparison screen, under the message's own key.

    A message with the same key and body gets the same bytes; one with another body is refused. `response` holds ids
    and order of the pairs, not their texts, which `labeling.annotation.presented_pairs` reads again.
    """

    annotator = models.ForeignKey(Annotator, on_delete=models.CASCADE, related_name="submissions")
    key = models.UUIDField()
    body_hash = models.CharField(max_length=64)
    response = models.TextField()
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [models.UniqueConstraint(fields=["annotator", "key"], name="submission_key_once")]
        indexes = [models.Index(fields=["annotator", "created_at"], name="submission_by_age")]


class SeenAnswers(models.Model):
    """A judgment after which its annotator saw the others' answers or the gold answer of the pair.

    A later answer of the same person to the pair, after an undo, is not blind (`BLIND`).
    """

    judgment = models.OneToOneField(Judgment, primary_key=True, on_delete=models.CASCADE, related_name="seen_answers")

    class Meta:
        db_table = "labeling_told"


# SQL: whether the annotator of the judgment `answer` had not yet seen other answers to its pair.
BLIND = """NOT EXISTS (
    SELECT 1 FROM labeling_judgment earlier JOIN labeling_told seen ON seen.judgment_id = earlier.id
    WHERE earlier.pair_id = answer.pair_id AND earlier.annotator_id = answer.annotator_id AND earlier.id < answer.id)"""
