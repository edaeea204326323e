"""A simulated panel of people at the comparison screen: what they answer moves judges' weights, scores and relevance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.special import expit

from labeling.access.handles import assignment_of
from labeling.annotation.answer_scale import nearest_step
from labeling.annotation.assignments import open_assignments
from labeling.models import Annotator, Judgment, Pair, Project, SpotCheck
from scoring.calibration.calibrate import calibrate_project
from scoring.models import Calibration, JudgeFit, Score
from scoring.numerics.measures.metrics import kendall
from scoring.project_fits import choose_project_fit
from scoring.rating import rate_stale
from tests.factories.comparing import Screen, make_screen, slots_of
from tests.factories.judged import Judged, answer, draw_pairs, make_judged, stored
from tests.factories.rows import make_judges

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


def make_misled(rng: np.random.Generator) -> tuple[Judged, Annotator, list[Annotator]]:
    """A good judge, and two bad ones that see the same wrong relevance in each candidate and so outvote it."""
    judged = make_judged(queries=8, size=10, rng=rng)
    Project.objects.filter(pk=judged.project.pk).update(gold_every=0, rater_options={"judge_weights": "anchored"})
    judged.project.refresh_from_db()
    good, *bad = make_judges(judged.project, 3)
    pairs = draw_pairs(judged, 6, rng)
    answer(judged, good, pairs, rng, noise=0.5)
    seen = {candidate: float(rng.normal(0.0, 2.5)) for candidate in judged.logits}
    errors = np.array([seen[a] - seen[b] for _, a, b in pairs])
    for judge in bad:
        answer(judged, judge, pairs, rng, noise=0.2, shared=errors)
    rate_stale(judged.project.pk)
    choose_project_fit(judged.project.pk)
    return judged, good, bad


def choice_of(difference: float) -> str:
    """The strength nearest to what somebody feels whose logit for the left document is `difference`."""
    left = float(expit(difference))
    return nearest_step(left)


def let_work(judged: Judged, people: Sequence[Screen], rng: np.random.Generator, *, noise: float = 0.4) -> int:
    """Everybody in turn answers what comes, by what is true and an error of their own; how many answers that were."""
    answers = 0
    for screen in people:
        shown = screen.next()
        while shown["items"]:
            handle = slots_of(shown)[0]
            slot = SpotCheck.objects.select_related("pair").get(pk=assignment_of(handle))
            difference = judged.difference(slot.pair.a_id, slot.pair.b_id) + float(rng.normal(0.0, noise))
            shown = screen.answer(handle, choice_of(-difference if slot.swapped else difference))
            answers += 1
    return answers


def weights(judges: Sequence[Annotator]) -> list[float]:
    return [JudgeFit.objects.get(annotator=judge).weight for judge in judges]


def mean_tau(judged: Judged) -> float:
    theta = dict(Score.objects.values_list("candidate_id", "theta"))
    of = [[(theta[each], judged.logits[each]) for each in ids] for ids in judged.candidates.values()]
    return float(np.mean([kendall(*zip(*rows, strict=True)) for rows in of]))


def test_a_panel_of_people_gives_the_good_judge_its_weight_back() -> None:
    rng = np.random.default_rng(5)
    judged, good, bad = make_misled(rng)
    good_before, *bad_before = weights([good, *bad])
    assert good_before < min(bad_before), "alone, the judges that share their errors look the better ones"
    tau_before = mean_tau(judged)

    asked = list(Pair.objects.order_by("?").values_list("id", flat=True)[:80])
    open_assignments(asked, reason="disagreement", overlap=2)
    people = [make_screen(judged.project) for _ in range(3)]
    assert let_work(judged, people, rng) == 160

    assert choose_project_fit(judged.project.pk).changed
    rate_stale(judged.project.pk)
    good_after, *bad_after = weights([good, *bad])
    assert good_after > 2.0 * max(bad_after)
    assert good_after > good_before and max(bad_after) < min(bad_before)
    assert JudgeFit.objects.get(annotator=good).anchors == 160
    assert mean_tau(judged) > tau_before + 0.1
    assert not JudgeFit.objects.filter(annotator__is_person=True).exists()


def test_peoples_answers_enter_the_strengths_and_leave_them_by_undo() -> None:
    rng = np.random.default_rng(6)
    judged = make_judged(queries=1, size=4, rng=rng)
    Project.objects.update(gold_every=0)
    query = judged.queries[0]
    (judge,) = make_judges(judged.project)
    pairs = draw_pairs(judged, 2, rng)
    answer(judged, judge, pairs, rng, sharpness=0.0, noise=0.0)
    rate_stale(judged.project.pk)
    before = dict(Score.objects.values_list("candidate_id", "theta"))
    open_assignments([pairs[0][0]], reason="random")
    screen = make_screen(judged.project)
    (item,) = screen.next()["items"]
    screen.answer(item["slot"], "left_clearly")
    rate_stale(judged.project.pk)
    slot = SpotCheck.objects.select_related("pair").get(pk=assignment_of(item["slot"]))
    winner = slot.pair.b_id if slot.swapped else slot.pair.a_id
    answered = dict(Score.objects.values_list("candidate_id", "theta"))
    assert answered[winner] > before[winner] + 0.1
    screen.undo()
    query.refresh_from_db()
    assert query.judged_version > query.fit.judged_version, "an undo makes the query stale"
    rate_stale(judged.project.pk)
    assert Score.objects.get(candidate_id=winner).theta == pytest.approx(before[winner], abs=1e-6)


def test_answers_of_people_across_queries_move_the_queries_to_their_levels_and_calibrate_relevance() -> None:
    rng = np.random.default_rng(7)
    judged = make_judged(queries=6, size=8, rng=rng, level_spread=2.0)
    Project.objects.update(gold_every=0)
    (judge,) = make_judges(judged.project)
    answer(judged, judge, draw_pairs(judged, 6, rng), rng, noise=0.3)
    rate_stale(judged.project.pk)
    calibrated = judged.project.calibration_version
    drawn = []
    ids = list(judged.candidates.values())
    for one in range(len(ids)):
        for other in range(one + 1, len(ids)):
            drawn += [sorted((int(rng.choice(ids[one])), int(rng.choice(ids[other])))) for _ in range(4)]
    asked = [pair for pair, _, _ in stored(np.array(drawn), None)]
    open_assignments(asked, reason="cross_query", overlap=1)
    screen = make_screen(judged.project)
    answers = let_work(judged, [screen], rng, noise=0.2)
    assert answers == Judgment.objects.filter(by_person=True, pair__query__isnull=True).count() == len(set(asked))
    judged.project.refresh_from_db()
    assert judged.project.calibration_version == calibrated + answers
    calibrate_project(judged.project.pk)
    row = Calibration.objects.latest("version")
    assert row.version == judged.project.calibration_version
    found = dict(Score.objects.values_list("candidate_id", "elo"))
    of_query = [np.mean([found[each] for each in ids]) for ids in judged.candidates.values()]
    levels = [np.mean([judged.logits[each] for each in ids]) for ids in judged.candidates.values()]
    assert np.corrcoef(of_query, levels)[0, 1] > 0.8
    assert Score.objects.filter(calibrated=True).count() == len(judged.logits)
