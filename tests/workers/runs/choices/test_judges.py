"""Allocation `informative`: judges are measured on the run's own answers, then asked where a dollar tells most."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import pytest

from labeling import plugins
from labeling.models import Annotator, Judgment, Project
from labeling.records import Comparison, Failure, Verdict
from scoring.judge_terms import panel_terms, seen_candidates
from scoring.models import JudgeFit, Score
from scoring.numerics.judges import informative
from scoring.rating import rate_stale
from tests.factories.rows import make_judges, make_project, make_run
from tests.factories.stubs.plugins import TestJudge
from tests.factories.working import judge_all
from workers.models import Attempt, JudgingTask, Run
from workers.runs import planning
from workers.runs.advancing import advance
from workers.runs.choices import judges as judge_choice

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins", "guessing")]

DOCUMENTS, QUERIES = 12, 24  # of 6 queries too little is known: the draw, by the rows' keys, decides


class GuessingJudge(TestJudge):
    """Prefers by a checksum of the texts: steadily, and without a reason."""

    name = "test-guessing"
    label = "Guessing"

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        sums = [zlib.crc32((each.a.text + each.b.text).encode()) for each in comparisons]
        return [Verdict(0.8 if number % 2 else 0.2) for number in sums]


@pytest.fixture
def guessing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(plugins._registry, ("judge", "test-guessing"), GuessingJudge)


@pytest.fixture
def small_pilot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(informative, "PILOT_VOTES", 150)
    monkeypatch.setattr(informative, "PILOT_STDERR", 0.9)


def make_panel(project: Project) -> tuple[Annotator, Annotator]:
    """One that prefers the longer document, and one that guesses."""
    return make_judges(project, 1)[0], make_judges(project, 1, plugin="test-guessing")[0]


def asked(run: Run) -> dict[int, int]:
    counts = dict.fromkeys(run.judges.values_list("pk", flat=True), 0)
    for judge in JudgingTask.objects.filter(run=run, state="open").values_list("annotator", flat=True):
        counts[judge] += 1
    return counts


def started(project: Project, judges: Sequence[Annotator], **order: object) -> Run:
    options = {"start_cycles": 2, "pairs_per_candidate": 5.0, "round_pairs": 8}
    return make_run(
        project, judges=judges, sampler="adaptive", sampler_options=options, allocation="informative", **order
    )


def test_judges_take_turns_until_measured_and_then_the_sharp_one_is_asked() -> None:
    project = make_project(queries=QUERIES, documents=DOCUMENTS)
    sharp, guesses = make_panel(project)
    run = started(project, [guesses, sharp])
    first = asked(run)
    assert sum(first.values()) == run.pairs_planned == 2 * QUERIES * DOCUMENTS
    assert abs(first[sharp.pk] - first[guesses.pk]) <= 1, "nothing is known, and both are free"
    assert judge_all(run) == 2 * QUERIES * DOCUMENTS
    rate_stale(project.pk)
    advance(run.pk)
    later = asked(run)
    assert later[sharp.pk] + later[guesses.pk] == QUERIES * 8
    # Mostly 0 to 5 %; with the ids, and so the seeds, of one run in a whole suite 14 %.
    assert later[guesses.pk] <= 0.25 * QUERIES * 8, (first, later)
    assert not JudgeFit.objects.exists(), "they were measured for this choice alone"


def test_a_price_counts() -> None:
    project = make_project(queries=QUERIES, documents=DOCUMENTS)
    dear, cheap = make_judges(project, 2)
    run = started(project, [dear, cheap])
    for judge, cost in ((dear, 100_000), (cheap, 100)):
        Attempt.objects.create(
            task_id=2**40, fence=judge.pk, run=run, annotator=judge, outcome="preference", cost_micros=cost
        )
    assert judge_choice.prices([dear.pk, cheap.pk]) == [100_000.0, 100.0]
    assert judge_choice.prices([cheap.pk, dear.pk]) == [100.0, 100_000.0]
    failed = Attempt.objects.create(
        task_id=2**40 + 1, fence=1, run=run, annotator=cheap, outcome="refusal", cost_micros=60
    )
    assert judge_choice.prices([cheap.pk]) == [160.0], "a refusal is paid, and tells nothing"
    failed.delete()
    judge_all(run)
    rate_stale(project.pk)
    advance(run.pk)
    later = asked(run)
    assert later[cheap.pk] > later[dear.pk], "both are equally sharp"


@pytest.mark.usefixtures("small_pilot")
def test_judges_are_measured_on_a_part_of_the_queries_before_the_others_begin() -> None:
    project = make_project(queries=2 * QUERIES, documents=DOCUMENTS)
    sharp, guesses = make_panel(project)
    run = started(project, [guesses, sharp], pair_budget=2 * QUERIES * 4 * DOCUMENTS)
    ids = list(project.queries.order_by("id").values_list("pk", flat=True))
    pilot = set(JudgingTask.objects.filter(run=run).values_list("pair__query", flat=True))
    assert len(pilot) * DOCUMENTS >= 2 * informative.PILOT_VOTES > (len(pilot) - 1) * DOCUMENTS, (
        "a round asks one pair a candidate or more"
    )
    assert pilot - set(ids[: len(pilot)]), "drawn from all"
    assert run.pairs_planned == len(pilot) * 2 * DOCUMENTS, "the budget is for all queries"
    judge_all(run)
    rate_stale(project.pk)
    advance(run.pk)
    run.refresh_from_db()
    assert run.round == 2
    others = JudgingTask.objects.filter(run=run, state="open").exclude(pair__query__in=pilot)
    assert set(others.values_list("pair__query", flat=True)) == set(ids) - pilot
    assert others.filter(annotator=guesses).count() <= 0.05 * others.count()
    assert others.count() == (len(ids) - len(pilot)) * 2 * DOCUMENTS


@pytest.mark.usefixtures("small_pilot")
def test_pilot_that_has_nothing_to_ask_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(queries=2 * QUERIES, documents=DOCUMENTS)
    with monkeypatch.context() as patched:
        patched.setattr(planning, "plan_queries", lambda *args, **options: None)
        run = started(project, make_panel(project))
    assert (run.state, run.round, run.tasks_planned) == ("judging", 1, 0)
    advance(run.pk)
    assert JudgingTask.objects.filter(run=run).exists()


def test_sides_balance_what_was_asked_before() -> None:
    project = make_project(queries=1, documents=4)
    (judge,) = make_judges(project, 1)
    run = make_run(project, judges=[judge], sampler="all")
    rows = JudgingTask.objects.filter(run=run).select_related("pair")
    counted: dict[int, list[int]] = {}
    for task in rows:
        ends = (task.pair.b_id, task.pair.a_id) if task.swapped else (task.pair.a_id, task.pair.b_id)
        for candidate, side in zip(ends, (1, -1), strict=True):
            votes, first = counted.get(candidate, [0, 0])
            counted[candidate] = [votes + 1, first + side]
    candidates = np.array(sorted(counted))
    for answered in (False, True):
        seen = seen_candidates(candidates, [judge.pk])
        assert seen.votes[:, 0].tolist() == [counted[each][0] for each in sorted(counted)] == [3, 3, 3, 3]
        assert seen.first[:, 0].tolist() == [counted[each][1] for each in sorted(counted)]
        assert np.isnan(seen.theta).all() != answered
        if not answered:
            judge_all(run)
            rate_stale(project.pk)
            assert Score.objects.count() == Judgment.objects.count() - 2 == 4


def test_stored_measurements_count() -> None:
    project = make_project(queries=1, documents=4)
    one, other = make_judges(project, 2)
    for judge, sharpness in ((one, 1.2), (other, 0.7)):
        JudgeFit.objects.create(
            annotator=judge, sharpness=sharpness, sharpness_stderr=0.1, position_bias=0.2, position_bias_stderr=0.1,
            dispersion=0.5, weight=1.0, votes=200, anchors=0,
        )  # fmt: skip
    known = panel_terms(project, [other.pk, one.pk], [2.0, 3.0])
    assert known.is_measured
    assert known.sharpness.tolist() == [0.7, 1.2] and known.price.tolist() == [2.0, 3.0]
    assert known.dispersion.tolist() == [0.5, 0.5] and not known.shared.any()
