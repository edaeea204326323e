"""Gold pairs: asked of everybody, each in a slot of one's own; who fails them is paused until an owner lets them go on.

Called by `labeling.annotation.actions` while it holds the person's desk. `labeling.access.members.resume_person` lets them go on;
what gold says of *judges* is in `scoring.annotators.known_answers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from labeling import audit
from labeling.annotation.assignments import NOTED, SIDE, Claimed, Turn, claimed_by, held_by, release
from labeling.annotation.context import Seat
from labeling.models import Annotator, GoldFeedback, Project, SpotCheck
from labeling.stored_texts import stored_text

# Strengths are two decimals, their differences are not.
_ROUNDING = 1e-9
TOO_OFTEN_WRONG = stored_text(
    "%(right)s of %(answers)s answers to pairs whose answer is known were as expected (%(share)s); "
    "this project asks for %(expected)s"
)

MOST_EXAMPLES = 3
# The known pairs that the instruction page explains, the oldest three with an explanation. They are not asked. Where
# gold is scarce it is for asking: no more than every second known pair becomes an example.
_EXAMPLES = f"""
SELECT shown.pair_id FROM labeling_spotcheck shown JOIN labeling_pair pair ON pair.id = shown.pair_id
WHERE shown.project_id = %(project)s AND shown.gold_preference IS NOT NULL AND shown.explanation <> ''
  AND pair.query_id IS NOT NULL
ORDER BY shown.id LIMIT (
    SELECT LEAST({MOST_EXAMPLES}, count(*) / 2) FROM labeling_spotcheck
    WHERE project_id = %(project)s AND gold_preference IS NOT NULL
)
"""


@dataclass(frozen=True, slots=True)
class Feedback:
    """How an answer compares with what is known, in words of the sides as they were shown."""

    correct: bool
    text: str


def is_right(preference: float | None, gold: float, tolerance: float) -> bool:
    """Whether an answer (None: neither is relevant) fits: on the gold's side of 1/2, or within the tolerance of it.

    "Neither" takes no side, as a tie does.
    """
    given = 0.5 if preference is None else preference
    return (given - 0.5) * (gold - 0.5) > 0.0 or abs(given - gold) <= tolerance + _ROUNDING


@transaction.atomic
def set_gold(pair_id: int, preference: float, *, explanation: str = "", by: Any = None) -> SpotCheck:
    """Say what the right answer of a pair is: P(a is the more relevant) in [0, 1]. Said again, the last one holds."""
    gold, _made = SpotCheck.objects.update_or_create(
        pair_id=pair_id,
        gold_preference__isnull=False,
        defaults={"gold_preference": preference, "explanation": explanation, "reason": SpotCheck.Reason.GOLD},
        create_defaults={
            "gold_preference": preference,
            "explanation": explanation,
            "reason": SpotCheck.Reason.GOLD,
            "slot": None,
        },
    )
    note_gold("pair.gold", pair_id, by, preference=round(preference, 4))
    return gold


def note_gold(action: str, pair_id: int, by: Any, **details: Any) -> None:
    """Write the audit entry of a pair that became gold, or is gold no more; in the caller's transaction."""
    project = Project.objects.get(queries__candidates__pairs_as_a=pair_id)
    audit.note(action, project=project, actor=by, subject=f"pair {pair_id}", **details)


def example_pairs(project_id: int) -> list[int]:
    """The pairs that the instruction page explains, and that are therefore not asked as gold, oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(_EXAMPLES, {"project": project_id})
        return [row[0] for row in cursor.fetchall()]


_AGAIN = f"""
WITH taken AS (
UPDATE labeling_spotcheck
SET place = %(place)s, leased_at = clock_timestamp(),
    lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
WHERE id = (
    SELECT put_off.id FROM labeling_spotcheck put_off
    WHERE put_off.holder_id = %(person)s AND put_off.slot IS NULL AND put_off.reason = 'gold'
      AND put_off.judgment_id IS NULL AND put_off.place IS NULL AND put_off.id <> %(answering)s
      AND put_off.pair_id NOT IN ({_EXAMPLES})
      AND NOT EXISTS (SELECT 1 FROM labeling_pastlease past WHERE past.pair_id = put_off.pair_id
                      AND past.annotator_id = %(person)s AND past.skipped)
    ORDER BY put_off.id LIMIT 1
)
RETURNING id, swapped
){NOTED.format(passed="passed")}"""

_NEW = f"""
WITH taken AS (
INSERT INTO labeling_spotcheck (pair_id, slot, reason, holder_id, place, swapped, leased_at, lease_until)
SELECT gold.pair_id, NULL, 'gold', %(person)s, %(place)s, {SIDE.format(pair="gold.pair_id")},
       clock_timestamp(), clock_timestamp() + make_interval(secs => %(lease_s)s)
FROM labeling_spotcheck gold
WHERE gold.project_id = %(project)s AND gold.gold_preference IS NOT NULL AND gold.pair_id NOT IN ({_EXAMPLES})
  AND NOT EXISTS (SELECT 1 FROM labeling_spotcheck mine
                  WHERE mine.pair_id = gold.pair_id AND mine.holder_id = %(person)s)
  AND NOT EXISTS (SELECT 1 FROM labeling_judgment answer
                  WHERE answer.pair_id = gold.pair_id AND answer.annotator_id = %(person)s AND answer.by_person
                    AND answer.superseded_at IS NULL)
  AND NOT EXISTS (SELECT 1 FROM labeling_pastlease past
                  WHERE past.pair_id = gold.pair_id AND past.annotator_id = %(person)s AND past.skipped)
ORDER BY random() LIMIT 1
RETURNING id, swapped
){NOTED.format(passed="passed")}"""


def claim_gold(turn: Turn) -> Claimed | None:
    """A slot of the person's own for a gold pair that they have not met, any but the examples; None: they met all."""
    return claimed_by(_AGAIN, turn) or claimed_by(_NEW, turn)


def asked_so_far(person_id: int) -> int:
    """How many gold pairs have come before the person."""
    return SpotCheck.objects.filter(holder_id=person_id, slot__isnull=True, reason=SpotCheck.Reason.GOLD).count()


def feedback_on(pair_id: int, preference: float | None, *, seat: Seat, swapped: bool) -> Feedback | None:
    """What a person is told of an answer to a gold pair; None where the project keeps that to itself."""
    if seat.gold_feedback != GoldFeedback.OPEN:
        return None
    known = SpotCheck.objects.filter(pair_id=pair_id, gold_preference__isnull=False).first()
    if known is None or known.gold_preference is None:
        return None
    gold = known.gold_preference
    correct = is_right(preference, gold, seat.gold_tolerance)
    text = _("As expected.") if correct else _in_words(1.0 - gold if swapped else gold)
    return Feedback(correct, f"{text} {known.explanation}".strip())


def _in_words(left: float) -> str:
    """The expected answer, `left` = P(the left document is the more relevant)."""
    if abs(left - 0.5) < 0.1:
        return _("Expected: both about equally relevant.")
    if left > 0.5:
        return _("Expected: A is the more relevant.")
    return _("Expected: B is the more relevant.")


# With open feedback a second answer has seen the first one's, so that the first one counts.
_ANSWERS = """
SELECT DISTINCT ON (mine.holder_id, answer.pair_id) mine.holder_id, answer.preference, gold.gold_preference
FROM labeling_spotcheck mine
JOIN labeling_spotcheck gold ON gold.pair_id = mine.pair_id AND gold.gold_preference IS NOT NULL
JOIN labeling_judgment answer ON answer.pair_id = mine.pair_id AND answer.annotator_id = mine.holder_id
JOIN labeling_annotator person ON person.id = mine.holder_id
WHERE mine.project_id = %(project)s AND (%(person)s::bigint IS NULL OR mine.holder_id = %(person)s)
  AND mine.slot IS NULL AND mine.reason = 'gold' AND answer.kind <> 'cannot_judge'
  AND (%(open)s OR answer.superseded_at IS NULL)
  AND (person.watched_from IS NULL OR answer.created_at >= person.watched_from)
ORDER BY mine.holder_id, answer.pair_id, answer.id
"""


def gold_records(
    project_id: int, *, feedback: str, tolerance: float, person_id: int | None = None
) -> dict[int, tuple[int, int]]:
    """Person to (right, all) answers to gold pairs since they were last let go on; without who answered none.

    `feedback` and `tolerance`: the project's rules for gold. `person_id`: of this person alone.
    """
    values = {"project": project_id, "person": person_id, "open": feedback == GoldFeedback.OPEN}
    with connection.cursor() as cursor:
        cursor.execute(_ANSWERS, values)
        answers = cursor.fetchall()
    found: dict[int, tuple[int, int]] = {}
    for person, given, gold in answers:
        right, count = found.get(person, (0, 0))
        found[person] = right + is_right(given, gold, tolerance), count + 1
    return found


def gold_record(seat: Seat) -> tuple[int, int]:
    """(right, all) answers of the person to gold pairs since they were last let go on."""
    records = gold_records(
        seat.project_id, feedback=seat.gold_feedback, tolerance=seat.gold_tolerance, person_id=seat.person_id
    )
    return records.get(seat.person_id, (0, 0))


def pause_if_failing(seat: Seat) -> str:
    """Pause the person whose answers to gold pairs are too often wrong; the reason, empty where they go on."""
    right, answers = gold_record(seat)
    if answers < seat.gold_answers or right >= seat.gold_accuracy * answers - _ROUNDING:
        return ""
    reason = TOO_OFTEN_WRONG % {
        "right": right,
        "answers": answers,
        "share": f"{right / answers:.0%}",
        "expected": f"{seat.gold_accuracy:.0%}",
    }
    pause_person(Annotator.objects.get(pk=seat.person_id), reason)
    return reason


def pause_person(person: Annotator, reason: str) -> bool:
    """Ask the person nothing more, and say why; others get what lay before them. False where they were paused."""
    with transaction.atomic():
        paused = Annotator.objects.people().filter(pk=person.pk, paused_at__isnull=True)
        changed = paused.update(paused_at=Now(), pause_reason=reason) == 1
        if changed:
            audit.note("member.paused", project=person.project, subject=person.name, reason=reason[:500])
        release(list(held_by(person.pk).values()), person_id=person.pk)
    person.refresh_from_db()
    return changed
