"""Assignments of pairs to people and their leases: each change is one statement, by the database's clock.

An assignment is a row of `SpotCheck`. A claim skips the rows that other claims hold (SKIP LOCKED), and the constraints
of `SpotCheck` allow one holder a row and two leases a person. Callers hold the lock of the person's screen state
(`labeling.annotation.idempotency`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import connection

from labeling.models import SpotCheck

PLACES = (1, 2)
Values = dict[str, int | str | bool | list[int]]

# The order in which the person saw the pair before, if they did.
SIDE = "COALESCE((SELECT swapped FROM labeling_pastlease WHERE annotator_id = %(person)s AND pair_id = {pair}), %(swapped)s)"


@dataclass(frozen=True, slots=True)
class Assignment:
    """A row of SpotCheck. `free`: it has a number, and nobody holds it or has answered it."""

    id: int
    pair_id: int
    holder_id: int | None
    judgment_id: int | None
    reason: str
    swapped: bool
    free: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """Parameters of a claim.

    `place`: 1 or 2; `swapped`: the order, unless the person has seen the pair before; `gold_in`: ordinary pairs before
    the next gold pair; `answering`: the assignment whose answer is being stored; `passed`: the assignment at which the
    last claim stopped, 0 to search from the start.
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
    """The id of a claimed assignment, and the order of its documents."""

    id: int
    swapped: bool


# The end of every claim: it updates the screen state.
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
# Assignments up to `passed` are skipped: while others still have to judge the same pairs, there are as many of them as
# the person has answered.
_FROM_PASSED = _CLAIM.format(
    where="""open.priority = 0 AND open.id > %(passed)s
      AND NOT EXISTS (SELECT 1 FROM labeling_spotcheck urgent
                      WHERE urgent.project_id = %(project)s AND urgent.judgment_id IS NULL
                        AND urgent.slot IS NOT NULL AND urgent.priority > 0)"""
)


def claim(turn: Turn) -> Claimed | None:
    """Claim the next open assignment whose pair the person has neither answered nor skipped; None if none is left.

    The search starts behind `turn.passed`, and from the start where nothing is left behind it.
    """
    behind = claimed_by(_FROM_PASSED, turn) if turn.passed else None
    return behind or claimed_by(_FROM_START, turn)


def claimed_by(statement: str, turn: Turn) -> Claimed | None:
    """Run a claiming statement; None if it claimed nothing."""
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
    """The assignment, locked; or the one in which the person holds or answered the same pair; None if unknown."""
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
    """The id of the assignment for a late answer: this one while it is free, otherwise a new one of the person."""
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
    """End the person's leases, so that others may claim the pairs; the person does not get a skipped pair again."""
    if assignment_ids:
        with connection.cursor() as cursor:
            cursor.execute(_RELEASE, [list(assignment_ids), person_id, person_id, skipped])


def held_by(person_id: int) -> dict[int, int]:
    """Place to assignment of the person's leases, oldest first."""
    lying = SpotCheck.objects.filter(holder_id=person_id, place__isnull=False).order_by("leased_at", "id")
    return {place: assignment for place, assignment in lying.values_list("place", "id") if place is not None}


def end_lease(assignment_id: int) -> None:
    """End the lease of an assignment whose answer is about to be stored; its holder keeps it."""
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
    """Store the answer of an assignment, end its lease and count the answer of its holder."""
    with connection.cursor() as cursor:
        cursor.execute(_ANSWERED, [judgment_id, seconds, assignment_id])


# Its lease begins before the other one, so that the screen shows it first.
_REOPEN = """
UPDATE labeling_spotcheck slot
SET judgment_id = NULL, seconds = NULL, place = %(place)s,
    lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s),
    leased_at = LEAST(clock_timestamp(), (SELECT min(leased_at) FROM labeling_spotcheck
                                          WHERE holder_id = %(person)s AND place IS NOT NULL) - interval '1 ms')
WHERE slot.id = %(slot)s
"""


def reopen(assignment_id: int, *, person_id: int, place: int, lease_s: int) -> None:
    """Give its holder a new lease of an answered assignment, to be shown first."""
    with connection.cursor() as cursor:
        cursor.execute(_REOPEN, {"slot": assignment_id, "person": person_id, "place": place, "lease_s": lease_s})


_EXTEND = """
UPDATE labeling_spotcheck SET lease_until = clock_timestamp() + make_interval(secs => %s)
WHERE id = ANY(%s) AND holder_id = %s AND place IS NOT NULL RETURNING id
"""


def extend(assignment_ids: Sequence[int], *, person_id: int, lease_s: int) -> list[int]:
    """Renew leases; returns the assignments that the person still holds."""
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
    """Open assignments until each pair, in this order, has `overlap`; returns the number of new ones."""
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
    """Withdraw assignments, in the caller's transaction; returns their number without those under a lease.

    Answers stay. A leased assignment becomes private to its holder, who may still answer it. One with an expired lease
    becomes private as well, without a lease, so that a late answer finds it. The others are deleted. An assignment that
    somebody is claiming or renewing at this moment stays as it is.
    """
    with connection.cursor() as cursor:
        cursor.execute(_CLOSE, [list(assignment_ids)])
        rows = cursor.fetchall()
    SpotCheck.objects.filter(pk__in=[assignment for assignment, is_kept, _ in rows if not is_kept]).delete()
    return sum(not is_held for _, _, is_held in rows)
