"""Runs: rounds of sampling, judging and rating; crashes, budgets, pausing, refusals."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.db.models.functions import Now

from labeling.access.annotators import get_person
from labeling.models import Judgment, Pair, Project
from labeling.plugins import UnknownPlugin
from labeling.records import Failure, FailureKind, Verdict
from scoring.models import QueryFit
from scoring.rating import rate_stale
from tests.factories.rows import (
    judge_pair,
    make_judges,
    make_pair,
    make_project,
    make_query_with_documents,
    make_run,
    make_user,
)
from tests.factories.working import judge_all, work_until_over
from workers.judging import batches, queue
from workers.models import Attempt, Job, JudgingTask, Run
from workers.runs import advancing, ordering, planning, progress, transitions
from workers.runs.ordering import RunRefused
from workers.runs.progress import run_progress

# The rater reads in a transaction of its own.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


def questions(run: Run) -> list[tuple[int, int, int, bool]]:
    """What a run asks, in a form that does not depend on ids given out on the way."""
    rows = JudgingTask.objects.filter(run=run).order_by("id")
    return list(rows.values_list("pair__a_id", "pair__b_id", "annotator_id", "swapped"))


# --- rounds ------------------------------------------------------------------------------


def test_run_goes_from_order_to_scores_and_ends() -> None:
    project = make_project(queries=2, documents=6)
    run = work_until_over(make_run(project, judges=make_judges(project, 2), planned=False))
    assert (run.state, run.reason) == (Run.State.FINISHED, "the design is complete")
    assert run.finished_at is not None
    assert Judgment.objects.count() == run.tasks_planned == 2 * run.pairs_planned
    for query in project.queries.all():
        ranked = list(query.candidates.order_by("-score__elo").values_list("first_stage_rank", flat=True))
        assert ranked == [6, 5, 4, 3, 2, 1], "the judges prefer the longer document"
    now = run_progress(run)
    assert now.is_over
    assert (now.answered, now.unfinished, now.dead) == (run.tasks_planned, 0, 0)


def test_a_run_that_hears_nothing_says_whom_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick judge is through; the slow one loads a model, so that the pace of both tells nothing of the end."""
    quick, slow = make_judges(make_project(queries=1, documents=4), 2)
    run = make_run(quick.project, judges=[quick, slow])
    assert run_progress(run).waits_for == (quick.name, slow.name)
    claimed = queue.claim(annotator_id=quick.pk, worker="w@host:1", limit=100)
    queue.finish([(task, Verdict(0.7)) for task in claimed])
    assert run_progress(run).waits_for == () and run_progress(run).eta_s is not None
    monkeypatch.setattr(progress, "SILENT_S", 0)
    monkeypatch.setattr(progress, "CALLS", 0)
    assert run_progress(run).waits_for == (slow.name,) and run_progress(run).eta_s is None


@pytest.mark.parametrize(
    ("call_s", "silent_s", "waits"), [(1, 4, False), (1, 12, True), (20, 12, False), (70, 65, False)]
)
def test_a_pause_no_longer_than_the_runs_own_calls_is_no_silence(call_s: int, silent_s: int, waits: bool) -> None:
    judge = make_judges(make_project(queries=1, documents=4))[0]
    run = make_run(judge.project, judges=[judge])
    (claimed,) = queue.claim(annotator_id=judge.pk, worker="w@host:1", limit=1)
    queue.finish([(claimed, Verdict(0.7))])
    ended = Now() - timedelta(seconds=silent_s)
    Attempt.objects.update(started_at=ended - timedelta(seconds=call_s), finished_at=ended)
    now = run_progress(run)
    assert (now.waits_for == (judge.name,), now.eta_s is None) == (waits, waits)
    assert now.rate > 0


def test_next_round_waits_for_answers_and_scores() -> None:
    project = make_project(queries=1, documents=4)
    run = make_run(project, sampler="test-two-rounds")
    assert (run.round, run.pairs_planned) == (1, 3)
    advancing.advance(run.pk)
    assert Run.objects.get(pk=run.pk).pairs_planned == 3, "answers are still to come"
    judge_all(run)
    advancing.advance(run.pk)
    assert Run.objects.get(pk=run.pk).pairs_planned == 3, "scores are still to come"
    rate_stale(project.pk)
    advancing.advance(run.pk)
    run.refresh_from_db()
    assert (run.round, run.pairs_planned) == (2, 5)
    assert work_until_over(run).round == 2


def test_run_ends_though_every_question_failed_for_good() -> None:
    project = make_project(queries=1, documents=4)
    run = make_run(project)
    claimed = queue.claim(annotator_id=run.judges.get().pk, worker="w@host:1", limit=100)
    queue.fail([(task, Failure(FailureKind.REFUSAL, "no", retryable=False)) for task in claimed])
    assert work_until_over(run).state == Run.State.FAILED
    assert run.reason.startswith("finished without answers of")
    now = run_progress(run)
    assert (now.answered, now.dead) == (0, len(claimed))


def test_run_ends_though_a_query_cannot_be_rated() -> None:
    project = make_project(queries=1, documents=4)
    odd = make_query_with_documents(project, 3)
    Project.objects.filter(pk=project.pk).update(rater="test-picky")
    run = work_until_over(make_run(project))
    assert run.state == Run.State.FINISHED
    assert "odd number" in QueryFit.objects.get(query=odd).error


def test_advance_twice_at_once_plans_once() -> None:
    project = make_project(queries=3)
    run = make_run(project)
    planned = questions(run)
    advancing.advance(run.pk)
    assert questions(run) == planned


@pytest.mark.parametrize("sampler", ["test-repeating", "test-raising"])
def test_sampler_that_breaks_its_contract_does_not_go_on_for_ever(sampler: str) -> None:
    project = make_project(queries=1)
    run = work_until_over(make_run(project, sampler=sampler, planned=False))
    if sampler == "test-raising":
        assert (run.state, run.reason) == (Run.State.FAILED, "ArithmeticError: no design")
        assert Job.objects.get(run=run).state == Job.State.FAILED
    else:
        assert (run.state, run.pairs_planned) == (Run.State.FINISHED, 1)


# --- crashes -----------------------------------------------------------------------------


@pytest.mark.parametrize("allocation", ["all", "rotate"])
def test_planning_goes_on_where_it_stopped_and_asks_the_same(allocation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(queries=5, documents=5)
    monkeypatch.setattr(advancing, "QUERIES_AT_ONCE", 2)
    judges = make_judges(project, 3)
    run = make_run(project, judges=judges, allocation=allocation, orders="both", planned=False)
    plan_queries, calls = planning.plan_queries, []

    def dies_in_the_second_chunk(*args: Any, **options: Any) -> None:
        calls.append(options["budgets"])
        plan_queries(*args, **options)
        if len(calls) == 2:
            raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(planning, "plan_queries", dies_in_the_second_chunk)
    with pytest.raises(OperationalError):
        advancing.advance(run.pk)
    half = questions(run)
    advancing.advance(run.pk)
    whole = questions(run)
    assert whole[: len(half)] == half
    assert 0 < len(half) < len(whole) == len(set(whole))
    assert [sorted(each) for each in calls][1] == [sorted(each) for each in calls][2], "the lost chunk is planned again"

    JudgingTask.objects.all().delete()
    Pair.objects.all().delete()
    monkeypatch.setattr(planning, "plan_queries", plan_queries)
    undisturbed = make_run(project, judges=judges, allocation=allocation, orders="both")
    assert questions(undisturbed) == whole


# --- budgets and designs -----------------------------------------------------------------


def test_budget_is_shared_evenly_and_ends_the_run() -> None:
    project = make_project(queries=3, documents=6)
    run = make_run(project, pair_budget=11)
    pairs = [query.pairs.count() for query in project.queries.order_by("id")]
    assert pairs == [4, 4, 3]
    run = work_until_over(run)
    assert (run.pairs_planned, run.reason) == (11, "the budget of 11 pairs is spent")


def test_rotate_asks_one_judge_a_pair_and_each_as_often() -> None:
    project = make_project(queries=2, documents=10)
    run = make_run(project, judges=make_judges(project, 3), allocation="rotate")
    asked = [annotator for _, _, annotator, _ in questions(run)]
    assert len(asked) == run.pairs_planned
    counts = [asked.count(judge.pk) for judge in run.judges.all()]
    assert max(counts) - min(counts) <= 1


def test_both_orders_are_asked_and_averaged_by_one_judge() -> None:
    project = make_project(queries=1)
    run = make_run(project, orders="both")
    asked = questions(run)
    assert len(asked) == 2 * run.pairs_planned
    assert {(a, b, True) for a, b, _, _ in asked} == {(a, b, True) for a, b, _, swapped in asked if swapped}


def test_only_the_queries_that_were_chosen_are_asked_about() -> None:
    project = make_project(queries=3)
    chosen = project.queries.order_by("id")[1]
    run = make_run(project, query_ids=[chosen.pk])
    assert set(Pair.objects.values_list("query_id", flat=True)) == {chosen.pk}
    work_until_over(run)


def test_what_was_answered_is_not_asked_again() -> None:
    project = make_project(queries=1, documents=4)
    judges = make_judges(project)
    work_until_over(make_run(project, judges=judges))
    again = work_until_over(make_run(project, judges=judges, planned=False))
    assert (again.state, again.tasks_planned, again.pairs_planned) == (Run.State.FINISHED, 0, 0)


def test_another_judge_answers_the_same_design() -> None:
    project = make_project(queries=2, documents=12)
    first, second = make_judges(project, 2)
    design = work_until_over(make_run(project, judges=[first]))
    run = work_until_over(make_run(project, judges=[first, second]))
    assert run.tasks_planned == design.pairs_planned
    assert Pair.objects.count() == design.pairs_planned
    assert Judgment.objects.filter(annotator=second).count() == design.pairs_planned


def test_a_pair_that_a_person_judged_belongs_to_the_design() -> None:
    project = make_project(queries=1, documents=4)
    pair = make_pair(project.queries.get())
    judge_pair(pair, get_person(project, make_user()))
    run = make_run(project, pair_budget=1)
    assert list(JudgingTask.objects.filter(run=run).values_list("pair_id", flat=True)) == [pair.pk]


def test_run_after_a_cancelled_one_asks_what_was_left() -> None:
    project = make_project(queries=1, documents=6)
    judges = make_judges(project)
    first = make_run(project, judges=judges)
    claimed = queue.claim(annotator_id=judges[0].pk, worker="w@host:1", limit=2)
    batches.judge_claimed(judges[0], claimed)
    transitions.cancel_run(first)
    assert (first.tasks_planned, run_progress(first).answered) == (2, 2)
    second = work_until_over(make_run(project, judges=judges))
    assert second.tasks_planned > 0
    assert Judgment.objects.count() == 2 + second.tasks_planned == 15, "six documents: every pair, once"


def test_two_runs_on_the_same_pairs_share_answers_and_both_end() -> None:
    project = make_project(queries=1, documents=6)
    judges = make_judges(project)
    first = make_run(project, judges=judges)
    second = make_run(project, judges=judges)
    assert second.state == Run.State.JUDGING, "it waits for what the first one is asking"
    work_until_over(first)
    assert work_until_over(second).tasks_planned == 0
    assert Judgment.objects.count() == first.tasks_planned


def test_the_dead_of_a_finished_run_are_asked_anew_by_the_next() -> None:
    project = make_project(queries=1, documents=4)
    judges = make_judges(project)
    first = make_run(project, judges=judges)
    claimed = queue.claim(annotator_id=judges[0].pk, worker="w@host:1", limit=100)
    queue.fail([(task, Failure(FailureKind.REFUSAL, "no", retryable=False)) for task in claimed])
    work_until_over(first)
    second = work_until_over(make_run(project, judges=judges))
    assert Judgment.objects.count() == second.tasks_planned == len(claimed)
    first.refresh_from_db()
    assert run_progress(first).answered == 0


# --- pausing and refusing ----------------------------------------------------------------


def test_paused_run_stands_still_and_goes_on() -> None:
    project = make_project(queries=1)
    run = make_run(project)
    assert transitions.pause_run(run)
    assert judge_all(run) == 0
    advancing.advance(run.pk)
    assert Run.objects.get(pk=run.pk).state == Run.State.PAUSED
    assert not transitions.pause_run(run)
    assert transitions.resume_run(run)
    assert not transitions.resume_run(run)
    assert work_until_over(run).state == Run.State.FINISHED


def test_run_paused_before_it_was_planned_is_planned_after_it_goes_on() -> None:
    project = make_project(queries=1)
    run = make_run(project, planned=False)
    transitions.pause_run(run)
    advancing.advance(run.pk)
    assert not Pair.objects.exists()
    transitions.resume_run(run)
    assert work_until_over(run).tasks_planned > 0


def test_cancelled_run_asks_nothing_more_and_keeps_its_answers() -> None:
    project = make_project(queries=1)
    run = make_run(project, planned=False)
    assert transitions.cancel_run(run)
    advancing.advance(run.pk)
    assert not Pair.objects.exists()
    assert Job.objects.get(run=run).state == Job.State.CANCELLED
    assert not transitions.cancel_run(run)
    assert not transitions.resume_run(run)
    assert run.finished_at is not None


@pytest.mark.parametrize(
    ("order", "named"),
    [
        ({"judges": []}, "judges"),
        ({"allocation": "some"}, "'some'"),
        ({"orders": "three"}, "'three'"),
        ({"pair_budget": 0}, "0 pairs"),
        ({"query_ids": []}, "two candidates"),
    ],
)
def test_order_that_cannot_be_carried_out_is_refused(order: dict[str, Any], named: str) -> None:
    project = make_project(queries=1)
    with pytest.raises(RunRefused, match=named):
        ordering.start_run(project, **{"judges": make_judges(project), **order})
    assert not Run.objects.exists()


def test_judges_of_other_projects_and_persons_are_refused() -> None:
    project, other = make_project(queries=1), make_project()
    for annotator in (make_judges(other)[0], get_person(project, make_user())):
        with pytest.raises(RunRefused, match="not a judge of project"):
            ordering.start_run(project, judges=[annotator])


def test_queries_of_another_project_are_refused() -> None:
    project, other = make_project(queries=1), make_project(queries=1)
    with pytest.raises(RunRefused, match="two candidates"):
        ordering.start_run(project, judges=make_judges(project), query_ids=[other.queries.get().pk])


def test_unknown_sampler_is_named() -> None:
    project = make_project(queries=1)
    with pytest.raises(UnknownPlugin, match="nonesuch"):
        ordering.start_run(project, judges=make_judges(project), sampler="nonesuch")
