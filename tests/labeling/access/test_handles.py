"""The names of assignments: each names one assignment, and none tells when or why it was made."""

from __future__ import annotations

import itertools

import pytest

from labeling.access.handles import MOST, assignment_of, handle_of
from labeling.annotation.gold import set_gold
from labeling.models import Project, SpotCheck
from tests.factories.comparing import make_compared, make_screen, slots_of


def test_a_handle_names_one_assignment() -> None:
    ids = [*range(2000), MOST - 1]
    handles = [handle_of(each) for each in ids]
    assert len(set(handles)) == len(ids)
    assert [assignment_of(each) for each in handles] == ids
    assert all(0 <= each < MOST for each in handles)
    for wrong in (-1, MOST):
        with pytest.raises(ValueError, match="expected 0 to"):
            handle_of(wrong)


def test_handles_of_later_assignments_are_as_often_lower_as_higher() -> None:
    handles = [handle_of(each) for each in range(1, 2001)]
    rises = sum(later > earlier for earlier, later in itertools.pairwise(handles))
    assert 0.4 < rises / 1999 < 0.6
    assert abs(sum(each < MOST / 2 for each in handles) / 2000 - 0.5) < 0.1


def test_another_secret_gives_other_handles(settings: object) -> None:
    before = [handle_of(each) for each in range(100)]
    settings.SECRET_KEY = "another secret of this installation"  # type: ignore[attr-defined]
    assert not set(before) & {handle_of(each) for each in range(100)}


@pytest.mark.django_db
def test_an_annotator_cannot_tell_gold_pairs_by_their_slots() -> None:
    """The attack: what was made after the last planned assignment is gold."""
    project = make_compared(pairs=36)
    known = list(SpotCheck.objects.order_by("id").values_list("pair_id", flat=True)[:12])
    SpotCheck.objects.filter(pair_id__in=known).delete()
    for pair in known:
        set_gold(pair, 0.95)
    Project.objects.filter(pk=project.pk).update(gold_every=2, gold_accuracy=0.0)
    screen = make_screen(project)
    shown, seen, gold = screen.next(), [], []
    while shown["items"]:
        slot = slots_of(shown)[0]
        seen.append(slot)
        if SpotCheck.objects.get(pk=assignment_of(slot)).reason == "gold":
            gold.append(slot)
        shown = screen.answer(slot)
    assert len(gold) == 12 and len(seen) == 36
    guessed = sorted(seen)[-12:]
    assert len(set(guessed) & set(gold)) < 12
    assert not set(seen) & set(SpotCheck.objects.values_list("pk", flat=True))
