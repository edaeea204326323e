"""What people do at the comparison screen: see what is next, answer, undo, skip. Each verb is one transaction.

A person's desk is locked first, so that two tabs, or a message sent twice, come one after the other; a message
that changes something carries a key and is answered once. Slots are in `labeling.slots`, gold pairs in
`labeling.gold_checks`, answers go through `record_judgments`. `labeling.compare_api` speaks HTTP.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from random import SystemRandom
from typing import Any

from django.db import connection, transaction
from django.utils.translation import gettext as _

from labeling.compare_items import items_before, others_on
from labeling.desk_models import Desk, PastLease
from labeling.gold_checks import asked_so_far, claim_gold, feedback_on, pause_if_failing
from labeling.judgments import record_judgments, supersede_judgments
from labeling.models import SpotCheck, config_hash
from labeling.records import AnswerKind, NewJudgment
from labeling.seats import Seat
from labeling.slots import (
    PLACES,
    Claimed,
    Slot,
    Turn,
    claim,
    extend,
    find_slot,
    held_by,
    lay_aside,
    mark_answered,
    release,
    reopen,
    take_late,
)

# P(the left document is the more relevant) that each answer stands for.
STRENGTHS = {"left_clearly": 0.95, "left_slightly": 0.75, "tie": 0.5, "right_slightly": 0.25, "right_clearly": 0.05}
KINDS = {"neither": AnswerKind.BOTH_IRRELEVANT, "cannot_judge": AnswerKind.CANNOT_JUDGE}
CANNOT_JUDGE_REASONS = ("language", "expertise", "broken", "other")

RETRY_AFTER_S = 20
RAREST_GOLD = 10_000
REMEMBERED = "14 days"
_random = SystemRandom()


class Paused(RuntimeError):
    """The person has been paused; the message is the reason."""


class KeyReused(ValueError):
    """A key came a second time, with another message."""


class NotYours(LookupError):
    """A slot that does not exist, or that was never given to this person."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person sends for a slot. `choice`: a strength, "neither" or "cannot_judge" (then with a `reason`)."""

    slot: int
    choice: str
    reason: str = ""
    note: str = ""
    seconds: float | None = None

    @property
    def kind(self) -> AnswerKind:
        return KINDS.get(self.choice, AnswerKind.PREFERENCE)

    def preference_of_a(self, *, swapped: bool) -> float | None:
        """P(a is the more relevant), None where no side was taken."""
        left = STRENGTHS.get(self.choice)
        return round(1.0 - left, 2) if swapped and left is not None else left

    @property
    def rationale(self) -> str:
        return ": ".join(part for part in (self.reason, self.note) if part)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a person is: live answers in the project, today's (UTC), `timed` of the last ones in so many seconds;
    and the places before them that are taken.
    """

    done: int
    today: int
    seconds: float
    timed: int
    taken: frozenset[int]

    @property
    def pace(self) -> float | None:
        return round(self.seconds / self.timed, 1) if self.timed else None

    def with_answer(self, seconds: float | None) -> Progress:
        """With one answer more, that is about to be stored."""
        timed = self.timed + (seconds is not None)
        return Progress(self.done + 1, self.today + 1, self.seconds + (seconds or 0.0), timed, self.taken)


# --- the verbs ---------------------------------------------------------------------------


def next_items(seat: Seat) -> dict[str, Any]:
    """What lies before the person, topped up to two; the same for a second tab."""
    with transaction.atomic():
        desk = _lock_desk(seat)
        _forget_old_submissions(seat.person_id)
        return _next(seat, desk, paused=_paused(seat))


def submit_answer(seat: Seat, answer: Answer, *, key: uuid.UUID) -> str:
    """Store one answer and say what is next, as JSON text; the same text for the same key. Raises NotYours."""
    message = {
        "slot": answer.slot, "answer": answer.choice, "reason": answer.reason, "note": answer.note,
        "seconds": answer.seconds,
    }  # fmt: skip
    return _once(seat, key, "answer", message, lambda desk: _answer(seat, desk, answer))


def undo_last(seat: Seat, *, key: uuid.UUID) -> str:
    """Take the last live answer back and show its pair again, first in the row."""
    return _once(seat, key, "undo", {}, lambda desk: _undo(seat, desk))


def skip_pair(seat: Seat, slot_id: int, *, key: uuid.UUID) -> str:
    """Hand a slot back; its pair is not asked of this person again. Raises NotYours."""
    return _once(seat, key, "skip", {"slot": slot_id}, lambda desk: _skip(seat, desk, slot_id))


def extend_leases(seat: Seat, slot_ids: Sequence[int]) -> dict[int, float]:
    """Renew the leases that are still the person's: slot to seconds."""
    kept = extend(slot_ids, person_id=seat.person_id, lease_s=seat.lease_s)
    return dict.fromkeys(kept, float(seat.lease_s))


# --- answering ---------------------------------------------------------------------------


def _answer(seat: Seat, desk: Desk, answer: Answer) -> dict[str, Any]:
    """What comes next is looked up before the answer is stored: storing locks the query until the transaction ends,
    and whole rooms of people judge the same query.
    """
    slot = find_slot(answer.slot, project_id=seat.project_id, person_id=seat.person_id)
    if slot is None:
        raise NotYours(f"slot {answer.slot} is none of this project's; ask for the next pair")
    late = slot.holder_id != seat.person_id
    swapped = _seen_swapped(seat, slot) if late else slot.swapped
    is_new = slot.judgment_id is None or late
    slot_id = take_late(slot, person_id=seat.person_id, swapped=swapped) if late else slot.id
    if is_new:
        lay_aside(slot_id)
    following = _next(seat, desk, storing=answer if is_new else None)
    stored = is_new and _store(seat, slot, answer, slot_id=slot_id, swapped=swapped)
    paused = pause_if_failing(seat) if stored and slot.reason == SpotCheck.Reason.GOLD else ""
    if paused or stored != is_new:
        following = _next(seat, desk, paused=paused)
    return {
        "stored": ("extra" if late and not slot.free else "answer") if stored else "already",
        "feedback": _feedback(seat, slot, answer, swapped=swapped),
        "others": others_on(slot.pair_id, person_id=seat.person_id, swapped=swapped)
        if seat.show_others_after
        else None,
        **following,
    }


def _store(seat: Seat, slot: Slot, answer: Answer, *, slot_id: int, swapped: bool) -> bool:
    """Record the answer and tie it to its slot; False where another one of the person stands."""
    judgment = NewJudgment(
        slot.pair_id, seat.person_id, swapped, answer.preference_of_a(swapped=swapped),
        kind=answer.kind, rationale=answer.rationale,
    )  # fmt: skip
    recorded = record_judgments([judgment])
    if recorded.stored:
        mark_answered(slot_id, judgment_id=recorded.ids[0], seconds=answer.seconds)
    else:
        release([slot_id], person_id=seat.person_id, skipped=True)  # answered by another way, an import say
    return recorded.stored > 0


def _seen_swapped(seat: Seat, slot: Slot) -> bool:
    """The order in which the person saw a pair that is no longer before them."""
    seen = PastLease.objects.filter(annotator_id=seat.person_id, pair_id=slot.pair_id)
    swapped = seen.values_list("swapped", flat=True).first()
    if swapped is None:
        raise NotYours(f"slot {slot.id} was never given to you; ask for the next pair")
    return swapped


def _feedback(seat: Seat, slot: Slot, answer: Answer, *, swapped: bool) -> dict[str, Any] | None:
    if slot.reason != SpotCheck.Reason.GOLD or answer.kind is AnswerKind.CANNOT_JUDGE:
        return None
    told = feedback_on(slot.pair_id, answer.preference_of_a(swapped=swapped), seat=seat, swapped=swapped)
    return None if told is None else {"correct": told.correct, "text": told.text}


_LAST = """
SELECT answer.id, slot.id FROM labeling_judgment answer
JOIN labeling_spotcheck slot ON slot.judgment_id = answer.id
WHERE answer.annotator_id = %s AND answer.superseded_at IS NULL ORDER BY answer.id DESC LIMIT 1
"""


def _undo(seat: Seat, desk: Desk) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(_LAST, [seat.person_id])
        last = cursor.fetchone()
    if last is not None:
        judgment_id, slot_id = last
        supersede_judgments([judgment_id])
        held = held_by(seat.person_id)
        if len(held) == len(PLACES):
            place, newest = list(held.items())[-1]
            release([newest], person_id=seat.person_id)
        else:
            place = _free_places(held)[0]
        reopen(slot_id, person_id=seat.person_id, place=place, lease_s=seat.lease_s)
    return {"undone": last is not None, **_next(seat, desk)}


def _skip(seat: Seat, desk: Desk, slot_id: int) -> dict[str, Any]:
    slot = find_slot(slot_id, project_id=seat.project_id, person_id=seat.person_id)
    if slot is None:
        raise NotYours(f"slot {slot_id} is none of this project's; ask for the next pair")
    if slot.holder_id == seat.person_id:
        release([slot.id], person_id=seat.person_id, skipped=True)
    elif not PastLease.objects.filter(annotator_id=seat.person_id, pair_id=slot.pair_id).update(skipped=True):
        raise NotYours(f"slot {slot_id} was never given to you; ask for the next pair")
    return _next(seat, desk)


# --- what is next ------------------------------------------------------------------------


def _next(seat: Seat, desk: Desk, *, paused: str = "", storing: Answer | None = None) -> dict[str, Any]:
    """What lies before the person once `storing` is stored, and how far they are then."""
    progress = _progress(seat.person_id)
    if storing is not None:
        progress = progress.with_answer(storing.seconds)
    left = None if seat.quota is None else max(0, seat.quota - progress.done)
    blocked = "paused" if paused else "instruction" if seat.instruction_due else ""
    if not blocked:
        most = len(PLACES) if left is None else min(len(PLACES), left)
        _top_up(seat, desk, taken=progress.taken, most=most, answering=storing.slot if storing is not None else 0)
    items = [] if blocked else items_before(seat.person_id, lease_s=seat.lease_s, hidden=seat.hidden_metadata)
    state = blocked or ("open" if items else "quota_reached" if left == 0 else "nothing_left")
    return {
        "items": items,
        "progress": {
            "done": progress.done, "quota": seat.quota, "left": left, "seconds_per_pair": progress.pace,
            "today": progress.today,
        },
        "state": state,
        "message": _message(state, paused),
        "retry_after_s": RETRY_AFTER_S,
    }  # fmt: skip


def _message(state: str, paused: str) -> str:
    """One sentence for each state but "open"."""
    return {
        "paused": _("You are paused: %(reason)s. An owner of the project can let you go on.") % {"reason": paused},
        "instruction": _("Please read the instruction before the first pair."),
        "quota_reached": _("You have answered all pairs that were asked of you. Thank you."),
        "nothing_left": _("There is no pair for you at the moment."),
    }.get(state, "")


def _top_up(seat: Seat, desk: Desk, *, taken: frozenset[int], most: int, answering: int) -> None:
    """Claim slots until `most` lie before the person, or none is left."""
    for place in _free_places(taken)[: max(0, most - len(taken))]:
        claimed = _claim(seat, desk, place, answering=answering)
        if claimed is None:
            break
        desk.side_balance += 1 if claimed.swapped else -1


def _free_places(taken: Collection[int]) -> list[int]:
    return [place for place in PLACES if place not in taken]


def _claim(seat: Seat, desk: Desk, place: int, *, answering: int) -> Claimed | None:
    """A gold pair where one is due, otherwise the next slot; gold as well while there is nothing else and too
    little to know the person by.
    """
    swapped = desk.side_balance < 0 or (desk.side_balance == 0 and _random.random() < 0.5)
    gold_in = max(0, desk.gold_in - 1)
    turn = Turn(seat.project_id, seat.person_id, place, swapped, seat.lease_s, gold_in=gold_in, answering=answering)
    if seat.gold_every and desk.gold_in <= 0:
        turn = replace(turn, gold_in=_pairs_before_gold(seat.gold_every))
        desk.gold_in = turn.gold_in
        if gold := claim_gold(turn):
            return gold
    if ordinary := claim(turn):
        desk.gold_in = turn.gold_in
        return ordinary
    if seat.gold_every and asked_so_far(seat.person_id) < seat.gold_answers:
        return claim_gold(turn)
    return None


def _pairs_before_gold(every: int) -> int:
    """So many ordinary pairs, `every` - 1 on average: a steady rhythm would give gold away."""
    every = min(every, RAREST_GOLD)
    return _random.randint(every - 1 - every // 2, every - 1 + every // 2) if every > 1 else 0


_PROGRESS = """
SELECT count(*), count(*) FILTER (WHERE created_at >= date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'),
       (SELECT array[COALESCE(sum(slot.seconds), 0), count(slot.seconds)] FROM (
            SELECT id FROM labeling_judgment
            WHERE annotator_id = %(person)s AND by_person AND superseded_at IS NULL ORDER BY created_at DESC LIMIT 20
        ) last JOIN labeling_spotcheck slot ON slot.judgment_id = last.id),
       (SELECT array_agg(place) FROM labeling_spotcheck WHERE holder_id = %(person)s AND place IS NOT NULL)
FROM labeling_judgment WHERE annotator_id = %(person)s AND by_person AND superseded_at IS NULL
"""


def _progress(person_id: int) -> Progress:
    with connection.cursor() as cursor:
        cursor.execute(_PROGRESS, {"person": person_id})
        done, today, (seconds, timed), taken = cursor.fetchone()
    return Progress(done, today, seconds, int(timed), frozenset(taken or ()))


# --- the desk and the messages -----------------------------------------------------------


_DESK = "SELECT side_balance, gold_in FROM labeling_desk WHERE person_id = %s FOR NO KEY UPDATE"


def _lock_desk(seat: Seat) -> Desk:
    """The person's desk, locked until the transaction ends; made on first use."""
    with connection.cursor() as cursor:
        cursor.execute(_DESK, [seat.person_id])
        row = cursor.fetchone()
        if row is None:
            # Two first messages at once: the second waits here for the first one's row.
            first_gold = _random.randint(1, max(1, min(seat.gold_every, RAREST_GOLD)))
            Desk.objects.bulk_create([Desk(person_id=seat.person_id, gold_in=first_gold)], ignore_conflicts=True)
            cursor.execute(_DESK, [seat.person_id])
            row = cursor.fetchone()
    return Desk(person_id=seat.person_id, side_balance=row[0], gold_in=row[1])


_STATE = """
SELECT person.pause_reason, earlier.body_hash, earlier.response FROM labeling_annotator person
LEFT JOIN labeling_submission earlier ON earlier.annotator_id = person.id AND earlier.key = %s
WHERE person.id = %s
"""


def _paused(seat: Seat) -> str:
    """Why the person is paused, as of now; empty while they are not."""
    with connection.cursor() as cursor:
        cursor.execute(_STATE, [uuid.UUID(int=0), seat.person_id])
        return str(cursor.fetchone()[0])


def _once(seat: Seat, key: uuid.UUID, verb: str, message: dict[str, Any], act: Callable[[Desk], dict[str, Any]]) -> str:
    """Act on a message and keep what was answered; a message that came before gets the same answer again."""
    body = config_hash(verb=verb, **message)
    with transaction.atomic():
        desk = _lock_desk(seat)
        with connection.cursor() as cursor:
            cursor.execute(_STATE, [key, seat.person_id])
            paused, known, earlier = cursor.fetchone()
        if known is not None and known != body:
            raise KeyReused(f"the key {key} was used for another message; make a new key for each message")
        if known is not None:
            return str(earlier)
        if paused:
            raise Paused(paused)
        response = json.dumps(act(desk), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        with connection.cursor() as cursor:
            cursor.execute(_KEEP, [seat.person_id, key, body, response])
    return response


_KEEP = "INSERT INTO labeling_submission (annotator_id, key, body_hash, response) VALUES (%s, %s, %s, %s)"


def _forget_old_submissions(person_id: int) -> None:
    """Screens send again for days at most; an answer that comes later still finds that there is one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM labeling_submission WHERE annotator_id = %s AND created_at < now() - %s::interval",
            [person_id, REMEMBERED],
        )
