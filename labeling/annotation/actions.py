"""What people do at the comparison screen: see what is next, answer, undo, skip. Each verb is one transaction.

A person's desk is locked first, and a message that changes something carries a key and is answered once
(`labeling.annotation.idempotency`). Slots are in `labeling.annotation.assignments`, gold pairs in `labeling.annotation.gold`, answers go through
`record_judgments`. `labeling.annotation.http` speaks HTTP.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from random import SystemRandom
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.utils.translation import gettext as _

from labeling.annotation.answer_scale import KINDS, PREFERENCES
from labeling.annotation.assignments import (
    PLACES,
    Assignment,
    Claimed,
    Turn,
    claim,
    end_lease,
    extend,
    find_assignment,
    held_by,
    mark_answered,
    release,
    reopen,
    take_late,
)
from labeling.annotation.context import ScreenContext
from labeling.annotation.gold import asked_so_far, claim_gold, feedback_on, pause_if_failing
from labeling.annotation.idempotency import (
    RAREST_GOLD,
    Paused,
    Response,
    answer_once,
    as_json,
    forget_old_submissions,
    lock_screen_state,
    pause_reason,
)
from labeling.annotation.presented_pairs import items_before, others_on
from labeling.judgments import record_judgments, supersede_judgments
from labeling.models import SpotCheck
from labeling.models.screen import PastLease, ScreenState
from labeling.records import AnswerKind, NewJudgment
from labeling.wording import translated

RETRY_AFTER_S = 20
_random = SystemRandom()


class NotLast(RuntimeError):
    """The answer to be taken back is not the last one that stands."""


class NotYours(LookupError):
    """A slot that does not exist, or that was never given to this person."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person sends for a slot. `choice`: one of `answer_scale.ANSWERS`; "cannot_judge" has a `reason`."""

    assignment: int
    choice: str
    reason: str = ""
    note: str = ""
    seconds: float | None = None

    @property
    def kind(self) -> AnswerKind:
        return KINDS.get(self.choice, AnswerKind.PREFERENCE)

    def preference_of_a(self, *, swapped: bool) -> float | None:
        """P(a is the more relevant), None where no side was taken."""
        left = PREFERENCES.get(self.choice)
        return round(1.0 - left, 2) if swapped and left is not None else left

    @property
    def rationale(self) -> str:
        return ": ".join(part for part in (self.reason, self.note) if part)


class Last(NamedTuple):
    """The last answer that stands. `judgment`: 0 for one that is about to be stored."""

    judgment: int
    assignment: int


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a person is: live answers in the project, today's (UTC), `timed` of the last ones in so many seconds;
    the places before them that are taken, and their last answer.
    """

    done: int
    today: int
    seconds: float
    timed: int
    taken: frozenset[int]
    last: Last | None

    @property
    def pace(self) -> float | None:
        return round(self.seconds / self.timed, 1) if self.timed else None

    def with_answer(self, answer: Answer) -> Progress:
        """With one answer more, that is about to be stored."""
        timed = self.timed + (answer.seconds is not None)
        seconds = self.seconds + (answer.seconds or 0.0)
        return Progress(self.done + 1, self.today + 1, seconds, timed, self.taken, Last(0, answer.assignment))


# --- the verbs ---------------------------------------------------------------------------


def next_items(context: ScreenContext) -> str:
    """What lies before the person, topped up to two, as JSON text; the same for a second tab."""
    with transaction.atomic():
        screen = lock_screen_state(context.person_id, gold_every=context.gold_every)
        forget_old_submissions(context.person_id)
        _look_anew(screen)
        return as_json(_next(context, screen, paused=pause_reason(context.person_id)))


def submit_answer(context: ScreenContext, answer: Answer, *, key: uuid.UUID) -> str:
    """Store one answer and say what is next, as JSON text; the same text for the same key. Raises NotYours.

    Paused people's answers are stored too: nothing new is shown to them, so that these are to pairs from before.
    """
    message = {
        "slot": answer.assignment, "answer": answer.choice, "reason": answer.reason, "note": answer.note,
        "seconds": answer.seconds,
    }  # fmt: skip
    return answer_once(context, key, "answer", message, lambda screen, paused: _answer(context, screen, answer, paused))


def undo_last(context: ScreenContext, assignment_id: int, *, key: uuid.UUID) -> str:
    """Take the last live answer, which must be the one to `slot_id`, back and show its pair again, first in the row.

    Raises NotLast, as where another tab has answered since, and Paused.
    """
    return answer_once(
        context,
        key,
        "undo",
        {"slot": assignment_id},
        lambda screen, paused: _undo(context, screen, assignment_id, paused),
    )


def skip_pair(context: ScreenContext, assignment_id: int, *, key: uuid.UUID) -> str:
    """Hand a slot back; its pair is not asked of this person again. Raises NotYours."""
    return answer_once(
        context,
        key,
        "skip",
        {"slot": assignment_id},
        lambda screen, paused: _skip(context, screen, assignment_id, paused),
    )


def extend_leases(context: ScreenContext, assignment_ids: Sequence[int]) -> dict[int, float]:
    """Renew the leases that are still the person's: slot to seconds."""
    kept = extend(assignment_ids, person_id=context.person_id, lease_s=context.lease_s)
    return dict.fromkeys(kept, float(context.lease_s))


# --- answering ---------------------------------------------------------------------------


def _answer(context: ScreenContext, screen: ScreenState, answer: Answer, paused: str) -> Response:
    """What comes next is looked up before the answer is stored: storing locks the query until the transaction ends,
    and whole rooms of people judge the same query.
    """
    assignment = find_assignment(answer.assignment, project_id=context.project_id, person_id=context.person_id)
    if assignment is None:
        raise NotYours(f"slot {answer.assignment} is none of this project's; ask for the next pair")
    late = assignment.holder_id != context.person_id
    swapped = _seen_swapped(context, assignment) if late else assignment.swapped
    is_new = assignment.judgment_id is None or late
    assignment_id = take_late(assignment, person_id=context.person_id, swapped=swapped) if late else assignment.id
    if is_new:
        end_lease(assignment_id)
    following = _next(context, screen, paused=paused, storing=answer if is_new else None)
    stored = is_new and _store(context, assignment, answer, assignment_id=assignment_id, swapped=swapped)
    failed = pause_if_failing(context) if stored and not paused and assignment.reason == SpotCheck.Reason.GOLD else ""
    if failed or stored != is_new:
        screen.answers = None
        following = _next(context, screen, paused=paused or failed)
    return {
        "stored": ("extra" if late and not assignment.free else "answer") if stored else "already",
        **_afterwards(context, assignment, answer, swapped=swapped),
        **following,
    }


def _afterwards(context: ScreenContext, assignment: Assignment, answer: Answer, *, swapped: bool) -> Response:
    """What the person is told once their answer stands; that they were is noted with the answer."""
    feedback = _feedback(context, assignment, answer, swapped=swapped)
    others = (
        others_on(assignment.pair_id, person_id=context.person_id, swapped=swapped) if context.shows_others else None
    )
    if feedback or others:
        with connection.cursor() as cursor:
            cursor.execute(_NOTE_SEEN, [assignment.pair_id, context.person_id])
    return {"feedback": feedback, "others": others}


_NOTE_SEEN = """
INSERT INTO labeling_told (judgment_id)
SELECT id FROM labeling_live_judgment WHERE pair_id = %s AND annotator_id = %s
ON CONFLICT DO NOTHING
"""


def _store(
    context: ScreenContext, assignment: Assignment, answer: Answer, *, assignment_id: int, swapped: bool
) -> bool:
    """Record the answer and tie it to its slot; False where another one of the person stands."""
    judgment = NewJudgment(
        assignment.pair_id, context.person_id, swapped, answer.preference_of_a(swapped=swapped),
        kind=answer.kind, rationale=answer.rationale,
    )  # fmt: skip
    recorded = record_judgments([judgment])
    if recorded.stored:
        mark_answered(assignment_id, judgment_id=recorded.ids[0], seconds=answer.seconds)
    else:
        release([assignment_id], person_id=context.person_id, skipped=True)  # answered by another way, an import say
    return recorded.stored > 0


def _seen_swapped(context: ScreenContext, assignment: Assignment) -> bool:
    """The order in which the person saw a pair that is no longer before them."""
    seen = PastLease.objects.filter(annotator_id=context.person_id, pair_id=assignment.pair_id)
    swapped = seen.values_list("swapped", flat=True).first()
    if swapped is None:
        raise NotYours(f"slot {assignment.id} was never given to you; ask for the next pair")
    return swapped


def _feedback(
    context: ScreenContext, assignment: Assignment, answer: Answer, *, swapped: bool
) -> dict[str, Any] | None:
    if assignment.reason != SpotCheck.Reason.GOLD or answer.kind is AnswerKind.CANNOT_JUDGE:
        return None
    feedback = feedback_on(
        assignment.pair_id, answer.preference_of_a(swapped=swapped), context=context, swapped=swapped
    )
    return None if feedback is None else {"correct": feedback.correct, "text": feedback.text}


def _undo(context: ScreenContext, screen: ScreenState, assignment_id: int, paused: str) -> Response:
    if paused:
        raise Paused(_message("paused", paused))
    last = _progress(screen).last
    meant = find_assignment(assignment_id, project_id=context.project_id, person_id=context.person_id)
    if last is None or meant is None or meant.id != last.assignment:
        raise NotLast(_("That is not your last answer any more; nothing was taken back."))
    supersede_judgments([last.judgment])
    held = held_by(context.person_id)
    if len(held) == len(PLACES):
        place, newest = list(held.items())[-1]
        release([newest], person_id=context.person_id)
    else:
        place = _free_places(held)[0]
    reopen(meant.id, person_id=context.person_id, place=place, lease_s=context.lease_s)
    _look_anew(screen)
    return {"undone": True, **_next(context, screen)}


def _skip(context: ScreenContext, screen: ScreenState, assignment_id: int, paused: str) -> Response:
    assignment = find_assignment(assignment_id, project_id=context.project_id, person_id=context.person_id)
    if assignment is None:
        raise NotYours(f"slot {assignment_id} is none of this project's; ask for the next pair")
    if assignment.holder_id == context.person_id:
        release([assignment.id], person_id=context.person_id, skipped=True)
    elif not PastLease.objects.filter(annotator_id=context.person_id, pair_id=assignment.pair_id).update(skipped=True):
        raise NotYours(f"slot {assignment_id} was never given to you; ask for the next pair")
    return _next(context, screen, paused=paused)


# --- what is next ------------------------------------------------------------------------


def _next(context: ScreenContext, screen: ScreenState, *, paused: str = "", storing: Answer | None = None) -> Response:
    """What lies before the person once `storing` is stored, and how far they are then; `last`: the slot of the last
    answer, which an undo names; `unplanned`: nothing is left since nothing was ever planned.
    """
    progress = _progress(screen)
    if storing is not None:
        progress = progress.with_answer(storing)
    left = None if context.quota is None else max(0, context.quota - progress.done)
    blocked = "paused" if paused else "instruction" if context.instruction_due else ""
    if not blocked:
        most = len(PLACES) if left is None else min(len(PLACES), left)
        _top_up(
            context, screen, taken=progress.taken, most=most, answering=storing.assignment if storing is not None else 0
        )
    items = [] if blocked else items_before(context.person_id, lease_s=context.lease_s, hidden=context.hidden_metadata)
    state = blocked or ("open" if items else "quota_reached" if left == 0 else "nothing_left")
    return {
        "items": items,
        "unplanned": state == "nothing_left" and not _is_planned(context.project_id),
        "progress": {
            "done": progress.done, "quota": context.quota, "left": left, "seconds_per_pair": progress.pace,
            "today": progress.today,
        },
        "last": progress.last.assignment if progress.last is not None else None,
        "state": state,
        "message": _message(state, paused),
        "retry_after_s": RETRY_AFTER_S,
    }  # fmt: skip


def _is_planned(project_id: int) -> bool:
    """Whether anything was ever to be asked of anybody; a known answer alone asks nothing."""
    return SpotCheck.objects.filter(project_id=project_id).exists()


def _message(state: str, paused: str) -> str:
    """One sentence for each state but "open"."""
    return {
        "paused": _("You are paused: %(reason)s. An owner of the project can let you go on.")
        % {"reason": translated(paused)},
        "instruction": _("Please read the instruction before the first pair."),
        "quota_reached": _("You have answered all pairs that were asked of you. Thank you."),
        "nothing_left": _("There is no pair for you at the moment."),
    }.get(state, "")


def _top_up(context: ScreenContext, screen: ScreenState, *, taken: frozenset[int], most: int, answering: int) -> None:
    """Claim slots until `most` lie before the person, or none is left."""
    for place in _free_places(taken)[: max(0, most - len(taken))]:
        claimed = _claim(context, screen, place, answering=answering)
        if claimed is None:
            break
        screen.side_balance += 1 if claimed.swapped else -1


def _free_places(taken: Collection[int]) -> list[int]:
    return [place for place in PLACES if place not in taken]


def _claim(context: ScreenContext, screen: ScreenState, place: int, *, answering: int) -> Claimed | None:
    """A gold pair where one is due, otherwise the next slot; gold as well while there is nothing else and too
    little to know the person by.
    """
    swapped = screen.side_balance < 0 or (screen.side_balance == 0 and _random.random() < 0.5)
    gold_in = max(0, screen.gold_in - 1)
    turn = Turn(
        context.project_id, context.person_id, place, swapped, context.lease_s, gold_in=gold_in, answering=answering,
        passed=screen.passed,
    )  # fmt: skip
    if context.gold_every and screen.gold_in <= 0:
        turn = replace(turn, gold_in=_pairs_before_gold(context.gold_every))
        screen.gold_in = turn.gold_in
        if gold := claim_gold(turn):
            return gold
    if ordinary := claim(turn):
        screen.gold_in, screen.passed = turn.gold_in, ordinary.id
        return ordinary
    if context.gold_every and asked_so_far(context.person_id) < context.gold_answers:
        return claim_gold(turn)
    return None


def _pairs_before_gold(every: int) -> int:
    """So many ordinary pairs, `every` - 1 on average: a steady rhythm would give gold away."""
    every = min(every, RAREST_GOLD)
    return _random.randint(every - 1 - every // 2, every - 1 + every // 2) if every > 1 else 0


_LIVE = "labeling_live_judgment WHERE annotator_id = %(person)s AND by_person"
# What is counted is counted within a day; all of it only where the desk does not know.
_PROGRESS = f"""
SELECT COALESCE(%(answers)s::int, (SELECT count(*) FROM {_LIVE})),
       (SELECT count(*) FROM {_LIVE}
        AND created_at >= (SELECT date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC')),
       latest.seconds, latest.timed, latest.answer, latest.slot,
       (SELECT array_agg(place) FROM labeling_spotcheck WHERE holder_id = %(person)s AND place IS NOT NULL)
FROM (
    SELECT COALESCE(sum(slot.seconds), 0) AS seconds, count(slot.seconds) AS timed,
           (array_agg(last.id ORDER BY last.id DESC))[1] AS answer, (array_agg(slot.id ORDER BY last.id DESC))[1] AS slot
    FROM (SELECT id FROM {_LIVE} ORDER BY created_at DESC LIMIT 20) last
    JOIN labeling_spotcheck slot ON slot.judgment_id = last.id
) latest
"""


def _progress(screen: ScreenState) -> Progress:
    with connection.cursor() as cursor:
        cursor.execute(_PROGRESS, {"person": screen.person_id, "answers": screen.answers})
        done, today, seconds, timed, answer, assignment, taken = cursor.fetchone()
    last = None if answer is None else Last(answer, assignment)
    return Progress(done, today, seconds, timed, frozenset(taken or ()), last)


_LOOK_ANEW = f"""
UPDATE labeling_desk SET passed = 0, answers = (SELECT count(*) FROM {_LIVE}) WHERE person_id = %(person)s
RETURNING answers
"""


def _look_anew(screen: ScreenState) -> None:
    """Count the person's answers, and let the next claim look from the start."""
    with connection.cursor() as cursor:
        cursor.execute(_LOOK_ANEW, {"person": screen.person_id})
        screen.answers, screen.passed = cursor.fetchone()[0], 0
