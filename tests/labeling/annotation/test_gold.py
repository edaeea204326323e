"""Gold pairs, who fails them, and what people are told once they have answered."""

from __future__ import annotations

import itertools
import json
import uuid
from typing import Any

import pytest

from labeling.access.handles import assignment_of, handle_of
from labeling.access.members import resume_person
from labeling.annotation.gold import example_pairs, is_right, pause_person, set_gold
from labeling.annotation.rules import BadRules, Rules, set_rules
from labeling.annotation.worked_examples import worked_examples
from labeling.models import GoldAnswer, Judgment, Pair, Project, SpotCheck
from labeling.models.screen import ScreenState, SeenAnswers
from tests.factories.comparing import Json, Screen, make_compared, make_screen, slots_of
from tests.factories.rows import judge_pair, make_judges

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("stub_plugins")]


@pytest.mark.parametrize(
    ("given", "gold", "right"),
    [
        (0.95, 0.95, True), (0.75, 0.95, True), (0.5, 0.95, False), (0.25, 0.95, False), (None, 0.95, False),
        (0.5, 0.75, True), (None, 0.75, True), (0.95, 0.55, True), (0.25, 0.55, False), (0.5, 0.5, True),
        (0.75, 0.5, True), (0.95, 0.5, False), (None, 0.5, True), (0.05, 0.25, True), (0.5, 0.25, True),
    ],
)  # fmt: skip
def test_near_the_border_a_tie_is_right_too(given: float | None, gold: float, right: bool) -> None:
    assert is_right(given, gold, 0.25) is right


def make_gold(*, golds: int = 4, ordinary: int = 6, **rules: Any) -> Project:
    """A project with `golds` pairs that are asked as gold, known to be clearly for a, and ordinary ones; beside the
    gold that its instruction explains.
    """
    known_pairs = golds + min(3, golds)
    project = make_compared(pairs=known_pairs + ordinary, **{"gold_every": 2, "gold_answers": 4, **rules})
    known = list(SpotCheck.objects.order_by("id").values_list("pair_id", flat=True)[:known_pairs])
    SpotCheck.objects.filter(pair_id__in=known).delete()
    for pair in known:
        set_gold(pair, 0.95, explanation="It names the year.")
    return project


@pytest.mark.parametrize(
    ("explained", "others", "examples"), [(1, 0, 0), (2, 0, 1), (3, 0, 1), (5, 0, 2), (9, 0, 3), (2, 8, 2), (0, 4, 0)]
)
def test_what_the_instruction_explains_is_not_asked_and_most_gold_is(
    explained: int, others: int, examples: int
) -> None:
    """The oldest explained pairs, three at most and no more than every second known one."""
    project = make_compared(pairs=explained + others, gold_every=1, gold_answers=1000)
    known = list(SpotCheck.objects.order_by("id").values_list("pair_id", flat=True))
    SpotCheck.objects.all().delete()
    for at, pair in enumerate(known):
        set_gold(pair, 0.95, explanation="It names the year." if at < explained else "")
    assert example_pairs(project.pk) == known[:examples]
    assert len([each for each in worked_examples(project) if each.why == "It names the year."]) == examples
    screen = make_screen(project)
    work(screen, gold_right=True)
    assert set(Judgment.objects.values_list("pair", flat=True)) == set(known[examples:])


def work(screen: Screen, *, gold_right: bool) -> Json:
    """Answer until nothing comes; gold rightly or wrongly."""
    shown = screen.next()
    while shown["items"]:
        slot = SpotCheck.objects.get(pk=assignment_of(slots_of(shown)[0]))
        a_wins = gold_right or slot.reason != "gold"
        shown = screen.answer(handle_of(slot.pk), "left_clearly" if a_wins != slot.swapped else "right_clearly")
    return shown


def test_every_gold_pair_is_asked_of_everybody_among_the_others() -> None:
    project = make_gold()
    screens = [make_screen(project) for _ in range(3)]
    for screen in screens:
        work(screen, gold_right=True)
        asked = SpotCheck.objects.filter(holder=screen.person, reason="gold")
        assert asked.count() == 4
        assert asked.filter(slot__isnull=True, judgment__isnull=False).count() == 4
    assert GoldAnswer.objects.count() == 4 + 3
    assert Judgment.objects.count() == 3 * 4 + 6


def test_a_gold_pair_does_not_come_back_after_its_answer() -> None:
    project = make_gold(golds=3, ordinary=1, gold_every=1, gold_answers=10)
    screen = make_screen(project)
    shown = screen.next()
    answered = []
    while shown["items"]:
        slot = SpotCheck.objects.get(pk=assignment_of(slots_of(shown)[0]))
        answered.append(slot.pk)
        shown = screen.answer(handle_of(slot.pk), "right_clearly" if slot.swapped else "left_clearly")
    assert len(answered) == len(set(answered)) == 4


def test_gold_comes_about_every_so_many_pairs() -> None:
    project = make_gold(golds=10, ordinary=35, gold_every=4)
    screen = make_screen(project)
    work(screen, gold_right=True)
    reasons = list(
        SpotCheck.objects.filter(judgment__isnull=False).order_by("judgment_id").values_list("reason", flat=True)
    )
    places = [place for place, reason in enumerate(reasons[:36]) if reason == "gold"]
    assert 6 <= len(places) <= 10
    gaps = {after - before for before, after in itertools.pairwise(places)}
    assert gaps <= {2, 3, 4, 5, 6}


def test_gold_looks_like_any_other_pair() -> None:
    project = make_gold(ordinary=0)
    ordinary = make_screen(make_compared()).next()["items"][0]
    (item, _) = make_screen(project).next()["items"]
    assert item.keys() == ordinary.keys()
    assert "gold" not in json.dumps(item)
    assert "names the year" not in json.dumps(item)


def test_who_fails_gold_is_paused_and_what_lay_before_them_goes_to_others() -> None:
    project = make_gold(ordinary=11)
    screen = make_screen(project)
    shown = work(screen, gold_right=False)
    assert shown["state"] == "paused"
    assert "0 of 4" in shown["message"]
    assert not SpotCheck.objects.filter(place__isnull=False).exists()
    assert screen.next()["state"] == "paused"
    response = screen.post("undo", key=str(uuid.uuid4()), slot=screen.last)
    assert (response.status_code, json.loads(response.content)["code"]) == (409, "paused")


@pytest.mark.parametrize("taken_over", [False, True])
def test_answers_on_their_way_when_a_pause_comes_are_kept(taken_over: bool) -> None:
    """Given without a connection, before the pause; what lay there may have gone to others since."""
    project = make_compared(pairs=3)
    screen, colleague = make_screen(project), make_screen(project)
    first, second = slots_of(screen.next())
    pause_person(screen.person, "asked to")
    if taken_over:
        assert first in slots_of(colleague.next())
    kept = screen.answer(first)
    assert (kept["stored"], kept["state"], kept["items"]) == ("extra" if taken_over else "answer", "paused", [])
    assert screen.skip(second)["state"] == "paused"
    assert Judgment.objects.get().annotator == screen.person


def test_a_gold_answer_on_its_way_when_a_pause_comes_is_kept() -> None:
    screen = make_screen(make_gold())
    slot = first_gold(screen)
    pause_person(screen.person, "asked to")
    assert screen.answer(handle_of(slot.pk), sides_of(slot)[1])["stored"] == "answer"
    assert screen.person.pause_reason == "asked to"


def test_who_was_let_go_on_starts_with_a_clean_slate() -> None:
    project = make_gold(golds=8, ordinary=28)
    screen = make_screen(project)
    assert work(screen, gold_right=False)["state"] == "paused"
    assert resume_person(project, screen.user)
    assert work(screen, gold_right=True)["state"] == "nothing_left"
    assert screen.person.paused_at is None


def test_right_answers_to_gold_pause_nobody() -> None:
    screen = make_screen(make_gold())
    assert work(screen, gold_right=True)["state"] == "nothing_left"
    assert screen.person.paused_at is None


def first_gold(screen: Screen) -> SpotCheck:
    """Work until a gold pair lies first."""
    shown = screen.next()
    while (slot := SpotCheck.objects.get(pk=assignment_of(slots_of(shown)[0]))).reason != "gold":
        shown = screen.answer(handle_of(slot.pk), "tie")
    return slot


def sides_of(slot: SpotCheck) -> tuple[str, str]:
    """The right and the wrong clear answer to a gold pair."""
    return ("right_clearly", "left_clearly") if slot.swapped else ("left_clearly", "right_clearly")


def test_hidden_feedback_says_nothing() -> None:
    screen = make_screen(make_gold(gold_feedback="hidden"))
    slot = first_gold(screen)
    assert screen.answer(handle_of(slot.pk), sides_of(slot)[1])["feedback"] is None


def test_open_feedback_names_the_side_and_the_reason() -> None:
    screen = make_screen(make_gold(gold_feedback="open"))
    slot = first_gold(screen)
    right, wrong = sides_of(slot)
    text = f"Expected: {'B' if slot.swapped else 'A'} is the more relevant. It names the year."
    assert screen.answer(handle_of(slot.pk), wrong)["feedback"] == {"correct": False, "text": text}
    screen.undo()
    assert screen.answer(handle_of(slot.pk), right)["feedback"]["correct"] is True


def test_with_open_feedback_the_first_answer_counts() -> None:
    project = make_gold(gold_feedback="open", gold_answers=1, gold_accuracy=1.0, golds=2)
    screen = make_screen(project)
    slot = first_gold(screen)
    right, wrong = sides_of(slot)
    assert screen.answer(handle_of(slot.pk), wrong)["state"] == "paused"
    resume_person(project, screen.user)
    screen.undo()
    assert screen.answer(handle_of(slot.pk), right)["state"] == "open"


def test_a_pair_has_one_gold_answer_and_the_last_one_holds() -> None:
    pair = Pair.objects.first() if make_compared(pairs=1) else None
    assert pair is not None
    set_gold(pair.pk, 0.05)
    set_gold(pair.pk, 0.75, explanation="after all")
    gold = GoldAnswer.objects.get()
    assert (gold.preference, gold.explanation) == (0.75, "after all")
    assert not SpotCheck.objects.filter(reason="gold").exists()


def test_a_paused_persons_gold_pair_waits_for_them() -> None:
    screen = make_screen(make_gold(ordinary=3))
    slot = first_gold(screen)
    pause_person(screen.person, "asked to")
    slot.refresh_from_db()
    assert (slot.holder, slot.place) == (screen.person, None)
    resume_person(screen.project, screen.user)
    ScreenState.objects.update(gold_in=0)
    assert handle_of(slot.pk) in slots_of(screen.next())


# --- what others said --------------------------------------------------------------------


def test_others_answers_are_shown_after_the_submit_and_only_where_allowed() -> None:
    for allowed in (False, True):
        project = make_compared(pairs=1, overlap=2, show_others_after=allowed)
        pair = Pair.objects.order_by("-id").first()
        assert pair is not None
        (judge,) = make_judges(project)
        judge_pair(pair, judge, 0.8, rationale="a says when")
        colleague, screen = make_screen(project), make_screen(project)
        (shown,) = colleague.next()["items"]
        others = colleague.answer(shown["slot"], "tie")["others"]
        (item,) = screen.next()["items"]
        assert "rationale" not in json.dumps(item)
        swapped = SpotCheck.objects.get(pk=assignment_of(item["slot"])).swapped
        others = screen.answer(item["slot"])["others"]
        if not allowed:
            assert others is None
            continue
        assert others == [
            {"who": judge.name, "preference_left": 0.2 if swapped else 0.8, "rationale": "a says when"},
            {"who": "a colleague", "preference_left": 0.5, "rationale": ""},
        ]


def test_others_answers_are_not_shown_where_they_would_give_hidden_gold_away() -> None:
    """Neither on gold, nor on the others: the gap would tell."""
    project = make_gold(gold_feedback="hidden")
    with pytest.raises(BadRules, match="give away hidden gold"):
        set_rules(project, Rules(show_others_after=True))
    set_rules(project, Rules(show_others_after=True, gold_feedback="open"))
    set_rules(project, Rules(show_others_after=True, gold_every=0))
    Project.objects.update(show_others_after=True, gold_every=2, gold_feedback="hidden")
    (judge,) = make_judges(project)
    for pair in Pair.objects.all():
        judge_pair(pair, judge, 0.8)
    screen = make_screen(project)
    gold = first_gold(screen)
    assert screen.answer(handle_of(gold.pk))["others"] is None
    assert screen.answer(slots_of(screen.next())[0])["others"] is None


def test_being_told_is_noted_with_the_answer_before_it() -> None:
    project = make_compared(pairs=2, show_others_after=True)
    (judge,) = make_judges(project)
    screen = make_screen(project)
    told, untold = slots_of(screen.next())
    judge_pair(SpotCheck.objects.get(pk=assignment_of(told)).pair, judge, 0.8)
    screen.answer(told)
    assert list(SeenAnswers.objects.values_list("judgment__spot_check", flat=True)) == [assignment_of(told)]
    screen.undo()
    screen.answer(told)
    screen.answer(untold)
    assert SeenAnswers.objects.count() == 2
    assert not SeenAnswers.objects.filter(judgment__spot_check=assignment_of(untold)).exists()
