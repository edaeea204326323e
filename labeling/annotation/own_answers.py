"""One person's own answers in a project: the latest answers as they were shown, and the number per day."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.db.models import Count
from django.db.models.aggregates import Aggregate
from django.db.models.fields import FloatField
from django.db.models.functions import TruncDate
from django.utils import timezone

from labeling.annotation.answer_scale import nearest_step, reason_buttons
from labeling.models import Annotator, Judgment
from labeling.records import AnswerKind

DAYS = 14


class _Median(Aggregate):
    function = "PERCENTILE_CONT"
    template = "%(function)s(0.5) WITHIN GROUP (ORDER BY %(expressions)s)"
    output_field = FloatField()


@dataclass(frozen=True, slots=True)
class OwnAnswer:
    """One answer; `left` and `right` are as the person saw them, `answer` is one of the screen's values."""

    left_query: str
    right_query: str
    left: str
    right: str
    answer: str
    note: str
    at: datetime

    @property
    def is_cross_query(self) -> bool:
        return self.left_query != self.right_query


@dataclass(frozen=True, slots=True)
class Day:
    """One day's answers; `seconds` is the median time per pair, or None if no time was recorded."""

    day: date
    answers: int
    seconds: float | None


def latest_answers(person: Annotator, *, start: int = 0, most: int = 25) -> list[OwnAnswer]:
    """Return the person's current answers, latest first."""
    judgments = (
        Judgment.objects.live()
        .filter(annotator=person)
        .select_related("pair__a__document", "pair__b__document", "pair__a__query", "pair__b__query", "rationale")
        .order_by("-id")
    )
    return [_as_seen(judgment) for judgment in judgments[start : start + most]]


def answer_of(judgment: Judgment) -> str:
    """Return the screen's value of this judgment, in the order in which the pair was shown."""
    if judgment.kind == AnswerKind.BOTH_IRRELEVANT:
        return "neither"
    if judgment.kind == AnswerKind.CANNOT_JUDGE or judgment.preference is None:
        return "cannot_judge"
    return nearest_step(1.0 - judgment.preference if judgment.swapped else judgment.preference)


def _as_seen(judgment: Judgment) -> OwnAnswer:
    left, right = judgment.pair.a, judgment.pair.b
    if judgment.swapped:
        left, right = right, left
    rationale = getattr(judgment, "rationale", None)
    answer = answer_of(judgment)
    return OwnAnswer(
        left_query=left.query.text,
        right_query=right.query.text,
        left=left.document.text,
        right=right.document.text,
        answer=answer,
        note=_in_words(answer, rationale.text) if rationale else "",
        at=judgment.created_at,
    )


def _in_words(answer: str, note: str) -> str:
    """Return the note; for "cannot judge", the stored reason code before it is replaced by the reason's label."""
    if answer != "cannot_judge":
        return note
    reason, _, rest = note.partition(": ")
    label = {each["value"]: each["label"] for each in reason_buttons()}.get(reason)
    return note if label is None else ": ".join(part for part in (label, rest) if part)


def answers_a_day(person: Annotator) -> list[Day]:
    """Return the number of current answers on each of the last `DAYS` days that has any, latest first."""
    since = timezone.now() - timedelta(days=DAYS)
    rows = (
        Judgment.objects.live()
        .filter(annotator=person, created_at__gte=since)
        .annotate(day=TruncDate("created_at"))
        .values("day")
        .annotate(answers=Count("id"), seconds=_Median("spot_check__seconds"))
        .order_by("-day")
    )
    return [Day(day=row["day"], answers=row["answers"], seconds=row["seconds"]) for row in rows]
