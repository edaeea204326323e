"""Finds judges in trouble: their answers fail, so that each further call would be paid for nothing.

`workers.judging.queue` calls `hold_back` before it hands out questions and `watch` in the transaction that stores failures,
both under one lock a judge: however many processes ask, what a failing judge costs is bounded. Such a judge is paused with
its reason, and runs end without it (`workers.runs.closing`) until somebody resumes it (`workers.judging.pausing`).
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from labeling.database import Cursor
from labeling.models import Annotator
from labeling.stored_texts import StoredText, stored_text
from workers.broker.hints import leave_hint
from workers.budgets.spend import calls_a_question
from workers.judging.pausing import pause_judge
from workers.models import Attempt, JudgeTrouble, Run

log = logging.getLogger(__name__)

# A run begins with so many questions to each judge; the others wait until one of them is answered.
TRIAL = 5
# The most calls of a trial, where a question takes several.
TRIAL_CALLS = 25
# A judge is paused after so many identical failures in a row that no retry helps.
IDENTICAL = 8
# It is paused when more than half of its first answers failed, and later of its last.
FIRST, LAST = 20, 50
# Until so many answers of a judge are there, it has at most so many calls in flight.
PROVEN, UNPROVEN_CALLS = 8, 8

TRIAL_FAILED = stored_text(
    "its trial failed: none of the first %(n)s questions of run %(run)s was answered: %(message)s"
)
IN_A_ROW = stored_text("%(n)s questions in a row failed in the same way: %(message)s")
MOST_OF_FIRST = stored_text("%(failed)s of its first %(n)s answers failed, most often: %(message)s")
MOST_OF_LAST = stored_text("%(failed)s of its last %(n)s answers failed, most often: %(message)s")
LONGEST_MESSAGE = 400


@dataclass(frozen=True, slots=True)
class Outcome:
    """One question that a judge was asked: the kind of its failure ("" where it was answered) and its message."""

    run_id: int
    kind: str
    message: str
    is_retryable: bool

    @property
    def likeness(self) -> tuple[str, str]:
        """Equal for failures that are the same but for numbers and quoted texts."""
        return self.kind, re.sub(r"\d+|'[^']*'|\"[^\"]*\"", "", self.message)


def diagnose(recent: Sequence[Outcome]) -> StoredText | None:
    """Why a judge with these latest questions (newest first, LAST of them at most) should be paused; None for no reason."""
    row = recent[:IDENTICAL]
    is_same = len({each.likeness for each in row}) == 1 and all(each.kind and not each.is_retryable for each in row)
    if len(row) == IDENTICAL and is_same:
        return IN_A_ROW % {"n": IDENTICAL, "message": _shown(row[0].message)}
    failed = [each for each in recent if each.kind]
    is_first = len(recent) <= FIRST
    if 2 * len(failed) <= (FIRST if is_first else LAST):
        return None
    sentence = MOST_OF_FIRST if is_first else MOST_OF_LAST
    return sentence % {"failed": len(failed), "n": len(recent), "message": _shown(most_frequent(failed).message)}


def failed_trial(recent: Sequence[Outcome], run_id: int, *, questions: int) -> StoredText | None:
    """Why the trial with which this run began has failed, where the run has no answer of the judge yet."""
    mine = [each for each in recent if each.run_id == run_id]
    if len(mine) < questions or not all(each.kind for each in mine):
        return None
    return TRIAL_FAILED % {"n": len(mine), "run": run_id, "message": _shown(most_frequent(mine).message)}


def most_frequent(failed: Sequence[Outcome]) -> Outcome:
    """The latest of the most frequent failures."""
    (likeness, _), *_ = Counter(each.likeness for each in failed).most_common(1)
    return next(each for each in failed if each.likeness == likeness)


def _shown(message: str) -> str:
    return message if len(message) <= LONGEST_MESSAGE else message[: LONGEST_MESSAGE - 1] + "…"


def trial_size(annotator_id: int) -> int:
    """Questions of the trial with which a run begins; fewer where a question takes many calls."""
    return max(1, min(TRIAL, TRIAL_CALLS // calls_a_question(annotator_id)))


# --- watching ----------------------------------------------------------------------------


def lock_judges(cursor: Cursor, annotator_ids: Collection[int]) -> None:
    """Let one claim or failure of an unproven judge at a time through, until the transaction ends. Lock them before
    anything else, so that no two transactions wait for each other.
    """
    for annotator_id in sorted(set(annotator_ids)):
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('zelo.judge'), %s)", [annotator_id])


# An outage says nothing of the judge; a question counts once, however many calls it took.
_RECENT = """
SELECT run_id, CASE WHEN outcome = ANY(%(answered)s) THEN '' ELSE outcome END, message, is_retryable
FROM workers_attempt
WHERE annotator_id = %(annotator)s AND call = 1 AND finished_at >= %(since)s AND outcome NOT IN ('', 'lost')
  AND NOT is_outage
ORDER BY finished_at DESC, id DESC LIMIT %(most)s
"""

_ANSWERS = "SELECT COALESCE(sum(answers), 0)::bigint FROM workers_spend WHERE run_id = %s AND annotator_id = %s"


def watch(cursor: Cursor, run_ids_by_judge: dict[int, set[int]]) -> None:
    """Pause the judges among these whose answers fail. Call it in the transaction that stored their failures, under
    `lock_judges`; the runs are those of the failures.
    """
    for annotator_id, run_ids in sorted(run_ids_by_judge.items()):
        judge = Annotator.objects.judges().filter(pk=annotator_id, paused_at__isnull=True).first()
        if judge is None:
            continue
        recent = read_recent(cursor, judge)
        reason = diagnose(recent)
        for run_id in sorted(run_ids):
            reason = reason or _failed_trial(cursor, judge, recent, run_id)
        if reason is not None:
            _pause(judge, reason, most_frequent([each for each in recent if each.kind]), run_ids)


def read_recent(cursor: Cursor, judge: Annotator) -> list[Outcome]:
    """The latest questions to this judge since it was last resumed, newest first."""
    values: dict[str, Any] = {
        "answered": list(Attempt.ANSWERED), "annotator": judge.pk, "most": LAST,
        "since": judge.watched_from or judge.created_at,
    }  # fmt: skip
    cursor.execute(_RECENT, values)
    return [Outcome(*row) for row in cursor.fetchall()]


def _failed_trial(cursor: Cursor, judge: Annotator, recent: Sequence[Outcome], run_id: int) -> StoredText | None:
    found = failed_trial(recent, run_id, questions=trial_size(judge.pk))
    if found is None:
        return None
    cursor.execute(_ANSWERS, [run_id, judge.pk])
    return None if cursor.fetchall()[0][0] else found


def _pause(judge: Annotator, reason: StoredText, failure: Outcome, run_ids: Collection[int]) -> None:
    if not pause_judge(judge, reason):
        return
    JudgeTrouble.objects.update_or_create(
        annotator=judge,
        defaults={"reason": failure.kind, "message": failure.message, "since": judge.paused_at or Now()},
    )
    for run_id in run_ids:
        transaction.on_commit(lambda run_id=run_id: leave_hint("advance", run_id))  # type: ignore[misc]


# --- holding back ------------------------------------------------------------------------

_PROVEN = """
SELECT count(*), count(*) FILTER (WHERE outcome = ANY(%(answered)s)) FROM (
    SELECT outcome FROM workers_attempt
    WHERE annotator_id = %(annotator)s AND run_id = %(run)s AND call = 1 AND finished_at >= %(since)s
      AND outcome NOT IN ('', 'lost') AND NOT is_outage
    ORDER BY finished_at LIMIT %(most)s
) first
"""

_IN_FLIGHT = """
SELECT count(*) FROM workers_attempt
WHERE run_id = %s AND annotator_id = %s AND finished_at IS NULL AND call = 1
"""

# (run, judge, since when it is watched) that need not be held back; they stay so until the judge is resumed.
_proven: set[tuple[int, int, datetime]] = set()
MOST_PROVEN = 10_000


def is_proven(run_id: int, annotator_id: int, since: datetime) -> bool:
    """Whether this process knows that the judge answers in this run."""
    return (run_id, annotator_id, since) in _proven


def hold_back(cursor: Cursor, run_id: int, annotator_id: int, since: datetime) -> int | None:
    """The number of the run's questions that this judge may be asked now; None if it has proven itself. Call it under
    `lock_judges`, in the transaction that hands the questions out.
    """
    values: dict[str, Any] = {
        "answered": list(Attempt.ANSWERED), "annotator": annotator_id, "run": run_id, "since": since, "most": LAST,
    }  # fmt: skip
    cursor.execute(_PROVEN, values)
    asked, answered = cursor.fetchall()[0]
    trial = trial_size(annotator_id)
    if answered >= PROVEN or (answered == asked >= trial):
        if len(_proven) >= MOST_PROVEN:
            _proven.clear()
        _proven.add((run_id, annotator_id, since))
        return None
    cursor.execute(_IN_FLIGHT, [run_id, annotator_id])
    in_flight = cursor.fetchall()[0][0]
    if not answered:
        return max(0, trial - in_flight - min(asked, trial - 1))
    return max(0, max(1, UNPROVEN_CALLS // calls_a_question(annotator_id)) - in_flight)


# --- what is in trouble ------------------------------------------------------------------


def troubled_judges(run: Run) -> list[int]:
    """The run's judges that are in trouble, by id."""
    rows = JudgeTrouble.objects.filter(annotator__in=run.judges.all()).order_by("annotator_id")
    return list(rows.values_list("annotator_id", flat=True))
