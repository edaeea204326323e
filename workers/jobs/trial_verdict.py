"""The verdict on a judge after a trial: works, doubtful or fails, with its reason. Pure functions of the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from labeling.records import AnswerKind
from labeling.stored_texts import StoredText, stored_text
from scoring.numerics.measures.sides import side

WORKS, DOUBTFUL, FAILS = "works", "doubtful", "fails"
# With fewer answers, equal positions or wrong answers may be chance: 1 in 16 for five coin flips that agree.
ENOUGH = 5
ENOUGH_KNOWN = 3

NO_ANSWER = stored_text("none of %(n)s questions was answered: %(message)s")
MOSTLY_NONE = stored_text("%(failed)s of %(n)s questions were not answered: %(message)s")
ONE_POSITION = stored_text("it preferred the document shown %(place)s in all %(n)s answers, regardless of its text")
ALL_TIES = stored_text("it called all %(n)s pairs a tie")
BELOW_CHANCE = stored_text("it agrees with %(right)s of %(n)s known answers, which is less than chance")
ANSWERED = stored_text("it answered all %(n)s questions")
ANSWERED_KNOWN = stored_text("it answered all %(n)s questions, and agrees with %(right)s of %(known)s known answers")


@dataclass(frozen=True, slots=True)
class Tried:
    """One question of a trial. `kind` is that of the answer or of the failure; `known` is P(a is the more relevant)."""

    kind: str
    message: str
    preference: float | None
    swapped: bool
    known: float | None = None

    @property
    def is_answered(self) -> bool:
        return self.kind in set(AnswerKind)


@dataclass(frozen=True, slots=True)
class TrialVerdict:
    """`failure` is the kind of the most frequent failure, empty where all questions were answered."""

    verdict: str
    reason: StoredText
    failure: str = ""


def verdict_on(tried: Sequence[Tried]) -> TrialVerdict:
    """Judge the judge by its answers. It fails where at most half of the questions were answered."""
    failed = [each for each in tried if not each.is_answered]
    if failed:
        (kind, _), *_ = Counter(each.kind for each in failed).most_common(1)
        message = next(each.message for each in failed if each.kind == kind)
        if len(failed) == len(tried):
            return TrialVerdict(FAILS, NO_ANSWER % {"n": len(tried), "message": message}, kind)
        reason = MOSTLY_NONE % {"failed": len(failed), "n": len(tried), "message": message}
        return TrialVerdict(FAILS if 2 * len(failed) >= len(tried) else DOUBTFUL, reason, kind)
    doubt = _one_position(tried) or _all_ties(tried) or _below_chance(tried)
    if doubt is not None:
        return TrialVerdict(DOUBTFUL, doubt)
    right, known = _agreement(tried)
    if known:
        return TrialVerdict(WORKS, ANSWERED_KNOWN % {"n": len(tried), "right": f"{right:g}", "known": known})
    return TrialVerdict(WORKS, ANSWERED % {"n": len(tried)})


def _one_position(tried: Sequence[Tried]) -> StoredText | None:
    """Every other question is shown in the other order: a judge that reads cannot always prefer one place."""
    sides = [_shown_first(each) for each in tried if each.preference is not None]
    if len(sides) < ENOUGH or len(set(sides)) != 1 or sides[0] == 0.0:
        return None
    return ONE_POSITION % {"place": "first" if sides[0] > 0 else "second", "n": len(sides)}


def _side(preference: float) -> float:
    return float(side(np.array(preference)))


def _shown_first(each: Tried) -> float:
    assert each.preference is not None
    taken = _side(each.preference)
    return -taken if each.swapped else taken


def _all_ties(tried: Sequence[Tried]) -> StoredText | None:
    sides = [_side(each.preference) for each in tried if each.preference is not None]
    return ALL_TIES % {"n": len(sides)} if len(sides) >= ENOUGH and not any(sides) else None


def _below_chance(tried: Sequence[Tried]) -> StoredText | None:
    right, known = _agreement(tried)
    if known < ENOUGH_KNOWN or 2 * right >= known:
        return None
    return BELOW_CHANCE % {"right": f"{right:g}", "n": known}


def _agreement(tried: Sequence[Tried]) -> tuple[float, int]:
    """(known answers on whose side the judge is, a tie counting half; known answers that take a side)."""
    both = [
        (_side(each.preference), _side(each.known))
        for each in tried
        if each.preference is not None and each.known is not None
    ]
    taken = [(answer, truth) for answer, truth in both if truth != 0.0]
    return sum((answer * truth + 1.0) / 2.0 for answer, truth in taken), len(taken)
