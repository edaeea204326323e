"""Adjudication: an owner's verdict on a disputed pair, and its withdrawal.

A verdict is a marked judgment of the owner, stored through `record_judgments`. It enters the fit as an answer of a
person, anchors judges and may become gold. `scoring.annotators.disagreements` finds disputed pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils.translation import gettext as _

from labeling import audit
from labeling.access.annotators import get_person
from labeling.annotation.answer_scale import BY_KEY, PREFERENCES
from labeling.annotation.gold import note_gold, set_gold
from labeling.annotation.idempotency import lock_screen_state
from labeling.judgments import record_judgments, restore_judgments, supersede_judgments
from labeling.models import GoldAnswer, Judgment, Pair, Project
from labeling.records import AnswerKind, NewJudgment
from scoring.models import Adjudication

# P(a is the more relevant), or None for neither, by the answer's key on the comparison screen.
ANSWERS = {key: PREFERENCES.get(answer) for key, answer in BY_KEY.items() if answer != "cannot_judge"}


class BadVerdict(ValueError):
    """The answer of an adjudication is not one of the six."""


class DecidedMeanwhile(RuntimeError):
    """The current verdict differs from the one that the owner saw."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The current adjudication; `changed` is False if it was already the same."""

    adjudication: Adjudication
    changed: bool


def adjudicate(pair: Pair, user: Any, answer: str, *, note: str = "", seen: int | None = None) -> Verdict:
    """Decide a pair by one of `ANSWERS`; the latest verdict counts. Raises BadVerdict.

    The verdict supersedes the owner's earlier answer; withdrawing it restores that answer. `seen` is the id of the
    adjudication that the owner saw, 0 for none; raises DecidedMeanwhile if there is a different one. With None the
    verdict replaces any other. A repeated verdict of the same owner changes nothing.
    """
    if answer not in ANSWERS:
        raise BadVerdict(f"the answer is {answer[:20]!r}; expected one of {', '.join(ANSWERS)}")
    preference = ANSWERS[answer]
    project = _project_of(pair)
    person = get_person(project, user)
    with transaction.atomic():
        standing = _locked(pair, project, person.pk)
        if standing is not None and standing.by_id == user.pk and _says(standing.judgment, preference):
            return Verdict(standing, changed=False)
        _refuse_unseen(standing, seen)
        if standing is not None:
            _take_back(standing)
        before = Judgment.objects.live().filter(pair=pair, annotator=person).first()
        if before is not None:
            supersede_judgments([before.pk])
        kind = AnswerKind.BOTH_IRRELEVANT if preference is None else AnswerKind.PREFERENCE
        record_judgments([NewJudgment(pair.pk, person.pk, False, preference, kind=kind, rationale=note)])
        judgment = Judgment.objects.live().get(pair=pair, annotator=person)
        made = Adjudication.objects.create(pair=pair, judgment=judgment, replaced=before, by=user)
        audit.note("pair.adjudicated", project=project, actor=user, subject=f"pair {pair.pk}", answer=answer)
        _move_gold(pair, preference, by=user)
    return Verdict(made, changed=True)


def undo_adjudication(pair: Pair, *, seen: int | None = None, by: Any = None) -> bool:
    """Take the last word back; what its owner had answered before stands again. Whether there was one.

    A pair that the verdict made gold stops being gold. `seen` as in `adjudicate`.
    """
    with transaction.atomic():
        project = _project_of(pair)
        standing = _locked(pair, project)
        if standing is None:
            return False
        _refuse_unseen(standing, seen)
        _take_back(standing)
        audit.note("pair.adjudication_undone", project=project, actor=by, subject=f"pair {pair.pk}")
        unset_gold(pair, by=by)
    return True


def make_gold(pair: Pair, *, explanation: str = "", by: Any = None) -> GoldAnswer:
    """Let the adjudication of a pair be what people's answers are checked against. Raises BadVerdict without one."""
    decided = Adjudication.objects.select_related("judgment").filter(pair=pair).first()
    if decided is None or decided.judgment.preference is None:
        raise BadVerdict("only a pair with a verdict for one document, or a tie, can be gold; decide the pair first")
    return set_gold(pair.pk, decided.judgment.preference, explanation=explanation, by=by)


def unset_gold(pair: Pair, *, by: Any = None) -> bool:
    """The pair's answer counts as known no more; answers to it stay. Whether it was gold."""
    with transaction.atomic():
        was_gold = GoldAnswer.objects.filter(pair=pair).delete()[0] > 0
        if was_gold:
            note_gold("pair.gold_removed", pair.pk, by)
    return was_gold


def _project_of(pair: Pair) -> Project:
    return Project.objects.get(queries__candidates__pairs_as_a=pair)


def _locked(pair: Pair, project: Project, *people: int) -> Adjudication | None:
    """The adjudication that stands; it cannot change until the transaction ends.

    The locks also stop the messages of `people` and of the adjudicator, whose answers to the pair change with it. The
    pair is locked first, and no answer waits for that lock; then the screen states, in the order of their people, so
    that adjudicators of several pairs cannot deadlock.
    """
    Pair.objects.select_for_update(of=("self",), no_key=True).get(pk=pair.pk)
    speaker = Adjudication.objects.filter(pair=pair).values_list("judgment__annotator_id", flat=True)
    for person in sorted({*people, *speaker}):
        lock_screen_state(person, gold_every=project.gold_every)
    return Adjudication.objects.select_related("judgment", "by").filter(pair=pair).first()


def _refuse_unseen(standing: Adjudication | None, seen: int | None) -> None:
    if seen is None or seen == (standing.pk if standing is not None else 0):
        return
    if standing is None:
        raise DecidedMeanwhile(_("Someone withdrew the verdict in the meantime. Nothing was changed. Reload the page."))
    name = (standing.by.get_full_name() or standing.by.get_username()) if standing.by is not None else _("Somebody")
    raise DecidedMeanwhile(
        _("%(name)s decided this pair in the meantime. Nothing was changed. Decide again to replace that verdict.")
        % {"name": name}
    )


def _says(judgment: Judgment, preference: float | None) -> bool:
    return judgment.is_live and judgment.preference == preference


def _take_back(standing: Adjudication) -> None:
    """Remove the mark, supersede its judgment and restore the earlier one if there is no newer answer."""
    standing.delete()
    supersede_judgments([standing.judgment_id])
    if standing.replaced_id is not None:
        restore_judgments([standing.replaced_id])


def _move_gold(pair: Pair, preference: float | None, *, by: Any) -> None:
    """Gold follows the last word; "neither" cannot be gold."""
    gold = GoldAnswer.objects.filter(pair=pair)
    if preference is None:
        unset_gold(pair, by=by)
    elif gold.exclude(preference=preference).update(preference=preference):
        note_gold("pair.gold", pair.pk, by, preference=preference)
