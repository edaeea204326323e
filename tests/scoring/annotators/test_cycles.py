"""Triples that the panel orders in a circle, and the run that asks about them in the other order."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from labeling.access.annotators import get_person
from labeling.models import Judgment, Pair, Query
from scoring.annotators.cycles import contradicting_pairs, panel_cycles
from scoring.numerics.judges.judge_checks import cycles_of, intransitive_triples
from scoring.rating import rate_stale
from tests.factories.rows import (
    candidate_ids,
    judge_pair,
    make_judges,
    make_pair,
    make_project,
    make_query_with_documents,
    make_user,
)
from workers.models import JudgingTask, Run
from workers.runs.advancing import advance
from workers.runs.ordering import RunRefused, start_run


def test_the_circles_are_those_that_are_counted() -> None:
    rng = np.random.default_rng(0)
    a, b = np.array(list(itertools.combinations(range(9), 2))).T
    p = rng.choice([0.1, 0.45, 0.55, 0.8], len(a))
    found = cycles_of(a, b, p, 9)
    assert len(found) == len(set(found)) == intransitive_triples(a, b, p, 9)[0] > 0
    side = {(i, j): q for i, j, q in zip(a.tolist(), b.tolist(), p.tolist(), strict=True)}
    side |= {(j, i): 1.0 - q for (i, j), q in side.items()}
    for (i, j, k), preferences in found:
        assert i < min(j, k) and preferences == pytest.approx((side[i, j], side[j, k], side[k, i]))
        assert min(preferences) > 0.5


@pytest.mark.parametrize("tie", [0.45, 0.55, (0.4 + 0.5) / 2, (0.5 + 0.6) / 2])
def test_a_tie_closes_no_circle_whichever_document_comes_first(tie: float) -> None:
    a, b, p = np.array([0, 1, 0]), np.array([1, 2, 2]), np.array([0.8, 0.8, tie])
    assert cycles_of(a, b, p, 3) == [] and intransitive_triples(a, b, p, 3) == (0, 0)


def judged_circle() -> Query:
    """Two judges, of whom the mean goes round 0, 1, 2 and leaves 3 last; the second also in the other order on one pair."""
    query = make_query_with_documents(make_project(), 4)
    first, second = make_judges(query.project, 2)
    for a, b, p in ((0, 1, 0.8), (1, 2, 0.9), (0, 2, 0.3), (0, 3, 0.9), (1, 3, 0.9), (2, 3, 0.9)):
        judge_pair(make_pair(query, a, b), first, p)
        judge_pair(make_pair(query, a, b), second, 0.6 if p > 0.5 else 0.45)
    judge_pair(make_pair(query, 0, 1), second, 0.6, swapped=True)
    judge_pair(make_pair(query, 0, 2), get_person(query.project, make_user()), 0.95)
    rate_stale(query.project_id)
    return query


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("stub_plugins")
def test_a_circle_of_the_panel_is_listed_with_its_share() -> None:
    query = judged_circle()
    ids = candidate_ids(query)
    found = panel_cycles(query.project)
    assert (found.cycles, found.triples) == (1, 4) and found.share is not None and found.share.value == 0.25
    (listed,) = found.listed
    assert (listed.query_id, listed.candidate_ids) == (query.pk, tuple(ids[:3]))
    assert listed.preferences == pytest.approx((0.7, 0.75, 0.625)) and listed.margin == pytest.approx(0.125)
    expected = [[ids[0], ids[1]], [ids[0], ids[2]], [ids[1], ids[2]]]
    assert contradicting_pairs(query.project_id, [query.pk])[query.pk].tolist() == expected


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("stub_plugins")
def test_equally_clear_circles_of_one_query_do_not_hide_those_of_another() -> None:
    """As with signs alone, where every circle has the largest margin."""
    project = make_project()
    (judge,) = make_judges(project, 1)
    queries = [make_query_with_documents(project, 5) for _ in range(2)]
    for query in queries:
        for a, b in itertools.combinations(range(5), 2):
            judge_pair(make_pair(query, a, b), judge, float((b - a) % 5 < 3))  # five circles
    rate_stale(project.pk)
    found = panel_cycles(project)
    assert found.cycles == len(found.listed) == 10
    assert [each.query_id for each in found.listed] == [query.pk for query in queries] * 5


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("stub_plugins")
def test_a_run_re_asks_the_pairs_of_circles_in_the_missing_order_and_no_others() -> None:
    query = judged_circle()
    judges = list(query.project.annotators.filter(is_person=False).order_by("id"))
    run = start_run(query.project, judges=judges, sampler="conflicts", orders=Run.Orders.BOTH)
    advance(run.pk)
    tasks = JudgingTask.objects.filter(run=run)
    assert set(tasks.values_list("swapped", flat=True)) == {True}
    assert set(tasks.values_list("pair", flat=True)) == {make_pair(query, a, b).pk for a, b in ((0, 1), (0, 2), (1, 2))}
    assert tasks.count() == 5, "the second judge has answered one of them in both orders"
    assert Pair.objects.count() == 6 and Judgment.objects.count() == 14
    with pytest.raises(RunRefused, match="these judges have not answered in both orders; choose other judges"):
        start_run(query.project, judges=judges, sampler="conflicts", orders=Run.Orders.BOTH)
    assert Run.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("stub_plugins")
@pytest.mark.parametrize(("allocation", "orders"), [("all", "one"), ("rotate", "both"), ("rotate", "one")])
def test_a_run_that_would_ask_nothing_about_circles_is_refused(allocation: str, orders: str) -> None:
    query = judged_circle()
    judges = list(query.project.annotators.filter(is_person=False).order_by("id"))
    ordered: dict[str, Any] = {"sampler": "conflicts", "allocation": allocation, "orders": orders}
    with pytest.raises(RunRefused, match="choose every judge on every pair and both orders, or other judges"):
        start_run(query.project, judges=judges, **ordered)
    run = start_run(query.project, judges=make_judges(query.project, 3)[2:], **ordered)
    advance(run.pk)
    assert JudgingTask.objects.filter(run=run).count() == (6 if orders == "both" else 3), "a new judge owes everything"
