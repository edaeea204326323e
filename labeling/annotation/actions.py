"""Actions of the comparison screen: next pairs, answer, undo, skip. Each is one transaction.

An action locks the person's screen state first, and one that changes something has a key, so that it happens once
(`labeling.annotation.idempotency`). `labeling.annotation.assignments` holds the leases, `labeling.annotation.gold` the
gold pairs; `record_judgments` stores the answers, and `labeling.annotation.http` serves the actions over HTTP.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from random import SystemRandom
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.utils.translation import gettext as _

from labeling.access.handles import handle_of
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
    """The answer to be undone is not the person's last live answer."""


class NotYours(LookupError):
    """The assignment does not exist, or this person never had it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A person's answer to an assignment. `choice`: one of `answer_scale.ANSWERS`; "cannot_judge" has a `reason`."""

    assignment: int
    choice: str
    reason: str = ""
    note: str = ""
    seconds: float | None = None

    @property
    def kind(self) -> AnswerKind:
        return KINDS.get(self.choice, AnswerKind.PREFERENCE)

    def preference_of_a(self, *, swapped: bool) -> float | None:
        """P(a is the more relevant); None if the answer takes no side."""
        left = PREFERENCES.get(self.choice)
        return round(1.0 - left, 2) if swapped and left is not None else left

    @property
    def rationale(self) -> str:
        return ": ".join(part for part in (self.reason, self.note) if part)


class Last(NamedTuple):
    """The last live answer. `judgment`: 0 while it is not stored yet."""

    judgment: int
    assignment: int


@dataclass(frozen=True, slots=True)
class Progress:
    """A person's progress: their live answers in the project and today (UTC), and the places of their leases.

    `timed` of their latest answers took `seconds` together.
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
        """The progress after one more answer, which is not stored yet."""
        timed = self.timed + (answer.seconds is not None)
        seconds = self.seconds + (answer.seconds or 0.0)
        return Progress(self.done + 1, self.today + 1, seconds, timed, self.taken, Last(0, answer.assignment))


# --- the actions -------------------------------------------------------------------------


def next_items(context: ScreenContext) -> str:
    """The person's leased pairs, up to two, as JSON text; a second tab gets the same."""
    with transaction.atomic():
        screen = lock_screen_state(context.person_id, gold_every=context.gold_every)
        forget_old_submissions(context.person_id)
        _look_anew(screen)
        return as_json(_next(context, screen, paused=pause_reason(context.person_id)))


def submit_answer(context: ScreenContext, answer: Answer, *, key: uuid.UUID) -> str:
    """Store an answer and return the next pairs as JSON text; the same text for the same key. Raises NotYours.

    Answers of paused people are stored too: they get no new pairs, so these answer pairs from before the pause.
    """
    message = {
        "slot": answer.assignment, "answer": answer.choice, "reason": answer.reason, "note": answer.note,
        "seconds": answer.seconds,
    }  # fmt: skip
    return answer_once(context, key, "answer", message, lambda screen, paused: _answer(context, screen, answer, paused))


def undo_last(context: ScreenContext, assignment_id: int, *, key: uuid.UUID) -> str:
    """Undo the last live answer, which must be the one to `assignment_id`, and show its pair first again.

    Raises Paused, and NotLast where another tab has answered since.
    """
    return answer_once(
        context,
        key,
        "undo",
        {"slot": assignment_id},
        lambda screen, paused: _undo(context, screen, assignment_id, paused),
    )


def skip_pair(context: ScreenContext, assignment_id: int, *, key: uuid.UUID) -> str:
    """End a lease; the person does not get the pair again. Raises NotYours."""
    return answer_once(
        context,
        key,
        "skip",
        {"slot": assignment_id},
        lambda screen, paused: _skip(context, screen, assignment_id, paused),
    )


def extend_leases(context: ScreenContext, assignment_ids: Sequence[int]) -> dict[int, float]:
    """Renew the leases that the person still holds; returns assignment to seconds."""
    kept = extend(assignment_ids, person_id=context.person_id, lease_s=context.lease_s)
    return dict.fromkeys(kept, float(context.lease_s))


# --- answering ---------------------------------------------------------------------------


def _answer(context: ScreenContext, screen: ScreenState, answer: Answer, paused: str) -> Response:
    """Claim the next pairs, then store the answer.

    Storing locks the query until the transaction ends, and many people may judge the same query at once.
    """
    assignment = find_assignment(answer.assignment, project_id=context.project_id, person_id=context.person_id)
    if assignment is None:
        raise NotYours(f"slot {handle_of(answer.assignment)} is not in this project; ask for the next pair")
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
    """Feedback and others' answers after an answer; records that the person has seen them."""
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
    """Record the answer and link it to its assignment; False if the person already has a live answer."""
    judgment = NewJudgment(
        assignment.pair_id, context.person_id, swapped, answer.preference_of_a(swapped=swapped),
        kind=answer.kind, rationale=answer.rationale,
    )  # fmt: skip
    recorded = record_judgments([judgment])
    if recorded.stored:
        mark_answered(assignment_id, judgment_id=recorded.ids[0], seconds=answer.seconds)
    else:
        release(
            [assignment_id], person_id=context.person_id, skipped=True
        )  # the other answer came from elsewhere, such as an import
    return recorded.stored > 0


def _seen_swapped(context: ScreenContext, assignment: Assignment) -> bool:
    """The order in which the person saw a pair whose lease has ended. Raises NotYours."""
    seen = PastLease.objects.filter(annotator_id=context.person_id, pair_id=assignment.pair_id)
    swapped = seen.values_list("swapped", flat=True).first()
    if swapped is None:
        raise NotYours(f"slot {handle_of(assignment.id)} was never given to you; ask for the next pair")
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
        raise NotLast(_("This is no longer your last answer; nothing was undone."))
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
        raise NotYours(f"slot {handle_of(assignment_id)} is not in this project; ask for the next pair")
    if assignment.holder_id == context.person_id:
        release([assignment.id], person_id=context.person_id, skipped=True)
    elif not PastLease.objects.filter(annotator_id=context.person_id, pair_id=assignment.pair_id).update(skipped=True):
        raise NotYours(f"slot {handle_of(assignment_id)} was never given to you; ask for the next pair")
    return _next(context, screen, paused=paused)


# --- what is next ------------------------------------------------------------------------


def _next(context: ScreenContext, screen: ScreenState, *, paused: str = "", storing: Answer | None = None) -> Response:
    """Pairs and progress of the person once `storing` is stored.

    `last`: the assignment of the last answer, which an undo names; `unplanned`: the project has never had assignments.
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
        "last": handle_of(progress.last.assignment) if progress.last is not None else None,
        "state": state,
        "message": _message(state, paused),
        "retry_after_s": RETRY_AFTER_S,
    }  # fmt: skip


def _is_planned(project_id: int) -> bool:
    """Whether the project has ever had an assignment."""
    return SpotCheck.objects.filter(project_id=project_id).exists()


def _message(state: str, paused: str) -> str:
    """The message of a state; empty for "open"."""
    return {
        "paused": _("You are paused: %(reason)s. Ask a project owner to resume your access.")
        % {"reason": translated(paused)},
        "instruction": _("Please read the instruction before the first pair."),
        "quota_reached": _("You have answered all pairs assigned to you. Thank you."),
        "nothing_left": _("No pair is available for you at the moment."),
    }.get(state, "")


def _top_up(context: ScreenContext, screen: ScreenState, *, taken: frozenset[int], most: int, answering: int) -> None:
    """Claim assignments until the person has `most` leases, or none is left."""
    for place in _free_places(taken)[: max(0, most - len(taken))]:
        claimed = _claim(context, screen, place, answering=answering)
        if claimed is None:
            break
        screen.side_balance += 1 if claimed.swapped else -1


def _free_places(taken: Collection[int]) -> list[int]:
    return [place for place in PLACES if place not in taken]


def _claim(context: ScreenContext, screen: ScreenState, place: int, *, answering: int) -> Claimed | None:
    """Claim a gold pair if one is due, otherwise the next assignment.

    Where nothing else is left, people with too few answers to gold get gold pairs as well.
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
    """A random number of ordinary pairs, `every` - 1 on average: a fixed interval would give gold away."""
    every = min(every, RAREST_GOLD)
    return _random.randint(every - 1 - every // 2, every - 1 + every // 2) if every > 1 else 0


_LIVE = "labeling_live_judgment WHERE annotator_id = %(person)s AND by_person"
# Counts the answers of one day; all answers only where the screen state does not know their number.
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
    """Count the person's answers again, and let the next claim search from the start."""
    with connection.cursor() as cursor:
        cursor.execute(_LOOK_ANEW, {"person": screen.person_id})
        screen.answers, screen.passed = cursor.fetchone()[0], 0
