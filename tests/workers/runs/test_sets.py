"""Runs of judges that read sets: planning, calls, judgments of one call, weights, budgets, estimates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from labeling.access.annotators import get_judge
from labeling.models import Annotator, Judgment, ModelGrade, Project
from labeling.records import PlacedPreference, PointwiseGrade, Verdict
from scoring.annotators.call_correlations import measure_calls
from scoring.calibration.data import read_calibration_data
from scoring.columns import read_columns
from scoring.models import JudgeFit, QueryFit
from scoring.project_fits import choose_project_fit
from scoring.sampling.draw import query_states
from tests.factories.http_panel import KEY, define_endpoints, make_judge, make_texts, work_off
from tests.fake_judge.process import FakeJudge, running_fake_judge
from workers.budgets.limits import Budgets
from workers.judges.openai.setwise import SetwiseJudge
from workers.judging import queue
from workers.judging.queue import ClaimedTask
from workers.judging.recorder import _decode, _encode
from workers.models import Attempt, JudgingTask, Run
from workers.runs.advancing import advance
from workers.runs.estimate import ChosenJudge, estimate_run
from workers.runs.ordering import start_run

# The rater reads in a transaction of its own.
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeJudge]:
    ledger = tmp_path_factory.mktemp("sets") / "ledger.jsonl"
    with running_fake_judge(ledger, "--seed", "5", "--api-key", KEY, "--judge", '{"sigma": 1.0}') as judge:
        yield judge


@pytest.fixture(autouse=True)
def endpoint(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    define_endpoints(monkeypatch, fake)


def setwise(project: Project, **options: object) -> Annotator:
    return get_judge(project, "setwise", {"endpoint": "fake", "model": "sets", **options}, name="sets")


def run_of(project: Project, judge: Annotator, **order: object) -> Run:
    return work_off(start_run(project, judges=[judge], seed=1, **order), [judge])  # type: ignore[arg-type]


def test_a_run_asks_a_third_of_the_calls_and_stores_every_pair_of_a_call(fake: FakeJudge) -> None:
    project = make_texts(documents=16)
    judge = setwise(project)
    before = fake.summary()["calls"]
    run = run_of(project, judge, sampler="cycles", sampler_options={"degree": 2})
    assert (run.state, run.pairs_planned, run.tasks_planned) == (Run.State.FINISHED, 16, 6)
    assert fake.summary()["calls"] - before == 6 == Attempt.objects.filter(run=run).count()
    judgments = list(Judgment.objects.exclude(call=None).select_related("pair").order_by("id"))
    assert Judgment.objects.count() == len(judgments) + 1 == 5 * 6 + 1, "the last pair of the cycle is alone"
    assert {judgment.call for judgment in judgments} < set(Attempt.objects.values_list("task_id", flat=True))
    assert {judgment.call_size for judgment in judgments} == {4}
    for judgment in judgments:
        assert judgment.swapped == (judgment.place_b < judgment.place_a)
    assert len({(j.call, j.place_a) for j in judgments} | {(j.call, j.place_b) for j in judgments}) == 5 * 4
    rated = QueryFit.objects.get()
    assert (rated.pairs, rated.islands) == (len(judgments) + 1, 1)


def test_both_orders_show_a_set_backwards() -> None:
    project = make_texts(documents=8)
    run = start_run(project, judges=[setwise(project)], seed=1, sampler="cycles", orders=Run.Orders.BOTH)
    advance(run.pk)
    tasks = JudgingTask.objects.order_by("pair_id", "swapped").values_list("pair_id", "swapped", "documents")
    sides: dict[int, set[tuple[bool, tuple[int, ...]]]] = {}
    for pair, swapped, documents in tasks:
        if documents:
            sides.setdefault(pair, set()).add((swapped, tuple(documents)))
    assert sides and all({swapped for swapped, _ in each} == {False, True} for each in sides.values())
    assert all(len({documents for _, documents in each}) == 1 for each in sides.values())
    run = work_off(run, list(run.judges.all()))
    assert run.state == Run.State.FINISHED
    for pair in Judgment.objects.values_list("pair_id", flat=True).distinct():
        assert set(Judgment.objects.filter(pair_id=pair).values_list("swapped", flat=True)) == {False, True}


@pytest.mark.parametrize("budget, sizes", [(7, [2, 4, 4]), (3, [4]), (1, [2])])
def test_a_budget_of_pairs_counts_one_less_than_the_documents(budget: int, sizes: list[int]) -> None:
    project = make_texts(documents=16)
    run = start_run(project, judges=[setwise(project)], seed=1, sampler="cycles", pair_budget=budget)
    advance(run.pk)
    run.refresh_from_db()
    assert sorted(len(each or "ab") for each in JudgingTask.objects.values_list("documents", flat=True)) == sizes
    assert run.pairs_planned == budget


def test_call_budget_is_spent_to_the_last_call() -> None:
    project = make_texts(documents=30)
    run = run_of(project, setwise(project), sampler="adaptive", call_budget=13)
    assert (run.is_spent, Attempt.objects.filter(run=run).count()) == (True, 13)


def test_adaptive_goes_on_in_sets_and_ends_at_its_total() -> None:
    project = make_texts(documents=12)
    run = run_of(
        project, setwise(project), sampler="adaptive", sampler_options={"pairs_per_candidate": 2, "round_pairs": 6}
    )
    assert run.state == Run.State.FINISHED and run.round >= 2
    [known] = query_states([project.queries.get().pk]).values()
    assert known.state.weight is not None and known.state.weight.sum() + 6 >= 24


def test_mixed_panels_get_pairs() -> None:
    project = make_texts(documents=8)
    judges = [setwise(project), make_judge(project, "pairs")]
    run = start_run(project, judges=judges, seed=1, sampler="cycles", allocation=Run.Allocation.ROTATE)
    advance(run.pk)
    assert not JudgingTask.objects.exclude(documents=None).exists()
    assert work_off(run, judges).state == Run.State.FINISHED


def test_measured_correlation_decides_the_weight() -> None:
    project = make_texts(queries=2, documents=30)
    judge = setwise(project)
    run_of(project, judge, sampler="cycles", sampler_options={"degree": 6})
    ids = list(project.queries.values_list("id", flat=True))
    read = read_columns(ids)
    assert set(np.round(read.columns.weight[read.calls > 0], 6)) <= {0.5, round(1 / 3, 6)}, "one vote's worth of each"
    chosen = choose_project_fit(project.pk)
    fit = JudgeFit.objects.get(annotator=judge)
    assert chosen.changed and fit.calls >= 30
    assert fit.call_correlation == pytest.approx(0.5, abs=0.15), "the fake judge errs on each document of a call"
    weight = 1 / (1 + 2 * fit.call_correlation)
    assert max(read_columns(ids).columns.weight[read.calls > 0]) <= 1.0
    assert round(weight, 6) in set(np.round(read_columns(ids).columns.weight, 6))
    choose_project_fit(project.pk)  # the prior follows the new weights
    assert not choose_project_fit(project.pk).changed, "the same answers keep the weights"
    assert measure_calls(project.pk, model="thurstone", prior_precision=0.1)[judge.pk].stderr < 0.2


def test_an_answer_on_disk_keeps_its_set_and_its_grades() -> None:
    task = ClaimedTask(1, 2, 1, 3, 4, 5, True, (9, 7, 8))
    placed = (PlacedPreference(0, 1, 0.7), PlacedPreference(2, 1, 1.0))
    answer = Verdict(preference=0.7, placed=placed, grades=(PointwiseGrade(1, 2, 0.5),))
    assert _decode(_encode(task, answer)) == (task, answer)
    old = _encode(task, answer)
    old["task"] = old["task"][:7]
    for name in ("placed", "grades"):
        del old["verdict"][name]
    assert _decode(old) == (ClaimedTask(1, 2, 1, 3, 4, 5, True), Verdict(preference=0.7))


def test_deleted_documents_leave_the_rest_of_the_answer() -> None:
    project = make_texts(documents=4)
    judge = setwise(project)
    run = start_run(project, judges=[judge], seed=1, sampler="all")
    advance(run.pk)
    [task] = queue.claim(annotator_id=judge.pk, worker="w@host:1", limit=1)
    lead = set(JudgingTask.objects.values_list("pair__a_id", "pair__b_id").get())
    last = next(place for place, each in enumerate(task.documents) if each not in lead)
    project.queries.get().candidates.get(pk=task.documents[last]).delete()
    placed = [PlacedPreference(one, other, 0.6) for one in range(4) for other in range(one)]
    recorded = queue.finish([(task, Verdict.on_set(placed))])
    assert (recorded.stored, len(placed)) == (3, 6)


def test_grades_are_stored_apart_and_calibrate_only_where_allowed(fake: FakeJudge) -> None:
    project = make_texts(queries=2, documents=6)
    before = fake.summary()["calls"]
    options = {"endpoint": "fake", "model": "grades"}
    plain = get_judge(project, "grade", options, name="plain")
    run_of(project, plain, sampler="all")
    assert fake.summary()["calls"] - before == 12 == ModelGrade.objects.count()
    assert not project.queries.first().candidates.filter(grade__isnull=False).exists()
    assert len(read_calibration_data(project.pk, judge_terms={}).answers.position) == 0
    allowed = get_judge(project, "grade", {**options, "anchor": True}, name="anchor")
    run_of(project, allowed, sampler="all")
    answers = read_calibration_data(project.pk, judge_terms={}).answers
    assert (answers.source, len(answers.position)) == ("model grades", 12)
    project.queries.first().candidates.update(grade=1)
    assert read_calibration_data(project.pk, judge_terms={}).answers.source == "grades"


def estimated(project: Project, plugin: str, **options: object) -> object:
    judge = ChosenJudge(
        SetwiseJudge if plugin == "setwise" else get_grade(), {"endpoint": "fake", "model": "m", **options}
    )
    return estimate_run(
        project,
        [judge],
        sampler="cycles",
        sampler_options={"degree": 4},
        allocation="all",
        orders="one",
        budgets=Budgets(),
    )


def get_grade() -> type:
    from workers.judges.openai.grade import GradeJudge

    return GradeJudge


def test_estimates_count_calls_about_sets_and_grades(tmp_path: Path) -> None:
    project = make_texts(documents=16)
    of_sets, of_grades = estimated(project, "setwise"), estimated(project, "grade")
    assert (of_sets.pairs, of_sets.calls) == (32, 11)  # type: ignore[attr-defined]
    assert (of_grades.pairs, of_grades.calls) == (32, 16)  # type: ignore[attr-defined]
    assert of_sets.tokens / 11 > of_grades.tokens / 16  # type: ignore[attr-defined]
