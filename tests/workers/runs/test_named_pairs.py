"""Runs that ask exactly named pairs: once each, within the budget, with an estimate; wrong pairs are refused."""

from __future__ import annotations

from typing import Any

import pytest

from labeling.models import Judgment, Project
from labeling.plugins import get_plugin
from scoring.rating import rate_stale
from tests.factories.rows import candidate_ids, make_judges, make_pair, make_project
from tests.factories.working import judge_all, work_until_over
from workers.budgets.limits import Budgets
from workers.models import Run
from workers.runs import advancing
from workers.runs.estimate import ChosenJudge, estimate_run
from workers.runs.ordering import NoJudges, RunRefused, ask_again, start_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]


def pairs_asked() -> set[tuple[int, int]]:
    return set(Judgment.objects.values_list("pair__a", "pair__b"))


def named_run(project: Project, pairs: Any, **order: Any) -> Run:
    judges = order.pop("judges", None) or make_judges(project, 2)
    return start_run(
        project, judges=judges, sampler="named", sampler_options={"pairs": pairs}, allocation="rotate", seed=1, **order
    )


def test_a_run_asks_the_named_pairs_once_also_those_that_others_have_answered() -> None:
    project = make_project(queries=3, documents=5)
    first, second, _ = (candidate_ids(query) for query in project.queries.order_by("id"))
    judges = make_judges(project, 1)
    before = start_run(project, judges=judges, sampler="all", query_ids=[project.queries.order_by("id")[0].pk], seed=1)
    work_until_over(before)
    answered = len(pairs_asked())
    pairs = [(first[1], first[0]), (second[0], second[4]), (second[4], second[0]), (second[1], second[2])]
    run = named_run(project, pairs, judges=make_judges(project, 2)[1:])
    assert run.query_ids == sorted(project.queries.order_by("id")[:2].values_list("pk", flat=True))
    assert run.estimate["calls"] == 3
    work_until_over(run)
    run.refresh_from_db()
    assert (run.state, run.pairs_planned, run.tasks_planned, run.round) == ("finished", 3, 3, 1)
    assert len(pairs_asked()) == answered + 2
    assert {(second[0], second[4]), (second[1], second[2])} < pairs_asked()


def test_a_budget_keeps_the_first_pairs_however_they_lie_and_a_retry_asks_nothing_twice() -> None:
    project = make_project(queries=3, documents=5)
    first, second, third = (candidate_ids(query) for query in project.queries.order_by("id"))
    pairs = [
        (third[0], third[1]),
        (third[0], third[2]),
        (third[0], third[3]),
        (first[0], first[1]),
        (second[0], second[1]),
    ]
    run = named_run(project, pairs, pair_budget=4)
    advancing.advance(run.pk)
    judge_all(run)
    rate_stale(project.pk)
    work_until_over(run)
    run.refresh_from_db()
    assert run.state == "finished" and pairs_asked() == set(pairs[:4])

    chosen = [ChosenJudge(get_plugin("judge", judge.plugin), judge.options) for judge in run.judges.order_by("pk")]
    options: dict[str, Any] = {"pairs": pairs}
    for most, calls in ((None, 5), (2, 2)):
        found = estimate_run(
            project, chosen, sampler="named", sampler_options=options, allocation="rotate", orders="one",
            budgets=Budgets(pairs=most),
        )  # fmt: skip
        assert (found.pairs, abs(found.calls - calls) <= 1) == (calls, True)


def test_wrong_pairs_are_refused_and_nothing_is_stored() -> None:
    project = make_project(queries=2, documents=3)
    first, second = (candidate_ids(query) for query in project.queries.order_by("id"))
    foreign = candidate_ids(make_project(queries=1).queries.get())
    for pairs, told in (
        ([], "has no pairs; name pairs of candidate ids"),
        ([(first[0], second[0])], "holds candidates of two queries; name two candidates of one query"),
        ([(first[0], first[0])], "holds one candidate twice"),
        ([(first[0], foreign[0])], "of a named pair does not belong to project"),
    ):
        with pytest.raises(RunRefused, match=told):
            named_run(project, pairs)
    with pytest.raises(RunRefused, match="belong to queries that were not chosen"):
        named_run(project, [(first[0], first[1])], query_ids=[project.queries.order_by("id")[1].pk])
    assert not Run.objects.exists()


def test_a_pair_is_asked_again_in_the_orders_that_are_left_and_then_no_more() -> None:
    project = make_project(queries=1, documents=3)
    query = project.queries.get()
    pair = make_pair(query)
    with pytest.raises(NoJudges):
        ask_again(project, pair, by=None)
    judges = make_judges(project, 2)
    work_until_over(named_run(project, [(pair.a_id, pair.b_id)], judges=judges))
    assert Judgment.objects.filter(pair=pair).count() == 1
    work_until_over(ask_again(project, pair, by=None))
    answered = Judgment.objects.filter(pair=pair).values_list("annotator", "swapped")
    assert set(answered) == {(judge.pk, swapped) for judge in judges for swapped in (False, True)}
    with pytest.raises(RunRefused, match="both orders"):
        ask_again(project, pair, by=None)
