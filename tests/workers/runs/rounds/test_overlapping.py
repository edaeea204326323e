"""Rounds that overlap: the next begins where answers and scores are there, and asks what it would have asked later."""

from __future__ import annotations

from typing import Any

import pytest

from labeling.models import Project
from labeling.records import Verdict
from scoring.rating import rate_stale
from tests.factories.rows import make_judges, make_project, make_run
from tests.factories.working import work_until_over
from workers.judging import queue
from workers.models import Job, JudgingTask, Run
from workers.runs import advancing

# The rater reads in a transaction of its own.
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stub_plugins")]

DOCUMENTS, QUERIES = 4, 6


@pytest.fixture(autouse=True)
def two_queries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advancing, "QUERIES_AT_ONCE", 2)


def answer(run: Run, count: int) -> None:
    """Answer the first open questions; the longer document is the better one."""
    tasks = queue.claim(annotator_id=run.judges.get().pk, worker="w@host:1", limit=count)
    queue.finish([(task, Verdict(0.3)) for task in tasks])


def asked(run: Run) -> list[tuple[int, int, int]]:
    """(place of the query, place of a, place of b) of every pair that was ever asked."""
    ids = list(run.project.queries.order_by("id").values_list("id", flat=True))
    found = []
    for place, query in enumerate(ids):
        rank = {
            pk: at
            for at, pk in enumerate(sorted(run.project.queries.get(pk=query).candidates.values_list("pk", flat=True)))
        }
        pairs = run.project.queries.get(pk=query).pairs.values_list("a_id", "b_id")
        found += [(place, rank[a], rank[b]) for a, b in pairs]
    return sorted(found)


def begun(project: Project, **order: Any) -> Run:
    """A run whose first round is planned: three questions for each query."""
    run = make_run(project, sampler="test-two-rounds", **order)
    assert (run.round, run.tasks_planned) == (1, 3 * QUERIES)
    return run


def test_next_round_begins_with_fitted_queries_while_others_are_judged() -> None:
    project = make_project(queries=QUERIES, documents=DOCUMENTS)
    run = begun(project)
    answer(run, 6)
    advancing.advance(run.pk)
    run.refresh_from_db()
    assert run.pairs_planned == 3 * QUERIES, "the first two queries have no scores yet"
    rate_stale(project.pk)
    advancing.advance(run.pk)
    run.refresh_from_db()
    assert run.pairs_planned == 3 * QUERIES + 2 * 2
    job = Job.objects.get(run=run, state=Job.State.OPEN)
    assert (job.payload["round"], job.done, job.total, run.round) == (2, 2, QUERIES, 1)
    assert advancing.runs_to_advance(project.pk) == [run.pk]
    assert JudgingTask.objects.filter(run=run).count() == 3 * QUERIES - 6 + 4
    assert work_until_over(run).round == 2


def test_overlapping_rounds_ask_what_rounds_one_after_another_ask() -> None:
    overlapping, waiting = (begun(make_project(queries=QUERIES, documents=DOCUMENTS)) for _ in range(2))
    while not Run.objects.filter(pk=overlapping.pk, state=Run.State.FINISHED).exists():
        answer(overlapping, 4)
        rate_stale(overlapping.project_id)
        advancing.advance(overlapping.pk)
    work_until_over(waiting)
    assert Job.objects.filter(run=overlapping, payload__overlaps=True).exists()
    assert not Job.objects.filter(run=waiting, payload__overlaps=True).exists()
    assert asked(overlapping) == asked(waiting)
    assert len(asked(waiting)) == 5 * QUERIES


@pytest.mark.parametrize("order", [{"pair_budget": 5 * QUERIES}, {"allocation": "cascade"}])
def test_rounds_that_need_all_answers_wait_for_them(order: dict[str, Any]) -> None:
    project = make_project(queries=QUERIES, documents=DOCUMENTS)
    run = begun(project, judges=make_judges(project, 2 if "allocation" in order else 1), **order)
    judge = run.cascade_first or run.judges.get()
    tasks = queue.claim(annotator_id=judge.pk, worker="w@host:1", limit=6)
    queue.finish([(task, Verdict(0.3)) for task in tasks])
    rate_stale(project.pk)
    advancing.advance(run.pk)
    run.refresh_from_db()
    assert (run.round, run.tasks_planned) == (1, 3 * QUERIES)
    assert not Job.objects.filter(run=run, state=Job.State.OPEN).exists()


def test_a_large_round_is_planned_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advancing, "PLANNING_SLICE_S", 0.0)
    run = make_run(make_project(queries=QUERIES, documents=DOCUMENTS), sampler="test-two-rounds")
    assert run.pairs_planned == 6
    advancing.advance(run.pk)
    advancing.advance(run.pk)
    run.refresh_from_db()
    assert (run.pairs_planned, run.round) == (3 * QUERIES, 1)
