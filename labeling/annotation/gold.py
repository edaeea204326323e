"""Gold pairs: everybody gets them, in assignments of their own; whoever fails too many is paused.

`labeling.annotation.actions` calls this while it holds the lock of the person's screen state.
`labeling.access.members.resume_person` ends a pause; `scoring.annotators.known_answers` compares judges with gold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import connection, transaction
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from labeling import audit
from labeling.annotation.assignments import NOTED, SIDE, Claimed, Turn, claimed_by, held_by, release
from labeling.annotation.context import ScreenContext
from labeling.models import Annotator, GoldAnswer, GoldFeedback, Project, SpotCheck
from labeling.stored_texts import stored_text

# Preferences of the scale have two decimals; their differences have rounding errors.
_ROUNDING = 1e-9
TOO_OFTEN_WRONG = stored_text(
    "%(right)s of %(answers)s answers to pairs whose answer is known were as expected (%(share)s); "
    "this project asks for %(expected)s"
)

MOST_EXAMPLES = 3
# The examples of the instruction page: the oldest three gold pairs with an explanation. People do not get them. Where
# gold is scarce, at most every second gold pair becomes an example.
_EXAMPLES = f"""
SELECT shown.pair_id FROM labeling_goldanswer shown JOIN labeling_pair pair ON pair.id = shown.pair_id
WHERE shown.project_id = %(project)s AND shown.explanation <> '' AND pair.query_id IS NOT NULL
ORDER BY shown.id LIMIT (
    SELECT LEAST({MOST_EXAMPLES}, count(*) / 2) FROM labeling_goldanswer WHERE project_id = %(project)s
)
"""


@dataclass(frozen=True, slots=True)
class Feedback:
    """Whether an answer agrees with gold, and the text for the screen, in the order that the person saw."""

    correct: bool
    text: str


def is_right(preference: float | None, gold: float, tolerance: float) -> bool:
    """Whether an answer agrees with gold: it is on gold's side of 1/2, or within the tolerance of gold.

    None stands for "neither is relevant", which counts as a tie.
    """
    given = 0.5 if preference is None else preference
    return (given - 0.5) * (gold - 0.5) > 0.0 or abs(given - gold) <= tolerance + _ROUNDING


@transaction.atomic
def set_gold(pair_id: int, preference: float, *, explanation: str = "", by: Any = None) -> GoldAnswer:
    """Set the right answer of a pair, P(a is the more relevant) in [0, 1]; it replaces an earlier one."""
    gold, _made = GoldAnswer.objects.update_or_create(
        pair_id=pair_id, defaults={"preference": preference, "explanation": explanation}
    )
    note_gold("pair.gold", pair_id, by, preference=round(preference, 4))
    return gold


def note_gold(action: str, pair_id: int, by: Any, **details: Any) -> None:
    """Write the audit entry of a pair that became gold, or is gold no more; in the caller's transaction."""
    project = Project.objects.get(queries__candidates__pairs_as_a=pair_id)
    audit.note(action, project=project, actor=by, subject=f"pair {pair_id}", **details)


def example_pairs(project_id: int) -> list[int]:
    """The gold pairs that are examples on the instruction page, oldest first; people do not get them."""
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
FROM labeling_goldanswer gold
WHERE gold.project_id = %(project)s AND gold.pair_id NOT IN ({_EXAMPLES})
  AND NOT EXISTS (SELECT 1 FROM labeling_spotcheck mine
                  WHERE mine.pair_id = gold.pair_id AND mine.holder_id = %(person)s)
  AND NOT EXISTS (SELECT 1 FROM labeling_live_judgment answer
                  WHERE answer.pair_id = gold.pair_id AND answer.annotator_id = %(person)s AND answer.by_person)
  AND NOT EXISTS (SELECT 1 FROM labeling_pastlease past
                  WHERE past.pair_id = gold.pair_id AND past.annotator_id = %(person)s AND past.skipped)
ORDER BY random() LIMIT 1
RETURNING id, swapped
){NOTED.format(passed="passed")}"""


def claim_gold(turn: Turn) -> Claimed | None:
    """Claim a gold pair that is new to the person and no example; None if there is none."""
    return claimed_by(_AGAIN, turn) or claimed_by(_NEW, turn)


def asked_so_far(person_id: int) -> int:
    """The number of gold pairs that the person has been given."""
    return SpotCheck.objects.filter(holder_id=person_id, slot__isnull=True, reason=SpotCheck.Reason.GOLD).count()


def feedback_on(pair_id: int, preference: float | None, *, context: ScreenContext, swapped: bool) -> Feedback | None:
    """Feedback on an answer to a gold pair; None where the project hides it or the pair is not gold."""
    if context.gold_feedback != GoldFeedback.OPEN:
        return None
    known = GoldAnswer.objects.filter(pair_id=pair_id).first()
    if known is None:
        return None
    gold = known.preference
    correct = is_right(preference, gold, context.gold_tolerance)
    text = _("As expected.") if correct else _in_words(1.0 - gold if swapped else gold)
    return Feedback(correct, f"{text} {known.explanation}".strip())


def _in_words(left: float) -> str:
    """The expected answer in words; `left` = P(the left document is the more relevant)."""
    if abs(left - 0.5) < 0.1:
        return _("Expected: both about equally relevant.")
    if left > 0.5:
        return _("Expected: A is the more relevant.")
    return _("Expected: B is the more relevant.")


# With open feedback a second answer follows feedback on the first, so the first one counts.
_ANSWERS = """
SELECT DISTINCT ON (mine.holder_id, answer.pair_id) mine.holder_id, answer.preference, gold.preference
FROM labeling_spotcheck mine
JOIN labeling_goldanswer gold ON gold.pair_id = mine.pair_id
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
    """Person to (right, all) answers to gold pairs since their last pause; people without such answers are left out.

    `feedback` and `tolerance` are the project's rules for gold; `person_id` limits the result to one person.
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


def gold_record(context: ScreenContext) -> tuple[int, int]:
    """(right, all) answers of the person to gold pairs since their last pause."""
    records = gold_records(
        context.project_id,
        feedback=context.gold_feedback,
        tolerance=context.gold_tolerance,
        person_id=context.person_id,
    )
    return records.get(context.person_id, (0, 0))


def pause_if_failing(context: ScreenContext) -> str:
    """Pause the person if too many of their answers to gold pairs are wrong; returns the reason, or an empty string."""
    right, answers = gold_record(context)
    if answers < context.gold_answers or right >= context.gold_accuracy * answers - _ROUNDING:
        return ""
    reason = TOO_OFTEN_WRONG % {
        "right": right,
        "answers": answers,
        "share": f"{right / answers:.0%}",
        "expected": f"{context.gold_accuracy:.0%}",
    }
    pause_person(Annotator.objects.get(pk=context.person_id), reason)
    return reason


def pause_person(person: Annotator, reason: str) -> bool:
    """Pause a person and end their leases; False if they were paused already."""
    with transaction.atomic():
        paused = Annotator.objects.people().filter(pk=person.pk, paused_at__isnull=True)
        changed = paused.update(paused_at=Now(), pause_reason=reason) == 1
        if changed:
            audit.note("member.paused", project=person.project, subject=person.name, reason=reason[:500])
        release(list(held_by(person.pk).values()), person_id=person.pk)
    person.refresh_from_db()
    return changed
