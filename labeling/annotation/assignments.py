"""Slots of spot checks and the leases that hold them: each change one statement, by the database's clock.

A claim skips what others are just taking (SKIP LOCKED); unique constraints of `SpotCheck` make two holders of a
slot, or three slots before a person, impossible. Callers hold the lock of the person's desk (`labeling.annotation.actions`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection

from labeling.models import SpotCheck

PLACES = (1, 2)
Values = dict[str, int | str | bool | list[int]]

# A pair comes to a person in the order in which they saw it before, if they did.
SIDE = "COALESCE((SELECT swapped FROM labeling_pastlease WHERE annotator_id = %(person)s AND pair_id = {pair}), %(swapped)s)"


@dataclass(frozen=True, slots=True)
class Assignment:
    """One slot as it stands. `free`: a numbered one that nobody holds or has answered."""

    id: int
    pair_id: int
    holder_id: int | None
    judgment_id: int | None
    reason: str
    swapped: bool
    free: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """What a claim needs to know: for whom, where it is to lie, in which order unless the pair has been seen before,
    for how long, and after how many more ordinary pairs gold comes. `answering`: the slot whose answer is being stored;
    `passed`: where the last claim stopped, 0 to look from the start.
    """

    project_id: int
    person_id: int
    place: int
    swapped: bool
    lease_s: int
    gold_in: int
    answering: int = 0
    passed: int = 0

    @property
    def values(self) -> Values:
        return {
            "project": self.project_id, "person": self.person_id, "place": self.place, "swapped": self.swapped,
            "lease_s": self.lease_s, "gold_in": self.gold_in, "answering": self.answering,
            "passed": self.passed,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Claimed:
    """A slot that has just come before a person, and the order in which they see its documents."""

    id: int
    swapped: bool


# Every claim ends so: the desk remembers what came, and in which order.
NOTED = """
, noted AS (
    UPDATE labeling_desk SET gold_in = %(gold_in)s, passed = {passed},
           side_balance = side_balance + CASE WHEN taken.swapped THEN 1 ELSE -1 END
    FROM taken WHERE person_id = %(person)s
)
SELECT id, swapped FROM taken
"""

_CLAIM = f"""
WITH fresh AS (
    SELECT open.id, open.pair_id, open.holder_id, open.swapped FROM labeling_spotcheck open
    WHERE open.project_id = %(project)s AND open.judgment_id IS NULL
      AND open.slot IS NOT NULL AND (open.lease_until IS NULL OR open.lease_until < clock_timestamp())
      AND {{where}}
      AND NOT EXISTS (SELECT 1 FROM labeling_spotcheck mine
                      WHERE mine.pair_id = open.pair_id AND mine.holder_id = %(person)s)
      AND NOT EXISTS (SELECT 1 FROM labeling_live_judgment answer
                      WHERE answer.pair_id = open.pair_id AND answer.annotator_id = %(person)s AND answer.by_person)
      AND NOT EXISTS (SELECT 1 FROM labeling_pastlease past
                      WHERE past.pair_id = open.pair_id AND past.annotator_id = %(person)s AND past.skipped)
    ORDER BY open.priority DESC, open.id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
), lapsed AS (
    INSERT INTO labeling_pastlease (annotator_id, pair_id, swapped)
    SELECT holder_id, pair_id, swapped FROM fresh WHERE holder_id IS NOT NULL
    ON CONFLICT (annotator_id, pair_id) DO NOTHING
), taken AS (
    UPDATE labeling_spotcheck slot
    SET holder_id = %(person)s, place = %(place)s, swapped = {SIDE.format(pair="slot.pair_id")},
        leased_at = clock_timestamp(), lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
    FROM fresh WHERE slot.id = fresh.id
    RETURNING slot.id, slot.swapped, slot.priority
){NOTED.format(passed="CASE WHEN taken.priority = 0 THEN taken.id ELSE 0 END")}"""

_FROM_START = _CLAIM.format(where="TRUE")
# The slots before are not looked at again: there are as many as the person has answered while others' opinions of the
# same pairs are open.
_FROM_PASSED = _CLAIM.format(
    where="""open.priority = 0 AND open.id > %(passed)s
      AND NOT EXISTS (SELECT 1 FROM labeling_spotcheck urgent
                      WHERE urgent.project_id = %(project)s AND urgent.judgment_id IS NULL
                        AND urgent.slot IS NOT NULL AND urgent.priority > 0)"""
)


def claim(turn: Turn) -> Claimed | None:
    """The next open slot in planned order whose pair the person has neither answered nor skipped; None: none left.

    Behind `turn.passed` if there is one; what has come free before it is then found when nothing else is left, or when
    somebody looks from the start.
    """
    behind = claimed_by(_FROM_PASSED, turn) if turn.passed else None
    return behind or claimed_by(_FROM_START, turn)


def claimed_by(statement: str, turn: Turn) -> Claimed | None:
    """What one claiming statement came back with."""
    with connection.cursor() as cursor:
        cursor.execute(statement, turn.values)
        row = cursor.fetchone()
    return Claimed(*row) if row else None


_FIND = """
SELECT slot.id, slot.pair_id, slot.holder_id, slot.judgment_id, slot.reason, slot.swapped,
       slot.slot IS NOT NULL AND slot.holder_id IS NULL
FROM labeling_spotcheck asked
JOIN labeling_spotcheck slot ON slot.pair_id = asked.pair_id AND (slot.id = asked.id OR slot.holder_id = %(person)s)
WHERE asked.id = %(slot)s AND asked.project_id = %(project)s
ORDER BY slot.holder_id = %(person)s DESC NULLS LAST LIMIT 1 FOR NO KEY UPDATE OF slot
"""


def find_assignment(assignment_id: int, *, project_id: int, person_id: int) -> Assignment | None:
    """The slot, locked; or the one in which the person holds or answered the same pair."""
    with connection.cursor() as cursor:
        cursor.execute(_FIND, {"slot": assignment_id, "project": project_id, "person": person_id})
        row = cursor.fetchone()
    return Assignment(*row) if row else None


_TAKE_FREE = "UPDATE labeling_spotcheck SET holder_id = %(person)s, swapped = %(swapped)s WHERE id = %(slot)s"
_TAKE_EXTRA = """
INSERT INTO labeling_spotcheck (pair_id, slot, reason, holder_id, swapped)
VALUES (%(pair)s, NULL, %(reason)s, %(person)s, %(swapped)s) RETURNING id
"""


def take_late(assignment: Assignment, *, person_id: int, swapped: bool) -> int:
    """Where a late answer goes: into the slot while it is free, otherwise beside it. The slot's id."""
    values: Values = {
        "slot": assignment.id,
        "pair": assignment.pair_id,
        "reason": assignment.reason,
        "person": person_id,
        "swapped": swapped,
    }
    with connection.cursor() as cursor:
        if assignment.free:
            cursor.execute(_TAKE_FREE, values)
            return assignment.id
        cursor.execute(_TAKE_EXTRA, values)
        return int(cursor.fetchone()[0])


_RELEASE = """
WITH freed AS (
    UPDATE labeling_spotcheck
    SET place = NULL, lease_until = NULL, holder_id = CASE WHEN slot IS NULL THEN holder_id END
    WHERE id = ANY(%s) AND holder_id = %s AND judgment_id IS NULL
    RETURNING pair_id, swapped
)
INSERT INTO labeling_pastlease (annotator_id, pair_id, swapped, skipped)
SELECT %s, pair_id, swapped, %s FROM freed
ON CONFLICT (annotator_id, pair_id) DO UPDATE
SET skipped = labeling_pastlease.skipped OR excluded.skipped, ended_at = statement_timestamp()
"""


def release(assignment_ids: Sequence[int], *, person_id: int, skipped: bool = False) -> None:
    """Let others have these slots; what was seen of them is remembered, and not asked again where it was skipped."""
    if assignment_ids:
        with connection.cursor() as cursor:
            cursor.execute(_RELEASE, [list(assignment_ids), person_id, person_id, skipped])


def held_by(person_id: int) -> dict[int, int]:
    """Place to slot of what lies before the person, in the order in which it came."""
    lying = SpotCheck.objects.filter(holder_id=person_id, place__isnull=False).order_by("leased_at", "id")
    return {place: assignment for place, assignment in lying.values_list("place", "id") if place is not None}


def end_lease(assignment_id: int) -> None:
    """Make room before its holder: the slot is about to be answered."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE labeling_spotcheck SET place = NULL, lease_until = NULL WHERE id = %s", [assignment_id])


_ANSWERED = """
WITH done AS (
    UPDATE labeling_spotcheck SET judgment_id = %s, seconds = %s, place = NULL, lease_until = NULL WHERE id = %s
    RETURNING holder_id
)
UPDATE labeling_desk SET answers = answers + 1 FROM done WHERE person_id = done.holder_id
"""


def mark_answered(assignment_id: int, *, judgment_id: int, seconds: float | None) -> None:
    """The slot is done, its lease is over, and its holder has one answer more."""
    with connection.cursor() as cursor:
        cursor.execute(_ANSWERED, [judgment_id, seconds, assignment_id])


# It came before whatever else lies there, so that it is shown first.
_REOPEN = """
UPDATE labeling_spotcheck slot
SET judgment_id = NULL, seconds = NULL, place = %(place)s,
    lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s),
    leased_at = LEAST(clock_timestamp(), (SELECT min(leased_at) FROM labeling_spotcheck
                                          WHERE holder_id = %(person)s AND place IS NOT NULL) - interval '1 ms')
WHERE slot.id = %(slot)s
"""


def reopen(assignment_id: int, *, person_id: int, place: int, lease_s: int) -> None:
    """Put an answered slot before its holder again, first in the row."""
    with connection.cursor() as cursor:
        cursor.execute(_REOPEN, {"slot": assignment_id, "person": person_id, "place": place, "lease_s": lease_s})


_EXTEND = """
UPDATE labeling_spotcheck SET lease_until = clock_timestamp() + make_interval(secs => %s)
WHERE id = ANY(%s) AND holder_id = %s AND place IS NOT NULL RETURNING id
"""


def extend(assignment_ids: Sequence[int], *, person_id: int, lease_s: int) -> list[int]:
    """Renew leases; those of the slots that are still the person's."""
    with connection.cursor() as cursor:
        cursor.execute(_EXTEND, [lease_s, list(assignment_ids), person_id])
        return sorted(row[0] for row in cursor.fetchall())


_OPEN = """
WITH wanted AS (
    SELECT pair_id, position FROM unnest(%(pairs)s::bigint[]) WITH ORDINALITY AS drawn (pair_id, position)
), there AS (
    SELECT wanted.pair_id, wanted.position, COALESCE(max(slot.slot), -1) AS highest,
           count(slot.id) AS slots
    FROM wanted LEFT JOIN labeling_spotcheck slot ON slot.pair_id = wanted.pair_id AND slot.slot IS NOT NULL
    GROUP BY wanted.pair_id, wanted.position
)
INSERT INTO labeling_spotcheck (pair_id, slot, reason, priority)
SELECT pair_id, highest + number, %(reason)s, %(priority)s
FROM there CROSS JOIN LATERAL generate_series(1, %(overlap)s - slots) AS number
ORDER BY position, number
ON CONFLICT DO NOTHING
"""


def open_assignments(pair_ids: Sequence[int], *, reason: str, overlap: int = 1, priority: int = 0) -> int:
    """Ask these pairs, in this order, of `overlap` people each; the number of new slots. What is there counts."""
    values: Values = {
        "pairs": list(dict.fromkeys(pair_ids)),
        "reason": reason,
        "overlap": overlap,
        "priority": priority,
    }
    with connection.cursor() as cursor:
        cursor.execute(_OPEN, values)
        return cursor.rowcount


_CLOSE = """
WITH locked AS (
    SELECT id, lease_until >= clock_timestamp() AS is_held FROM labeling_spotcheck
    WHERE id = ANY(%s) AND judgment_id IS NULL ORDER BY id FOR UPDATE SKIP LOCKED
), kept AS (
    UPDATE labeling_spotcheck slot
    SET slot = NULL, place = CASE WHEN is_held THEN slot.place END, lease_until = CASE WHEN is_held THEN slot.lease_until END
    FROM locked WHERE slot.id = locked.id AND slot.holder_id IS NOT NULL AND slot.slot IS NOT NULL
    RETURNING slot.id
)
SELECT id, id IN (SELECT id FROM kept), is_held IS TRUE FROM locked
"""


def close_assignments(assignment_ids: Sequence[int]) -> int:
    """Ask nobody in these slots any more; of how many that holds from now on. In the caller's transaction.

    Answers stay. A slot that lies before somebody becomes theirs alone, to be answered or left; so does one whose lease
    ran out, but it is shown no more: a late answer still finds it. The others go. One that is being taken or renewed at
    this very moment stays as it is, so that nobody waits for anybody.
    """
    with connection.cursor() as cursor:
        cursor.execute(_CLOSE, [list(assignment_ids)])
        rows = cursor.fetchall()
    SpotCheck.objects.filter(pk__in=[assignment for assignment, is_kept, _ in rows if not is_kept]).delete()
    return sum(not is_held for _, _, is_held in rows)
